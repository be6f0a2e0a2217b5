//! `inferno bench`: load for an endpoint, and what it did to it.

use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use serde_json::{Map, Value};
use terminal_size::{Width, terminal_size_of};

use crate::api::KeyArgs;
use crate::bench::{
    Arrivals, Endpoint, Load, Objectives, Plan, Prompts, Report, TokenRange, run as bench, table,
};
use crate::console::{error, print};
use crate::exit::INTERRUPTED;

/// How long a run is that says nothing about it.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);
/// Longest run, longest answer.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// A reader that is no terminal gets whole tables.
const WIDTH_ELSEWHERE: usize = 100;

const HELP: &str = "\
Examples:
  inferno bench                                  4 at a time for 30 s
  inferno bench --concurrency 16 --requests 500 --max-tokens 128 --ignore-eos
  inferno bench --rate 2.5 --duration 2m         what users would wait then
  inferno bench --rate 2 --slo ttft:500,tpot:50  how much of it was good enough
  inferno bench --trace mooncake.jsonl --speed 0.1 --max-context 8192
  inferno bench --url https://host/v1 --model M --api-key-file key --json

Closed loop (--concurrency): the next request begins when an answer is whole;
a server that stalls is asked less. Open loop (--rate, --trace): requests begin
at their times whatever the server does, and latencies count from those times,
so that a stall shows in every request it delayed.

TTFT is the time to the first event with content, inter-token latency the time
between two such events, TPOT the time per output token after the first;
docs/bench.md says how each is measured.

Exit codes: 0 done, 1 nothing succeeded or too much failed (--max-errors),
2 wrong usage, 130 interrupted.";

/// The arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, group(clap::ArgGroup::new("open_loop").args(["rate", "trace"])))]
pub(crate) struct BenchArgs {
    /// The endpoint, with or without /v1
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The model; the first that the endpoint offers if left out
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// Which API to ask
    #[arg(long, value_enum, default_value_t = Endpoint::Chat)]
    endpoint: Endpoint,
    /// Ask for whole answers; then there is no TTFT
    #[arg(long)]
    no_stream: bool,

    /// Closed loop: so many requests in flight all the time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    concurrency: u32,
    /// Open loop: so many requests begin each second
    #[arg(long, short = 'r', value_name = "PER_SECOND", value_parser = factor, conflicts_with = "concurrency", help_heading = "Load")]
    rate: Option<f64>,
    /// How the gaps between them are spread
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson, requires = "rate", help_heading = "Load")]
    arrivals: Arrivals,
    /// Open loop: requests from a file of JSON lines, at their times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "concurrency", "prompts", "prompt", "prompt_tokens"], help_heading = "Load")]
    trace: Option<PathBuf>,
    /// So many times as fast as the trace
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = factor, requires = "trace", help_heading = "Load")]
    speed: f64,
    /// Open loop: no more requests than this at once; the rest waits, and that is reported
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "open_loop", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    max_in_flight: u32,
    /// Stop after so many requests
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    requests: Option<u64>,
    /// Begin no request after this time: 30, 30s, 5m [default: 30s without --requests and --trace]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = time, help_heading = "Load")]
    duration: Option<Duration>,
    /// Requests before the run that are not measured, with prompts of their own
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Load")]
    warmup: u64,
    /// A request that takes longer has failed
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = time, help_heading = "Load")]
    timeout: Duration,

    /// Length of made-up prompts: N or MIN..MAX [default: 128]
    #[arg(long, value_name = "N", help_heading = "Requests")]
    prompt_tokens: Option<TokenRange>,
    /// So many tokens at the beginning of made-up prompts are those of all
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["prompt", "prompts", "trace"], help_heading = "Requests")]
    shared_prefix: u32,
    /// Ask this, and nothing else
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompts", "prompt_tokens"], help_heading = "Requests")]
    prompt: Option<String>,
    /// Ask what a file of JSON lines says, in turn; the form is that of --trace, times are not needed
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens", help_heading = "Requests")]
    prompts: Option<PathBuf>,
    /// Cut requests of a file that state lengths so that prompt and answer fit into so many tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..), help_heading = "Requests")]
    max_context: Option<u32>,
    /// Longest answer, where a file does not say
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Requests")]
    max_tokens: u32,
    /// Ask for answers of exactly that length (`ignore_eos`, of Inferno, vLLM, SGLang)
    #[arg(long, help_heading = "Requests")]
    ignore_eos: bool,
    /// Fields for each request's body: {"temperature":0}; null takes one of ours out
    #[arg(long, value_name = "JSON", value_parser = object, help_heading = "Requests")]
    extra_body: Option<Map<String, Value>>,
    /// The same seed, the same prompts at the same times
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Requests")]
    seed: u64,

    /// What a good request may take at most, in ms: ttft:500,tpot:50,e2e:5000, or some of these
    #[arg(long, value_name = "LIMITS", help_heading = "Report")]
    slo: Option<Objectives>,
    /// Fail (exit code 1) if more than this percentage of the requests failed
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0, value_parser = percentage, help_heading = "Report")]
    max_errors: f64,
    /// One JSON object instead of tables
    #[arg(long, help_heading = "Report")]
    json: bool,
    /// Write the JSON object to a file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    output: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short, help_heading = "Report")]
    quiet: bool,
    /// Threads of this client; one is enough until the report says otherwise
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Report")]
    threads: u16,
}

pub(crate) fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let (quiet, json, max_errors) = (args.quiet, args.json, args.max_errors);
    let output = args.output.clone();
    let report = bench(plan(args)?, quiet)?;
    let object = serde_json::to_string(&report)?;
    if let Some(path) = output {
        fs::write(&path, format!("{object}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(if json { object } else { table(&report, width()) })?;
    Ok(exit_code(&report, max_errors))
}

fn plan(args: BenchArgs) -> anyhow::Result<Plan> {
    let objectives = args.slo.unwrap_or_default();
    if args.no_stream && objectives.need_streams() {
        misused("ttft and tpot of --slo cannot be measured with --no-stream");
    }
    let is_endless = args.requests.is_none() && args.trace.is_none();
    Ok(Plan {
        key: args.key.read()?,
        load: load(&args),
        duration: args.duration.or(is_endless.then_some(DEFAULT_DURATION)),
        prompts: prompts(&args),
        extra_body: extra_body(args.extra_body, args.ignore_eos),
        url: args.url,
        model: args.model,
        endpoint: args.endpoint,
        stream: !args.no_stream,
        requests: args.requests,
        max_tokens: args.max_tokens,
        warmup: args.warmup,
        seed: args.seed,
        timeout: args.timeout,
        objectives,
        threads: usize::from(args.threads),
    })
}

/// Arguments that contradict one another in a way that clap cannot be told of.
fn misused(message: &str) -> ! {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{message}\n")).exit()
}

fn load(args: &BenchArgs) -> Load {
    let max_in_flight = args.max_in_flight as usize;
    match (args.rate, &args.trace) {
        (Some(rate), _) => Load::Open { rate, arrivals: args.arrivals, max_in_flight },
        (None, Some(_)) => Load::Trace { speed: args.speed, max_in_flight },
        (None, None) => Load::Closed { concurrency: args.concurrency as usize },
    }
}

fn prompts(args: &BenchArgs) -> Prompts {
    if let Some(path) = args.trace.as_ref().or(args.prompts.as_ref()) {
        return Prompts::File { path: path.clone(), max_context: args.max_context };
    }
    if args.max_context.is_some() {
        misused("--max-context cuts the requests of --trace or --prompts");
    }
    if let Some(text) = &args.prompt {
        return Prompts::Text { text: text.clone() };
    }
    let tokens = args.prompt_tokens.unwrap_or_default();
    let shared_prefix = args.shared_prefix;
    if shared_prefix > tokens.least {
        let shortest = tokens.least;
        misused(&format!(
            "--shared-prefix {shared_prefix} is longer than the shortest prompt, {shortest} tokens (--prompt-tokens)"
        ));
    }
    Prompts::Synthetic { tokens, shared_prefix }
}

fn extra_body(given: Option<Map<String, Value>>, ignore_eos: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    if ignore_eos {
        fields.insert("ignore_eos".to_owned(), true.into());
    }
    fields.extend(given.unwrap_or_default());
    fields
}

fn exit_code(report: &Report, max_errors: f64) -> ExitCode {
    let requests = &report.requests;
    let percent = 100.0 * requests.error_rate;
    if report.interrupted {
        return ExitCode::from(INTERRUPTED);
    }
    if requests.completed == 0 {
        error(&anyhow::anyhow!("no request succeeded, {} failed", requests.failed));
        return ExitCode::FAILURE;
    }
    if percent > max_errors {
        error(&anyhow::anyhow!(
            "{percent:.2} % of the requests failed, more than --max-errors {max_errors}"
        ));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn width() -> usize {
    let size = stdout().is_terminal().then(|| terminal_size_of(stdout())).flatten();
    size.map_or(WIDTH_ELSEWHERE, |(Width(width), _)| usize::from(width))
}

/// `30`, `1.5s`, `500ms`, `5m`, `1h`; more than nothing, at most [`TIME_MAX`].
fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let seconds_of_one = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is none of ms, s, m, h")),
    };
    let time = Duration::try_from_secs_f64(number(digits)? * seconds_of_one).ok();
    let time = time.filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| "more than nothing and at most 30 days expected".to_owned())
}

/// A rate or a speed.
fn factor(text: &str) -> Result<f64, String> {
    let number = number(text)?;
    let is_usable = (1e-6..=1e6).contains(&number);
    if is_usable { Ok(number) } else { Err("0.000001 to 1000000 expected".to_owned()) }
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = number(text)?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("0 to 100 expected".to_owned()) }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, ms) in
            [("30", 30_000), ("1.5s", 1500), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "-1s", "5d", "s", "inf", "1e999", "721h", "nan"] {
            assert!(time(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "nan", "1e7", "1e-300", "x"] {
            assert!(factor(text).is_err(), "{text}");
        }
        assert_eq!(factor("2.5"), Ok(2.5));
    }

    #[test]
    fn extra_fields_win() {
        let given = object(r#"{"ignore_eos":false,"top_k":5}"#).expect("an object");
        let fields = extra_body(Some(given), true);
        assert_eq!(serde_json::json!(fields), serde_json::json!({"ignore_eos":false,"top_k":5}));
        assert!(object("[]").is_err());
    }
}
