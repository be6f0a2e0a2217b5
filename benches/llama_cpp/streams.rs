//! Several streams through HTTP: `inferno bench` asks each server the same.

use super::{Setup, row, say};
use inferno_tests::{command, process::Process, process::address};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const TOKENS: &str = "64";
/// How long llama.cpp may take to load a model.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that is ready, and what that took.
struct Server {
    process: Process,
    address: SocketAddr,
    /// The process that has the model.
    engine_pid: u32,
    ready: Duration,
}

/// What a run tells.
struct Run {
    tokens_per_s: f64,
    ttft_ms: f64,
}

pub(super) fn measure(setup: &Setup) {
    let (mut ours_ready, mut theirs_ready) = (Vec::new(), Vec::new());
    for _ in 0..setup.rounds {
        ours_ready.push(stopped(start_inferno(setup)));
        theirs_ready.push(stopped(start_llama(setup)));
    }
    row("start to ready, ms", ours_ready, theirs_ready);
    let (ours, theirs) = (start_inferno(setup), start_llama(setup));
    for streams in setup.streams.iter().copied() {
        let runs = |server: &Server, round| run(server.address, streams, round);
        let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
        for round in 0..setup.rounds {
            our_runs.push(runs(&ours, round));
            their_runs.push(runs(&theirs, round));
        }
        let of = |runs: &[Run], figure: fn(&Run) -> f64| runs.iter().map(figure).collect();
        for (what, figure) in [
            ("tokens/s", (|run| run.tokens_per_s) as fn(&Run) -> f64),
            ("TTFT p50 ms", |run| run.ttft_ms),
        ] {
            let what = format!("{streams} streams, {what}");
            row(&what, of(&our_runs, figure), of(&their_runs, figure));
        }
    }
    row("resident MiB after that", vec![resident_mib(&ours)], vec![resident_mib(&theirs)]);
    stopped(ours);
    stopped(theirs);
}

/// Ends a server; milliseconds that its start took.
fn stopped(mut server: Server) -> f64 {
    server.process.signal(Signal::SIGINT);
    server.process.wait();
    server.ready.as_secs_f64() * 1e3
}

/// `inferno up` with one backend, as a user would: the proxy is part of what is measured.
fn start_inferno(setup: &Setup) -> Server {
    let began = Instant::now();
    let (model, threads) = (setup.model.display().to_string(), setup.threads.to_string());
    let mut command = command(&["up", "--json", "--backends", "1", "--listen", "127.0.0.1:0"]);
    command.args(["--operations", "127.0.0.1:0", "--model", &model, "--threads", &threads]);
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let mut process = Process::start("up", command);
    let events = process.stdout().lines().map_while(Result::ok);
    let mut events = events.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let mut engine_pid = 0;
    let ready = events.find(|event| {
        if event["event"] == "started"
            && event["process"].as_str().is_some_and(|name| name.starts_with("backend"))
        {
            engine_pid = event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        }
        event["event"] == "ready"
    });
    let ready = ready.expect("it becomes ready");
    Server { address: address(&ready, "address"), process, engine_pid, ready: began.elapsed() }
}

fn start_llama(setup: &Setup) -> Server {
    let began = Instant::now();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = port.expect("a free port");
    let mut command = Command::new(setup.peer.join("llama-server"));
    command.arg("-m").arg(&setup.model).args(["-t", &setup.threads.to_string(), "-np", "32"]);
    command.args(["-c", "16384", "--host", "127.0.0.1", "--port", &address.port().to_string()]);
    command.stdout(Stdio::null());
    let process = Process::start("llama-server", command);
    while !answers_health(address) {
        assert!(began.elapsed() < PATIENCE, "llama-server does not become ready");
        std::thread::sleep(Duration::from_millis(2));
    }
    Server { engine_pid: process.pid(), process, address, ready: began.elapsed() }
}

fn answers_health(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        BufReader::new(stream).take(64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

/// `streams` connections that each ask four times, with prompts that no earlier round had.
fn run(address: SocketAddr, streams: usize, round: usize) -> Run {
    let (url, concurrency) = (format!("http://{address}"), streams.to_string());
    let (requests, seed) = ((4 * streams).to_string(), (100 * streams + round).to_string());
    let mut command =
        command(&["bench", "--url", &url, "--endpoint", "completions", "--json", "-q"]);
    command.args(["-c", &concurrency, "-n", &requests, "--seed", &seed, "--warmup", "1"]);
    command.args(["--prompt-tokens", TOKENS, "--max-tokens", TOKENS, "--ignore-eos"]);
    command.args(["--extra-body", r#"{"temperature":0}"#]);
    let output = command.output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    if report["requests"]["failed"] != 0 {
        say(&format!("failed requests: {}", report["errors"]));
    }
    Run {
        tokens_per_s: report["throughput"]["output_tokens_per_s"].as_f64().unwrap_or(f64::NAN),
        ttft_ms: report["latency_ms"]["ttft"]["p50"].as_f64().unwrap_or(f64::NAN),
    }
}

fn resident_mib(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.engine_pid));
    let line = status.as_deref().unwrap_or_default().lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
