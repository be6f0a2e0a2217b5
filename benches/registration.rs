//! What a large fleet costs its proxy: how fast a registration is answered when 10,000 nodes are
//! known, and how much CPU the checks of 1,000 nodes take.
//!
//! ```text
//! cargo bench -p inferno-tests --bench registration -- [NODES_KNOWN] [NODES_CHECKED] [SECONDS]
//! ```
//!
//! The nodes live in a process of their own: one server on every loopback address, which answers
//! for whichever node was meant. What is timed is the proxy's operations server with its registry, over
//! HTTP, and the CPU time of its process. No peer is timed: these are promises (under 5 ms, under
//! 5 % of a core).

#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use inferno_shared::{
    Config, MetricsCollector, NodeVitals, OperationsServer,
    identity::NodeIdentity,
    membership::{Goodbye, NodeState},
    operations_client::OperationsClient,
    operations_server::Registrations,
    registration::{lease::introductions, registry::Registry, wire::Registration},
    tls::ClientTls,
    vitals::ServiceState,
};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How this program is called to be the nodes.
const AS_NODES: &str = "--be-the-nodes";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    if arguments.iter().any(|argument| argument == AS_NODES) {
        return runtime.block_on(be_the_nodes());
    }
    let numbers: Vec<u64> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
    let of = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    runtime.block_on(async {
        answering(of(0, 10_000)).await;
        checking(of(1, 1_000), of(2, 20)).await;
    });
}

/// Address of node `index`: one of loopback's sixteen million.
fn place(index: u64) -> Ipv4Addr {
    let [.., high, low] = index.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

fn name(ip: IpAddr) -> String {
    format!("node-{ip}")
}

/// Answers vitals on every address of this machine, as the node that lives at the one asked.
async fn be_the_nodes() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("bound").port());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let ip = stream.local_addr().expect("connected").ip();
        let vitals = NodeVitals {
            node_id: name(ip),
            ready: true,
            state: ServiceState::Ready,
            service: "inferno-backend".into(),
            version: "0.1.0".into(),
            ..NodeVitals::default()
        };
        let body = Bytes::from(serde_json::to_vec(&vitals).expect("JSON"));
        let service = hyper::service::service_fn(move |_| {
            let body = body.clone();
            async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { served.await.ok() });
    }
}

/// The nodes' process, ended when dropped, and the port they all answer on.
struct Nodes(Child, u16);

impl Nodes {
    fn start() -> Self {
        let program = std::env::current_exe().expect("a program");
        let mut child =
            Command::new(program).arg(AS_NODES).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("its port");
        Self(child, line.trim().parse().expect("a port"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A proxy's operations server, whose leases last longer than the benchmark.
async fn proxy() -> (OperationsServer, Arc<Registry>) {
    let mut config = Config::default();
    config.registration.lease_ms = 3_600_000;
    let identity = Arc::new(NodeIdentity::new(&config));
    let server = OperationsServer::new(MetricsCollector::new(), ([127, 0, 0, 1], 0).into());
    let connected = server.connected_peers();
    let (introductions, _) = introductions();
    let registry =
        Registry::new(&config, &identity, ClientTls::default(), introductions, connected);
    let server = server
        .with_identity(identity)
        .with_registrations(Registrations::Taken(Arc::clone(&registry)))
        .with_task(Arc::clone(&registry).run());
    (server.start().await.expect("starts"), registry)
}

fn registration(index: u64, port: u16) -> Registration {
    Registration {
        id: name(place(index).into()),
        address: SocketAddr::new(place(index).into(), 8080).to_string(),
        metrics_port: port,
        ..Registration::default()
    }
}

/// Registers `indices` one after another; how long each answer took.
async fn register(
    server: SocketAddr,
    port: u16,
    indices: impl Iterator<Item = u64>,
) -> Vec<Duration> {
    let client = OperationsClient::new(Duration::from_secs(10));
    let mut took = Vec::new();
    for index in indices {
        let registration = registration(index, port);
        let began = Instant::now();
        client.register(server, &registration, None).await.expect("taken");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

async fn wait_until_ready(registry: &Registry, count: u64) {
    let ready = || {
        let snapshot = registry.snapshot();
        snapshot.nodes.iter().filter(|node| node.state == NodeState::Ready).count() as u64
    };
    while ready() < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answering(known: u64) {
    let nodes = Nodes::start();
    let (server, registry) = proxy().await;
    let began = Instant::now();
    let first = register(server.bind_addr(), nodes.1, 0..known).await;
    println!(
        "{known} nodes registered one after another in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    print("  each of them", &first);
    wait_until_ready(&registry, known).await;
    println!("  all ready after {:.1} s", began.elapsed().as_secs_f64());
    let last = known - 1;
    let renewals = (0..2_000).map(|n| n * 7_919 % last);
    print("a renewal", &register(server.bind_addr(), nodes.1, renewals).await);
    let leave = OperationsClient::new(Duration::from_secs(10));
    let mut anew = Vec::new();
    for _ in 0..200 {
        let id = name(place(last).into());
        let left = leave.leave(server.bind_addr(), &id, &Goodbye::default(), None).await;
        left.ok();
        anew.extend(register(server.bind_addr(), nodes.1, last..known).await);
    }
    anew.sort_unstable();
    print("a node that registers anew", &anew);
    server.shutdown();
}

fn print(what: &str, sorted: &[Duration]) {
    let at = |share: f64| {
        let index = ((sorted.len() - 1) as f64 * share) as usize;
        sorted[index].as_secs_f64() * 1e3
    };
    println!("{what}: median {:.2} ms, p99 {:.2} ms, slowest {:.2} ms", at(0.5), at(0.99), at(1.0));
}

fn cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("known");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

async fn checking(count: u64, seconds: u64) {
    let nodes = Nodes::start();
    let (server, registry) = proxy().await;
    register(server.bind_addr(), nodes.1, 0..count).await;
    wait_until_ready(&registry, count).await;
    let (cpu, began) = (cpu_s(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (cpu, elapsed) = (cpu_s() - cpu, began.elapsed().as_secs_f64());
    let snapshot = registry.snapshot();
    let ready = snapshot.nodes.iter().filter(|node| node.state == NodeState::Ready).count();
    println!(
        "{count} nodes checked each second for {elapsed:.0} s: {:.2} % of a core, {:.0} µs a check, {ready} ready",
        100.0 * cpu / elapsed,
        1e6 * cpu / (elapsed * count as f64)
    );
    server.shutdown();
}
