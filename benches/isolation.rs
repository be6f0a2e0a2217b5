//! Whether anything on the engine's side can slow the operations server: `/health` is asked every
//! 5 ms while a backend does nothing, and then while both its threads compute long prompts.
//!
//! ```text
//! cargo bench -p inferno-tests --bench isolation -- [SECONDS] [--gate]
//! ```
//!
//! SECONDS (default 25) of prefill. Promised is a p99 under 100 ms; with `--gate` it ends with 1 if
//! it is ten times that. No peer is timed: it is the same server with and without company.

use inferno_tests::{
    MODEL,
    client::Client,
    cpu,
    fleet::{Backend, start_backend},
    http::get,
    probe::{self, Latencies},
    wait_for,
};
use serde_json::json;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_millis(5);
/// More than enough to last: together some 28,000 tokens.
const PROMPTS: usize = 4;
const PROMPT_WORDS: usize = 7_000;
const P99_MAX: Duration = Duration::from_millis(100);
const LENIENCY: u32 = 10;

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn say(line: &str) {
    println!("{line}");
}

/// Asks for so long, and says how it went.
async fn probe(what: &str, path: &'static str, backend: &Backend, time: Duration) -> Latencies {
    let (server, pid) = (backend.operations, backend.process.pid());
    let questions = usize::try_from(time.as_millis() / INTERVAL.as_millis()).expect("a few");
    let (began, cpu_before) = (Instant::now(), cpu::of(pid));
    let asking = move || probe::latencies(server, &get(path, ""), INTERVAL, questions);
    let latencies = tokio::task::spawn_blocking(asking).await.expect("every answer was right");
    let cores = (cpu::of(pid) - cpu_before).as_secs_f64() / began.elapsed().as_secs_f64();
    say(&format!(
        "| {what} | {path} | {} | {cores:.2} | {:.2} | {:.2} | {:.2} |",
        latencies.count(),
        millis(latencies.percentile(50.0)),
        millis(latencies.percentile(99.0)),
        millis(latencies.max()),
    ));
    latencies
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One value of the backend's text.
async fn metric(backend: &Backend, name: &str) -> f64 {
    let page = Client::new().get(backend.operations, "/telemetry").await.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
    line.and_then(|value| value.parse().ok()).expect("it is told")
}

/// Long prompts, all different, of which the answer does not matter.
fn start_prompts(backend: &Backend) -> Vec<tokio::task::JoinHandle<()>> {
    let prompts = (0..PROMPTS).map(|number| format!("{number} word").repeat(PROMPT_WORDS / 2));
    let traffic = backend.traffic;
    let ask = |prompt: String| {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 1}).to_string();
        tokio::spawn(async move {
            Client::new().post(traffic, "/v1/completions", body).await;
        })
    };
    prompts.map(ask).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(25);
    let backend = start_backend("backend", &["backend.threads=2", "backend.kv_memory=2GiB"]);
    say("| backend | asked | times | its cores | p50 ms | p99 ms | max ms |");
    say("|---|---|---|---|---|---|---|");
    probe("idle", "/health", &backend, Duration::from_secs(5)).await;
    let prompts = start_prompts(&backend);
    wait_for("prefill has begun", || async {
        (metric(&backend, "vllm:num_requests_running").await > 0.0).then_some(())
    })
    .await;
    let time = Duration::from_secs(seconds);
    let health = probe("in prefill", "/health", &backend, time).await;
    probe("in prefill", "/telemetry", &backend, time / 5).await;
    let left = metric(&backend, "vllm:num_requests_running").await
        + metric(&backend, "vllm:num_requests_waiting").await;
    say(&format!("prompts left at the end: {left} of {PROMPTS}"));
    prompts.iter().for_each(tokio::task::JoinHandle::abort);
    let gate = arguments.iter().any(|argument| argument == "--gate");
    if gate && health.percentile(99.0) > P99_MAX * LENIENCY {
        say("more than 10 times later than promised");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
