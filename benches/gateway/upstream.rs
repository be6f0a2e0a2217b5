//! What all gateways stand before: one process that answers from ready bytes, and that registers
//! itself with ours as a backend does.
//!
//! It says as little as can be said, so that a gateway's time is most of what there is: a head and
//! a body of some 300 bytes in one write. A request names what else it wants in a field of its
//! header: [`PACED`] or [`HELD`].

use inferno_shared::{
    Config, MetricsCollector,
    membership::{ModelRef, NodeType},
    node::Node,
    registration::lease::{Announcer, Leases, introductions},
    vitals::ServiceState,
};
use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};

use crate::servers::Running;

/// The model that it serves.
pub(crate) const MODEL: &str = "bench";
/// How this program is called to be the upstream; the proxies to register with follow.
pub(crate) const BE_THE_UPSTREAM: &str = "--be-the-upstream";
/// Asks for so many events, [`PACE`] apart, each with the time it was written at.
pub(crate) const PACED: &str = "x-bench-paced";
/// Asks for one event and then silence.
pub(crate) const HELD: &str = "x-bench-held";
/// Between events.
const PACE: Duration = Duration::from_millis(1);

const ANSWER: &str = r#"{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"The capital of Japan is Tokyo."},"finish_reason":"stop"}],"usage":{"prompt_tokens":500,"completion_tokens":8,"total_tokens":508}}"#;
/// Of a stream. nginx is told not to collect it.
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-accel-buffering: no\r\n\
     transfer-encoding: chunked\r\n\r\n";

/// The time, the same in all processes of this machine, in nanoseconds.
pub(crate) fn nanos() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64
}

/// The upstream, in a process of its own, registered with the proxies at these operations addresses.
pub(crate) fn start(proxies: &[SocketAddr]) -> (Running, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    command.arg(BE_THE_UPSTREAM).args(proxies.iter().map(SocketAddr::to_string));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    (Running::new(child), line.trim().parse().expect("an address"))
}

/// Serves until killed. Says its address first.
pub(crate) async fn be(proxies: &[String]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let _leases = register(address, proxies).await;
    println!("{address}");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            tokio::spawn(serve(stream));
        }
    }
}

/// Leases with each of `proxies`, as a backend has them.
async fn register(traffic: SocketAddr, proxies: &[String]) -> Leases {
    let mut config = Config::default();
    config.node.id = Some("bench".into());
    config.operations.addr = ([127, 0, 0, 1], 0).into();
    let node = Node::new(&config).expect("a node");
    let metrics = MetricsCollector::new();
    let operations = node.operations_server(&config, Arc::clone(&metrics), "bench", "0");
    let operations = operations.start().await.expect("a free port");
    metrics.set_state(ServiceState::Ready);
    let announcer = Announcer {
        identity: Arc::clone(&node.identity),
        node_type: NodeType::Backend,
        traffic,
        operations: operations.bind_addr(),
        advertise: None,
        capabilities: node.capabilities(),
        models: Box::new(|| vec![ModelRef { id: MODEL.into(), sha256: None }]),
        fingerprint: Box::new(|| None),
        max_concurrency: None,
        token: None,
        secrets: node.secrets.clone(),
    };
    let proxies = node.proxies(&config, "backend.proxies", proxies).expect("addresses");
    let (_, introduced) = introductions();
    let leases = Leases::start(announcer, proxies, introduced, operations.connected_peers());
    // As long as this process.
    std::mem::forget(operations);
    leases
}

/// Answers one request after another.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut input = Vec::with_capacity(16 << 10);
    loop {
        let length = loop {
            if let Some(length) = crate::http::answer_length(&input).filter(|&l| l <= input.len()) {
                break length;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let wanted = |name: &str| field(&input[..length], name);
        if let Some(count) = wanted(PACED) {
            paced(&mut stream, count).await?;
        } else if wanted(HELD).is_some() {
            stream.write_all(STREAM_HEAD.as_bytes()).await?;
            stream.write_all(&event()).await?;
        } else {
            stream.write_all(whole.as_bytes()).await?;
        }
        input.drain(..length);
    }
}

/// The number in a field of a header.
fn field(request: &[u8], name: &str) -> Option<u32> {
    let head = request.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&request[..head]).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().parse().ok())?
    })
}

async fn paced(stream: &mut TcpStream, count: u32) -> io::Result<()> {
    stream.write_all(STREAM_HEAD.as_bytes()).await?;
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        ticks.tick().await;
        stream.write_all(&event()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// A chunk with one event, of the size that a token's has, and the time.
fn event() -> Vec<u8> {
    let data = format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
         \"model\":\"bench\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word\"}},\"finish_reason\":null}}],\
         \"ns\":{}}}\n\n",
        nanos()
    );
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
