//! The report as people and programs see it.

use std::time::Duration;

use serde_json::{Map, json};

use super::*;
use crate::api::Usage;
use crate::bench::failure::{ErrorKind, Failure};
use crate::bench::figures::{Completed, Figures};
use crate::bench::report::{Circumstances, FileFacts, Warmup};

const MS: Duration = Duration::from_millis(1);

fn plan(load: Load) -> Plan {
    Plan {
        url: "http://127.0.0.1:8080".into(),
        model: Some("m\u{1b}[2J".into()),
        key: Some("sk-secret".into()),
        endpoint: Endpoint::Chat,
        stream: true,
        load,
        requests: Some(4),
        duration: None,
        prompts: Prompts::Synthetic {
            tokens: TokenRange { least: 16, most: 32 },
            shared_prefix: 8,
        },
        max_tokens: 5,
        extra_body: Map::new(),
        warmup: 2,
        seed: 7,
        timeout: 600_000 * MS,
        objectives: "ttft:500".parse().expect("objectives"),
        threads: 1,
    }
}

fn closed() -> Plan {
    plan(Load::Closed { concurrency: 4 })
}

/// 1,200 answers of 5 tokens: the first after 20 ms, the others 10 ms apart; two requests failed.
fn figures() -> Figures {
    let mut figures = Figures::with(closed().objectives);
    for _ in 0..1200 {
        figures.sent(MS / 2);
        figures.first_content(20 * MS);
        (0..4).for_each(|_| figures.more_content(10 * MS));
        figures.completed(&Completed {
            end_to_end: 60 * MS,
            ttft: Some(20 * MS),
            decoding: 40 * MS,
            events: 5,
            usage: Some(Usage { prompt_tokens: 25, completion_tokens: 5 }),
            finish_reason: Some("length".into()),
            prompt_asked: Some(24),
        });
    }
    for _ in 0..2 {
        figures.sent(MS);
        let message = "queue full".into();
        figures.failed(&Failure { kind: ErrorKind::Http5xx, status: Some(503), message });
    }
    figures
}

fn circumstances() -> Circumstances {
    Circumstances {
        started_unix_ms: 1_700_000_000_000,
        elapsed: Duration::from_secs(10),
        cpu: Duration::from_secs(1),
        interrupted: false,
        file: None,
        warmup: Warmup { completed: 2, failed: 0 },
    }
}

fn text(report: &Report, width: usize) -> String {
    let text = table(report, width);
    anstream::adapter::strip_str(&text).to_string()
}

#[test]
fn the_table_tells_it_all() {
    let report = Report::new(closed(), &figures(), circumstances());
    let wanted = "\
m[2J at http://127.0.0.1:8080, chat, streamed
closed loop, 4 at a time; prompts of 16..32 tokens, the first 8 shared; answers of at most 5 tokens

requests      1,200 completed, 2 (0.2 %) failed (after a warm-up of 2, not counted)
duration      10.00 s
throughput    120.0 requests/s, 600.0 output tokens/s, 3,600 tokens/s in all
goodput       120.0 requests/s within the objectives, 99.8 %
tokens        30,000 prompt (25.0 a request), 6,000 completion (5.0)
finished by   length 1,200
client        10 % of one thread

ms                  mean       p50       p90       p95       p99       max     count
TTFT                20.0      20.0      20.0      20.0      20.0      20.0     1,200
TPOT                10.0      10.0      10.0      10.0      10.0      10.0     1,200
inter-token         10.0      10.0      10.0      10.0      10.0      10.0     4,800
end-to-end          60.0      60.0      60.0      60.0      60.0      60.0     1,200

http_5xx      2: queue full";
    assert_eq!(text(&report, 120), wanted);
}

#[test]
fn a_narrow_terminal_gets_the_percentiles_that_matter_most() {
    let report = Report::new(closed(), &figures(), circumstances());
    let text = text(&report, 60);
    assert!(text.contains("ms                   p50       p99       max\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 60), "{text}");
}

#[test]
fn an_open_loop_tells_how_late_it_sent() {
    let load = Load::Open { rate: 2.5, arrivals: Arrivals::Poisson, max_in_flight: 9 };
    let text = text(&Report::new(plan(load), &figures(), circumstances()), 120);
    assert!(text.contains("open loop, 2.5 requests/s, Poisson arrivals"), "{text}");
    assert!(text.contains("sent late by 0.50 ms (p50), 0.50 ms (p99)"), "{text}");
}

#[test]
fn what_a_reader_must_know_is_said() {
    let quiet = Report::new(closed(), &figures(), circumstances());
    assert_eq!(quiet.notes(), Vec::<String>::new());

    let mut figures = figures();
    figures.held = 3;
    figures.sent(MS);
    figures.tokens.without_usage = 4;
    figures.tokens.completion *= 3;
    let circumstances = Circumstances {
        cpu: Duration::from_secs(9),
        interrupted: true,
        file: Some(FileFacts { entries: 10, clipped: 6 }),
        warmup: Warmup { completed: 1, failed: 1 },
        ..circumstances()
    };
    let notes = Report::new(closed(), &figures, circumstances).notes().join("\n");
    for expected in [
        "interrupted; 1 requests were under way",
        "3 requests were sent late because 4 were in flight",
        "90 % of its threads' time",
        "3.0 tokens into an event",
        "4 answers came without `usage`",
        "6 of the file's 10 requests were cut",
        "1 requests of the warm-up failed",
    ] {
        assert!(notes.contains(expected), "{expected}: {notes}");
    }

    figures.held = 0;
    figures.tokens.without_usage = 0;
    figures.tokens.prompt *= 2;
    (0..100).for_each(|_| figures.lateness.record(40 * MS));
    let notes = Report::new(closed(), &figures, circumstances).notes().join("\n");
    assert!(notes.contains("sent 1 % of the requests 40 ms late"), "{notes}");
    assert!(notes.contains("2.08 times the tokens asked for"), "{notes}");
}

#[test]
fn the_json_has_the_documented_names_and_no_key() {
    let report = Report::new(closed(), &figures(), circumstances());
    let json = serde_json::to_value(&report).expect("JSON");
    assert!(!json.to_string().contains("sk-secret"));
    let names: Vec<_> = json.as_object().expect("an object").keys().cloned().collect();
    let wanted = [
        "schema",
        "version",
        "started_unix_ms",
        "setup",
        "file",
        "interrupted",
        "elapsed_s",
        "requests",
        "errors",
        "http_statuses",
        "finish_reasons",
        "tokens",
        "throughput",
        "goodput",
        "latency_ms",
        "client",
    ];
    assert_eq!(names, wanted);
    assert_eq!(json["schema"], 1);
    assert_eq!(json["setup"]["load"], json!({"mode": "closed", "concurrency": 4}));
    assert_eq!(json["setup"]["timeout_s"], 600.0);
    assert_eq!(
        json["setup"]["objectives"],
        json!({"ttft_ms": 500.0, "tpot_ms": null, "e2e_ms": null})
    );
    assert_eq!(json["requests"]["completed"], 1200);
    assert_eq!(json["errors"]["http_5xx"], json!({"count": 2, "example": "queue full"}));
    assert_eq!(json["http_statuses"], json!({"200": 1200, "503": 2}));
    assert_eq!(json["goodput"]["good"], 1200);
    assert_eq!(json["latency_ms"]["ttft"]["count"], 1200);
    assert_eq!(json["throughput"]["output_tokens_per_s"], 600.0);
}

#[test]
fn figures_have_as_many_digits_as_help() {
    let all: Vec<_> = [0.0, 0.123, 9.999, 42.55, 999.96, 1234.5].map(ms).to_vec();
    assert_eq!(all, ["0.00", "0.12", "10.00", "42.5", "1000.0", "1,235"]);
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}

#[test]
fn notes_wrap_between_words() {
    assert_eq!(wrapped("one two three four", 9, 2), "one two\n  three\n  four");
    assert_eq!(wrapped("incomprehensibilities", 5, 2), "incomprehensibilities");
    let red = format!("{} b c", Styled(BAD, "a"));
    assert_eq!(wrapped(&red, 3, 1), format!("{} b\n c", Styled(BAD, "a")), "colours are not wide");
}
