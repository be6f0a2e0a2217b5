//! Our proxy as a gateway beside nginx and HAProxy: CPU time a request, latency at half load, how late an
//! event is, and what an idle stream occupies. All stand before the same upstream, in the same run,
//! one after the other in rounds.
//!
//! ```text
//! cargo bench --profile dist -p inferno-proxy --bench gateway -- [ROUNDS] [requests] [latency] [events] [idle] [PROGRAM]
//! ```
//!
//! nginx and HAProxy are Debian's (`nginx-light`, `haproxy`); one that cannot be had is left out. CPU time is the
//! kernel's account of the gateway's threads; load generator and upstream have processes of their
//! own. Medians of ROUNDS (default 5). Of the parts named after it, or all. PROGRAM,
//! with a slash in it, is another build of the proxy, which takes part beside this one: for before and after.
//!
//! It is a benchmark of this package, so that it builds without an inference engine and runs the very
//! program that ships.

#![allow(clippy::print_stdout, missing_docs)]

// Of the end-to-end tests' library, which would bring the engine along.
#[path = "../../tests/support/cpu.rs"]
#[allow(unreachable_pub)]
mod cpu;
#[path = "../../tests/support/debian.rs"]
#[allow(unreachable_pub)]
mod debian;
#[path = "../../tests/support/http.rs"]
#[allow(unreachable_pub, dead_code)]
mod http;
#[path = "../../tests/support/probe.rs"]
#[allow(unreachable_pub, dead_code)]
mod probe;

mod load;
mod servers;
mod streams;
mod upstream;

use nix::sys::resource::{Resource, getrlimit};
use servers::Gateway;
use std::{fs, net::SocketAddr, time::Duration};
use tokio::time::sleep;
use upstream::MODEL;

const ROUNDS: usize = 5;
const SATURATED_FOR: Duration = Duration::from_secs(2);
const AT_RATE_FOR: Duration = Duration::from_secs(3);
const EVENTS: usize = 1_000;
/// Of a request body, bytes.
const BODY_BYTES: usize = 2048;
/// Idle streams, if the limit on open files lets a gateway have two for each.
const STREAMS: u64 = 9_000;
/// Descriptors that a gateway needs for other things.
const OTHER_FILES: u64 = 1_000;

/// What is asked, over so many connections, of whom.
struct Scenario {
    name: &'static str,
    connections: usize,
    ask: fn(&Gateway, usize) -> Vec<u8>,
    /// Of all gateways; else of ours alone, with keys or without.
    of: Whom,
}

#[derive(Clone, Copy, PartialEq)]
enum Whom {
    Everyone,
    Plain,
    Keyed,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "GET, passed on, 32 connections",
        connections: 32,
        ask: get,
        of: Whom::Everyone,
    },
    Scenario {
        name: "GET, passed on, 256 connections",
        connections: 256,
        ask: get,
        of: Whom::Everyone,
    },
    Scenario {
        name: "POST 2 KB, passed on, 32 connections",
        connections: 32,
        ask: post,
        of: Whom::Everyone,
    },
    Scenario {
        name: "POST 2 KB, passed on, 256 connections",
        connections: 256,
        ask: post,
        of: Whom::Everyone,
    },
    Scenario {
        name: "chat 2 KB: JSON, prefix routing; 32 connections",
        connections: 32,
        ask: chat,
        of: Whom::Plain,
    },
    Scenario {
        name: "chat 2 KB: keys, JSON, prefix routing; 32 connections",
        connections: 32,
        ask: chat,
        of: Whom::Keyed,
    },
];

/// A `GET` that no gateway answers by itself.
fn get(_: &Gateway, _: usize) -> Vec<u8> {
    http::get("/v1/files", "")
}

/// A 2 KB `POST` to an endpoint that no gateway knows.
fn post(gateway: &Gateway, nth: usize) -> Vec<u8> {
    post_to("/v1/audio/speech", gateway, nth)
}

/// A 2 KB chat request whose first half all have in common.
fn chat(gateway: &Gateway, nth: usize) -> Vec<u8> {
    post_to("/v1/chat/completions", gateway, nth)
}

fn post_to(path: &str, gateway: &Gateway, nth: usize) -> Vec<u8> {
    let words = |seed: usize, bytes: usize| -> String {
        let words = [
            "route ",
            "the ",
            "model ",
            "of ",
            "this ",
            "request ",
            "\\\"quickly\\\" ",
            "and ",
            "well ",
        ];
        let mut text = String::new();
        let mut at = seed * 7 + 1;
        while text.len() < bytes {
            text.push_str(words[at % words.len()]);
            at = at * 31 + 11;
            at %= 100_003;
        }
        text
    };
    let start = format!(
        "{{\"model\":\"{MODEL}\",\"max_tokens\":64,\"temperature\":0.7,\"messages\":[{{\"role\":\"system\",\
         \"content\":\"{}\"}},{{\"role\":\"user\",\"content\":\"{}",
        words(0, 1000),
        words(nth + 1, 600),
    );
    let end = "\"}]}";
    let room = BODY_BYTES - start.len() - end.len();
    let body = format!("{start}{}{end}", "x".repeat(room));
    let key = gateway.key.as_ref().map(|key| format!("authorization: Bearer {key}\r\n"));
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nuser-agent: bench/1\r\naccept: application/json\r\n{}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}",
        key.unwrap_or_default(),
    )
    .into_bytes()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    if let [first, proxies @ ..] = &arguments[..]
        && first == upstream::BE_THE_UPSTREAM
    {
        return runtime.block_on(upstream::be(proxies));
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let parts = ["requests", "latency", "events", "idle"];
    let named = |part: &&str| arguments.iter().any(|argument| argument == part);
    let wanted = |part: &str| !parts.iter().any(named) || named(&part);
    let other = arguments.iter().find(|argument| argument.contains('/'));
    let world = World::start(other.map(String::as_str));
    if wanted("requests") {
        runtime.block_on(requests(&world, rounds));
    }
    if wanted("latency") {
        latency(&world, &runtime, rounds);
    }
    if wanted("events") {
        events(&world, rounds);
    }
    if wanted("idle") {
        runtime.block_on(idle(&world));
    }
}

/// Everyone who takes part.
struct World {
    plain: Gateway,
    keyed: Gateway,
    peers: Vec<Gateway>,
    upstream: SocketAddr,
    _upstream: servers::Running,
}

impl World {
    fn start(other: Option<&str>) -> Self {
        let plain = servers::inferno("Inferno", servers::OURS, false);
        let keyed = servers::inferno("Inferno, keyed", servers::OURS, true);
        let other = other.map(|program| servers::inferno("Inferno, other build", program, false));
        let ours: Vec<_> = [&plain, &keyed].into_iter().chain(&other).collect();
        let operations: Vec<_> = ours.iter().filter_map(|proxy| proxy.operations).collect();
        let (running, upstream) = upstream::start(&operations);
        for proxy in ours {
            servers::wait("the upstream's registration", || {
                let mut connection = http::Connection::open(proxy.address).ok()?;
                connection
                    .ask(&chat(proxy, 0))
                    .ok()
                    .filter(|answer| http::is_ok(answer))
                    .map(|_| ())
            });
        }
        let mut peers = Vec::from_iter(other);
        for peer in [servers::nginx(upstream), servers::haproxy(upstream)] {
            match peer {
                Ok(peer) => peers.push(peer),
                Err(why) => println!("left out: {why}"),
            }
        }
        println!("{}", machine());
        Self { plain, keyed, peers, upstream, _upstream: running }
    }

    fn gateways(&self, whom: Whom) -> Vec<&Gateway> {
        match whom {
            Whom::Everyone => std::iter::once(&self.plain).chain(&self.peers).collect(),
            Whom::Plain => vec![&self.plain],
            Whom::Keyed => vec![&self.keyed],
        }
    }
}

/// What it runs on.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} threads of {}", model.map_or("an unnamed processor", |(_, name)| name))
}

async fn requests(world: &World, rounds: usize) {
    let mut measured = vec![vec![Vec::new(); 1 + world.peers.len()]; SCENARIOS.len()];
    for _ in 0..rounds {
        for (scenario, measured) in SCENARIOS.iter().zip(&mut measured) {
            for (gateway, measured) in world.gateways(scenario.of).iter().zip(measured) {
                let requests: Vec<_> =
                    (0..scenario.connections).map(|nth| (scenario.ask)(gateway, nth)).collect();
                let (cpu, ticks) = (|| gateway.cpu(), gateway.kernel_ticks());
                let done = load::saturate(gateway.address, cpu, &requests, SATURATED_FOR).await;
                let now = gateway.kernel_ticks();
                let kernel = (now.0 - ticks.0) as f64 / (now.1 - ticks.1).max(1) as f64;
                measured.push((done, kernel));
            }
        }
    }
    println!(
        "| scenario | gateway | requests/s | CPU µs/request | of it in the kernel | × nginx |\n|---|---|---|---|---|---|"
    );
    for (scenario, measured) in SCENARIOS.iter().zip(&measured) {
        let gateways = world.gateways(scenario.of);
        let of = |nth: usize, what: fn(&(load::Throughput, f64)) -> f64| {
            median(measured[nth].iter().map(what).collect())
        };
        let cpu = |nth: usize| of(nth, |(done, _)| done.cpu_us);
        let nginx = gateways.iter().position(|gateway| gateway.name == "nginx").map(cpu);
        for (nth, gateway) in gateways.iter().enumerate() {
            let per_second = of(nth, |(done, _)| done.per_second);
            let kernel = of(nth, |(done, kernel)| done.cpu_us * kernel);
            let ratio = nginx.map_or(String::new(), |nginx| format!("{:.2}", cpu(nth) / nginx));
            println!(
                "| {} | {} | {per_second:.0} | {:.1} | {kernel:.1} | {ratio} |",
                scenario.name,
                gateway.name,
                cpu(nth)
            );
        }
    }
}

/// The time that our proxy, with all it can do, adds at half of what this machine can take.
fn latency(world: &World, runtime: &tokio::runtime::Runtime, rounds: usize) {
    let requests: Vec<_> = (0..32).map(|nth| chat(&world.keyed, nth)).collect();
    let cpu = || world.keyed.cpu();
    let saturated = (0..rounds).map(|_| {
        let saturated = load::saturate(world.keyed.address, cpu, &requests, SATURATED_FOR);
        runtime.block_on(saturated).per_second
    });
    let rate = median(saturated.collect()) / 2.0;
    let mut rows = vec![("direct", world.upstream, Vec::new())];
    rows.push((world.keyed.name, world.keyed.address, Vec::new()));
    rows.extend(world.peers.iter().map(|peer| (peer.name, peer.address, Vec::new())));
    for _ in 0..rounds {
        for (_, address, latencies) in &mut rows {
            latencies.push(load::at_rate(*address, &requests, rate, AT_RATE_FOR));
        }
    }
    println!("chat 2 KB at {rate:.0} requests/s over 32 connections, half of saturation");
    print_added("| | p50 µs | p99 µs | p50 added | p99 added |", &rows);
}

/// How late events are.
fn events(world: &World, rounds: usize) {
    let mut rows = vec![("direct", world.upstream, Vec::new())];
    let gateways = world.gateways(Whom::Everyone);
    rows.extend(gateways.iter().map(|gateway| (gateway.name, gateway.address, Vec::new())));
    for _ in 0..rounds {
        for (_, address, delays) in &mut rows {
            delays.push(streams::delays(*address, &chat(&world.plain, 0), EVENTS));
        }
    }
    println!("{EVENTS} events, one each millisecond, on one stream");
    print_added("| | p50 µs | p99 µs | p50 added | p99 added |", &rows);
}

/// Medians of the rounds; what is added, by round, to the first row's.
fn print_added(head: &str, rows: &[(&str, SocketAddr, Vec<probe::Latencies>)]) {
    println!("{head}\n|---|---|---|---|---|");
    let direct = &rows[0].2;
    for (name, _, latencies) in rows {
        let us = |latencies: &probe::Latencies, percent| {
            latencies.percentile(percent).as_secs_f64() * 1e6
        };
        let [(p50, more50), (p99, more99)] = [50.0, 99.0].map(|percent| {
            let added = latencies
                .iter()
                .zip(direct)
                .map(|(via, direct)| us(via, percent) - us(direct, percent));
            (median(latencies.iter().map(|l| us(l, percent)).collect()), median(added.collect()))
        });
        println!("| {name} | {p50:.0} | {p99:.0} | {more50:.0} | {more99:.0} |");
    }
}

/// What silent streams occupy.
async fn idle(world: &World) {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
    let count = STREAMS.min(files.saturating_sub(OTHER_FILES) / 2) as usize;
    println!("{count} idle streams, 2 KB requests; {files} open files allowed a process");
    println!("| | resident before, MiB | KiB a stream |\n|---|---|---|");
    for gateway in world.gateways(Whom::Everyone) {
        let before = gateway.resident();
        let held = streams::hold(gateway.address, &chat(gateway, 0), count).await;
        let after = gateway.resident();
        let each = (after.saturating_sub(before)) as f64 / count as f64 / 1024.0;
        println!("| {} | {:.1} | {each:.1} |", gateway.name, before as f64 / f64::from(1 << 20));
        drop(held);
        // Whoever comes next finds the machine quiet.
        sleep(Duration::from_secs(1)).await;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
