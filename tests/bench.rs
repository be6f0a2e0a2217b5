//! `inferno bench` against a real fleet: what it counts is what happened.

use inferno_tests::{MODEL, command, fleet::Fleet, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

fn bench(fleet: &Fleet, arguments: &[&str]) -> Command {
    let mut command = command(&["bench", "--url", &format!("http://{}", fleet.traffic)]);
    command.args(["--quiet", "--json"]).args(arguments);
    command.env_remove("OPENAI_API_KEY").stdin(Stdio::null());
    command
}

/// Runs it without holding up the runtime that the fleet's client needs.
async fn run(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output());
    ended.await.expect("no panic").expect("the program runs")
}

/// The one object on standard output.
fn report(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).expect("JSON")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_counts_every_token() {
    let fleet = Fleet::start(1).await;
    let output = run(bench(
        &fleet,
        &[
            "--concurrency",
            "2",
            "--requests",
            "6",
            "--warmup",
            "1",
            "--endpoint",
            "completions",
            "--prompt-tokens",
            "50",
            "--max-tokens",
            "8",
            "--ignore-eos",
            "--slo",
            "e2e:600000",
        ],
    ))
    .await;
    assert_eq!(code(&output), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "--quiet is quiet");
    let report = report(&output);
    assert_eq!(report["setup"]["model"], MODEL, "the first that is offered");
    let requests = &report["requests"];
    assert_eq!((&requests["completed"], &requests["failed"]), (&json!(6), &json!(0)), "{report}");
    assert_eq!(requests["warmup"], json!({"completed": 1, "failed": 0}));
    assert_eq!(report["tokens"]["completion"], 6 * 8);
    assert_eq!(report["tokens"]["prompt_asked"], 6 * 50);
    assert_eq!(report["tokens"]["prompt"], 6 * 50, "each word is one token of this model");
    assert_eq!(report["finish_reasons"], json!({"length": 6}));
    assert_eq!(report["http_statuses"], json!({"200": 6}));
    assert_eq!(report["goodput"]["good"], 6);
    let latency = &report["latency_ms"];
    assert_eq!(
        (&latency["ttft"]["count"], &latency["end_to_end"]["count"]),
        (&json!(6), &json!(6))
    );
    let events = report["tokens"]["stream_events"].as_u64().expect("a count");
    assert_eq!(latency["inter_token"]["count"], events - 6, "gaps are between events");
    // The backend saw those six, the warm-up, and nothing else.
    assert_eq!(fleet.vitals(0).await["requests_total"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_have_no_first_token() {
    let fleet = Fleet::start(1).await;
    let arguments = ["--no-stream", "-n", "2", "-c", "1", "--max-tokens", "3", "--prompt", "Hi"];
    let report = report(&run(bench(&fleet, &arguments)).await);
    assert_eq!(report["requests"]["completed"], 2, "{report}");
    assert_eq!(report["latency_ms"]["ttft"], Value::Null);
    assert_eq!(report["latency_ms"]["end_to_end"]["count"], 2);
    assert!(report["tokens"]["completion"].as_u64().is_some_and(|tokens| tokens > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_replayed_and_what_is_too_long_is_cut() {
    let fleet = Fleet::start(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.jsonl");
    let trace = r#"{"timestamp": 0, "input_length": 700, "output_length": 2, "hash_ids": [1, 2]}
{"timestamp": 4000, "input_length": 520, "output_length": 3, "hash_ids": [1, 3]}
{"at_ms": 8000, "prompt": "The capital of Japan is", "max_tokens": 4}
"#;
    std::fs::write(&path, trace).expect("a file");
    let path = path.to_str().expect("UTF-8");
    let report = report(
        &run(bench(
            &fleet,
            &[
                "--trace",
                path,
                "--speed",
                "100",
                "--max-context",
                "600",
                "--ignore-eos",
                "--endpoint",
                "completions",
            ],
        ))
        .await,
    );
    assert_eq!(report["requests"]["completed"], 3, "{report}");
    assert_eq!(report["file"], json!({"entries": 3, "clipped": 1}));
    assert_eq!(report["setup"]["load"]["mode"], "trace");
    assert_eq!(report["tokens"]["completion"], 2 + 3 + 4);
    assert_eq!(report["tokens"]["prompt_asked"], 598 + 520);
    assert_eq!(report["tokens"]["prompt"], 598 + 520 + 5);
    assert_eq!(report["client"]["lateness_ms"]["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_reported_and_decide_the_exit_code() {
    let fleet = Fleet::start(1).await;
    let nobody = run(bench(&fleet, &["--model", "nobody", "-n", "3"])).await;
    assert_eq!(code(&nobody), Some(1));
    let report_of_nobody = report(&nobody);
    assert_eq!(report_of_nobody["errors"]["http_4xx"]["count"], 3, "{report_of_nobody}");
    let example = report_of_nobody["errors"]["http_4xx"]["example"].as_str().unwrap_or_default();
    assert!(example.contains("nobody"), "{example}");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no request succeeded, 3 failed"));

    let folder = tempfile::tempdir().expect("a folder");
    let some_wrong = folder.path().join("some.jsonl");
    let lines =
        "{\"prompt\": \"Hi\", \"max_tokens\": 1}\n{\"prompt\": \"Hi\", \"max_tokens\": 999999}\n";
    std::fs::write(&some_wrong, lines).expect("a file");
    let half = |limit: &str, path: &Path| {
        let path = path.to_str().expect("UTF-8");
        run(bench(&fleet, &["--prompts", path, "-n", "4", "-c", "1", "--max-errors", limit]))
    };
    let too_many = half("49", &some_wrong).await;
    assert_eq!(code(&too_many), Some(1), "{}", report(&too_many));
    assert_eq!(report(&too_many)["requests"]["error_rate"], 0.5);
    assert_eq!(code(&half("50", &some_wrong).await), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_tells_what_was_measured_and_frees_the_backend() {
    let fleet = Fleet::start(1).await;
    let mut command =
        bench(&fleet, &["-c", "2", "-d", "1h", "--max-tokens", "4000", "--ignore-eos"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let in_progress = || async { fleet.vitals(0).await["requests_in_progress"].as_u64() };
    wait_for("both are under way", || async { in_progress().await.filter(|n| *n == 2) }).await;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("it lives");
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = ended.await.expect("no panic").expect("it ends");
    assert_eq!(code(&output), Some(130));
    let report = report(&output);
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["requests"]["in_flight"], 2, "{report}");
    wait_for("the slots are free", || async { in_progress().await.filter(|n| *n == 0) }).await;
}
