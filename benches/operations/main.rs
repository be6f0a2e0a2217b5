//! The operations server's speed: requests a second, CPU time for each, and latency far below
//! saturation, for proxy and backend as real processes; beside them plain hyper with static bytes
//! (the least that this library can need) and nginx, in the same run, one after the other in rounds.
//!
//! ```text
//! cargo bench -p inferno-tests --bench operations -- [ROUNDS] [--gate]
//! ```
//!
//! Medians of ROUNDS (default 5). With `--gate` it ends with 1 if a figure of even the best round is
//! ten times worse than what is promised: machines differ and are busy, and a gate is for blunders.

mod load;
mod peers;

use inferno_tests::{
    fleet::Fleet,
    http::{Connection, get},
    probe::{self, Latencies},
};
use std::{net::SocketAddr, process::ExitCode, time::Duration};

const CONNECTIONS: usize = 16;
const SATURATED_FOR: Duration = Duration::from_secs(1);
/// Far below what any of them can do.
const INTERVAL: Duration = Duration::from_millis(1);
const QUESTIONS: usize = 1_000;

/// Promised: more than this each second, ...
const PER_SECOND_MIN: f64 = 10_000.0;
/// ... less than this for 99 of 100 answers on an idle machine, ...
const P99_MAX: Duration = Duration::from_millis(1);
/// ... less than this for the making of a `/health` answer.
const HANDLER_MAX: Duration = Duration::from_micros(10);
/// The gate is so much more lenient.
const LENIENCY: u32 = 10;

/// One thing that is asked, round after round.
struct Row {
    server: &'static str,
    route: &'static str,
    ours: bool,
    address: SocketAddr,
    pid: u32,
    request: Vec<u8>,
    per_second: Vec<f64>,
    cpu: Vec<Duration>,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
}

impl Row {
    fn new(server: &'static str, route: &'static str, address: SocketAddr, pid: u32) -> Self {
        let (path, headers) = match route {
            "/metrics as text" => ("/metrics", "accept: text/plain\r\n"),
            path => (path, ""),
        };
        Self {
            server,
            route,
            ours: server.starts_with("inferno"),
            address,
            pid,
            request: get(path, headers),
            per_second: Vec::new(),
            cpu: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    async fn saturate(&mut self) {
        let throughput =
            load::saturate(self.address, self.pid, &self.request, CONNECTIONS, SATURATED_FOR).await;
        self.per_second.push(throughput.per_second);
        self.cpu.push(throughput.cpu);
    }

    fn probe(&mut self) {
        let latencies = probe::latencies(self.address, &self.request, INTERVAL, QUESTIONS);
        self.p50.push(latencies.percentile(50.0));
        self.p99.push(latencies.percentile(99.0));
    }

    fn per_second(&self) -> f64 {
        let mut all = self.per_second.clone();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn cpu(&self) -> Duration {
        median(&self.cpu)
    }

    fn print(&self, floor: Duration) {
        say(&format!(
            "| {} | {} | {:.0} | {:.1} | {:.2} | {:.0} | {:.0} |",
            self.server,
            self.route,
            self.per_second(),
            micros(self.cpu()),
            self.cpu().as_secs_f64() / floor.as_secs_f64(),
            micros(median(&self.p50)),
            micros(median(&self.p99)),
        ));
    }

    /// What is ten times worse than promised, in every round. That the machine itself is late, as
    /// plain hyper shows, is no fault of ours.
    fn blunder(&self, floor: &Self) -> Option<String> {
        let Self { server, route, .. } = self;
        let per_second = self.per_second.iter().copied().fold(0.0, f64::max);
        let p99 = self.p99_best();
        let slow = per_second * f64::from(LENIENCY) < PER_SECOND_MIN;
        let late = p99.saturating_sub(floor.p99_best()) > P99_MAX * LENIENCY;
        (self.ours && (slow || late))
            .then(|| format!("{server} {route}: {per_second:.0} a second, p99 {p99:.0?}"))
    }

    fn p99_best(&self) -> Duration {
        self.p99.iter().min().copied().unwrap_or_default()
    }
}

fn median(all: &[Duration]) -> Duration {
    Latencies::of(all.to_vec()).percentile(50.0)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The mean time in which a server makes an answer of `/health`, as it says itself.
fn handler(operations: SocketAddr) -> Duration {
    let mut connection = Connection::open(operations).expect("it listens");
    let page = connection.ask(&get("/telemetry", "")).expect("an answer");
    let page = String::from_utf8_lossy(page);
    let value = |part: &str| {
        let name =
            format!("inferno_operations_request_duration_seconds_{part}{{route=\"health\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|value| value.parse::<f64>().ok()).expect("it counts")
    };
    Duration::from_secs_f64(value("sum") / value("count"))
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn say(line: &str) {
    println!("{line}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == peers::SERVE_STATIC) {
        peers::serve_static().await;
        return ExitCode::SUCCESS;
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let blunders = compare(rounds).await;
    if arguments.iter().any(|argument| argument == "--gate") && !blunders.is_empty() {
        say(&format!("more than {LENIENCY} times worse than promised: {}", blunders.join("; ")));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints the table, and gives what is far too slow.
async fn compare(rounds: usize) -> Vec<String> {
    let fleet = Fleet::start(1).await;
    let (hyper, nginx) = (peers::hyper(), peers::nginx());
    let mut rows = vec![Row::new("hyper, static", "/health", hyper.address, hyper.process.pid())];
    match &nginx {
        Ok(nginx) => rows.push(Row::new("nginx", "/health", nginx.address, nginx.process.pid())),
        Err(why) => say(&format!("no nginx: {why}")),
    }
    let backend = &fleet.backends[0];
    for (server, address, pid) in [
        ("inferno proxy", fleet.operations, fleet.proxy.pid()),
        ("inferno backend", backend.operations, backend.process.pid()),
    ] {
        for route in ["/health", "/metrics", "/metrics as text"] {
            rows.push(Row::new(server, route, address, pid));
        }
    }
    for _ in 0..rounds {
        // Apart: after a second of full load the system owes time to others, and takes it.
        rows.iter_mut().for_each(Row::probe);
        for row in &mut rows {
            row.saturate().await;
        }
    }
    say("| server | route | requests/s | CPU µs/request | × hyper | p50 µs | p99 µs |");
    say("|---|---|---|---|---|---|---|");
    let floor = rows[0].cpu();
    rows.iter().for_each(|row| row.print(floor));
    let handlers = [fleet.operations, backend.operations].map(handler);
    say(&format!("making a /health answer: proxy {:?}, backend {:?}", handlers[0], handlers[1]));
    let mut blunders: Vec<String> = rows.iter().filter_map(|row| row.blunder(&rows[0])).collect();
    let slow = handlers.iter().filter(|handler| **handler > HANDLER_MAX * LENIENCY);
    blunders.extend(slow.map(|handler| format!("a /health answer takes {handler:?} to make")));
    blunders
}
