//! How long a person waits: from `inferno up` to the first token, and from a backend's proof to
//! its first answer.
//!
//! ```text
//! cargo bench -p inferno-tests --bench start -- [RUNS]
//! ```
//!
//! No peer is timed here: these are promises to a user (under 2 s, under 200 ms), measured as whole
//! processes with the model present. Medians of RUNS (default 7) runs, and the slowest.

use inferno_tests::{
    MODEL,
    client::Client,
    command,
    fleet::Fleet,
    model_path,
    process::{Process, address},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    io::BufRead,
    process::Stdio,
    time::{Duration, Instant},
};

fn question() -> Value {
    json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "What is the capital of Japan?"}]})
}

/// From starting `inferno up` to the first text of a first answer.
async fn up_to_first_token() -> Duration {
    let began = Instant::now();
    let mut command = command(&[
        "up",
        "--json",
        "--backends",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--operations",
        "127.0.0.1:0",
    ]);
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let mut up = Process::start("up", command);
    let ready = up
        .stdout()
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|event| event["event"] == "ready")
        .expect("it becomes ready");
    let mut events =
        Client::new().stream(address(&ready, "address"), "/v1/chat/completions", &question()).await;
    while let Some(data) = events.next().await {
        let event: Value = serde_json::from_str(&data).expect("JSON");
        if event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
            break;
        }
    }
    let took = began.elapsed();
    drop(events);
    up.signal(Signal::SIGINT);
    up.wait();
    took
}

/// From the moment the proxy believes a new backend to the first byte of an answer from it.
async fn proof_to_first_answer() -> Duration {
    let mut fleet = Fleet::proxy_only(&["log.level=info"]);
    fleet.add_backend(&[]);
    while fleet.state_of("backend-1").await.as_deref() != Some("ready") {
        tokio::task::yield_now().await;
    }
    let proved = Instant::now();
    let mut events = Client::new().stream(fleet.traffic, "/v1/chat/completions", &question()).await;
    events.next().await.expect("an event");
    proved.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    #[expect(clippy::print_stdout, reason = "a benchmark's result")]
    {
        println!("{what}: median {median:.0?}, slowest {slowest:.0?} of {} runs", times.len());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let runs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7);
    model_path();
    let (mut first_token, mut first_answer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        first_token.push(up_to_first_token().await);
        first_answer.push(proof_to_first_answer().await);
    }
    report("from `inferno up` to the first token", first_token);
    report("from a backend's proof to its first answer", first_answer);
}
