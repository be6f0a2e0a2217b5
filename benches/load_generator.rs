//! What `inferno bench` itself costs, against wrk and hey (Debian packages of these names): requests a
//! second and processor time per request that each drives through one thread.
//!
//! ```text
//! cargo bench -p inferno-tests --bench load_generator -- [ROUNDS]
//! ```
//!
//! The server is hyper in this process, on one thread, and answers from static bytes: a whole chat
//! completion, or one of 64 events. Rounds (default 5) are interleaved; medians are printed. A peer that
//! is not installed is left out.

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use inferno_tests::command;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;
use std::{convert::Infallible, net::SocketAddr, process::Command, sync::mpsc};

const CONNECTIONS: &str = "32";
const SECONDS: u32 = 5;
const EVENTS: usize = 64;
const BODY: &str = r#"{"model":"m","max_tokens":64,"messages":[{"role":"user","content":"Hi"}]}"#;
const WHOLE: &str = r#"{"id":"x","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Tokyo"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#;
const EVENT: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":64,\"total_tokens\":73}}\n\ndata: [DONE]\n\n";

/// One measurement: requests a second, and processor time of the client per request.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    cpu_us: f64,
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(Collected::to_bytes);
    let is_stream = body.is_ok_and(|body| body.windows(13).any(|part| part == br#""stream":true"#));
    let answer = if is_stream { EVENT.repeat(EVENTS) + END } else { WHOLE.to_owned() };
    Ok(Response::new(Full::new(answer.into())))
}

fn serve() -> SocketAddr {
    let (sender, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("bound")).expect("somebody waits");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).ok();
                let connection = http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
    });
    address.recv().expect("an address")
}

/// Processor time of the children that have ended, in microseconds.
fn children_us() -> f64 {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let times = [used.user_time(), used.system_time()];
    times.map(|time| (time.tv_sec() * 1_000_000 + time.tv_usec()) as f64).into_iter().sum()
}

/// Runs a client; `requests` finds in its output how many it sent.
fn cost(mut command: Command, requests: impl Fn(&str) -> Option<f64>) -> Option<Cost> {
    let before = children_us();
    let output = command.output().ok()?;
    let count = requests(&String::from_utf8_lossy(&output.stdout))?;
    let cpu_us = (children_us() - before) / count;
    Some(Cost { per_second: count / f64::from(SECONDS), cpu_us })
}

fn inferno(url: &str, arguments: &[&str]) -> Option<Cost> {
    let mut command = command(&["bench", "--url", url, "--model", "m", "--prompt", "Hi"]);
    command.args(["-q", "--json", "-c", CONNECTIONS, "-d"]).arg(SECONDS.to_string());
    command.args(arguments);
    cost(command, |text| {
        serde_json::from_str::<Value>(text).ok()?["requests"]["completed"].as_f64()
    })
}

fn wrk(url: &str) -> Option<Cost> {
    let script = std::env::temp_dir().join(format!("wrk-{}.lua", std::process::id()));
    std::fs::write(&script, format!("wrk.method = 'POST'\nwrk.body = '{BODY}'\n")).ok()?;
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, &format!("-d{SECONDS}s"), "-s"]).arg(&script);
    command.arg(format!("{url}/v1/chat/completions"));
    let cost = cost(command, |text| number_before(text, " requests in"));
    std::fs::remove_file(script).ok();
    cost
}

fn hey(url: &str) -> Option<Cost> {
    let mut command = Command::new("hey");
    command.args(["-cpus", "1", "-c", CONNECTIONS, "-z", &format!("{SECONDS}s")]);
    command.args(["-m", "POST", "-d", BODY]).arg(format!("{url}/v1/chat/completions"));
    cost(command, |text| number_before(text, " responses"))
}

fn number_before(text: &str, what: &str) -> Option<f64> {
    let before = text.split(what).next().filter(|before| before.len() < text.len())?;
    before.split_whitespace().last()?.parse().ok()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn main() {
    // cargo adds flags of its own.
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let url = format!("http://{}", serve());
    let clients: [(&str, &dyn Fn() -> Option<Cost>); 4] = [
        ("inferno bench, whole answers", &|| inferno(&url, &["--no-stream"])),
        ("wrk", &|| wrk(&url)),
        ("hey", &|| hey(&url)),
        ("inferno bench, 64 events each", &|| inferno(&url, &[])),
    ];
    let mut costs = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for ((_, measure), costs) in clients.iter().zip(&mut costs) {
            costs.extend(measure());
        }
    }
    println!("{:32} {:>12} {:>16}", "", "requests/s", "CPU us/request");
    for ((name, _), costs) in clients.iter().zip(costs) {
        if costs.is_empty() {
            println!("{name:32} not installed");
            continue;
        }
        let per_second = median(costs.iter().map(|cost: &Cost| cost.per_second).collect());
        let cpu_us = median(costs.iter().map(|cost| cost.cpu_us).collect());
        println!("{name:32} {per_second:>12.0} {cpu_us:>16.1}");
    }
}
