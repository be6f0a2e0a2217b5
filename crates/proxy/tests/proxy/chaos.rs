//! A bounded chaos from a seed: clients that leave, half-close, break off and pipeline in front of backends that answer,
//! refuse, hang, die and lie. Whatever happened, nothing may be counted as in flight afterwards, and every limit must be
//! free again to its last place.

use super::support::{Backend, END, EVENTS, Proxy, Wire, chat, node, ok, within};
use fastrand::Rng;
use inferno_shared::{
    config::{ByteSize, ProxyConfig, ProxyLimits, ProxyRetry, ProxyTimeouts},
    membership::{NodeState, NodeView},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

const REQUESTS: u64 = 400;
/// Requests at once, and as many as the proxy allows.
const AT_ONCE: usize = 16;
/// Longer than the proxy bears with anyone here.
const LONG: Duration = Duration::from_secs(5);

fn config() -> ProxyConfig {
    ProxyConfig {
        timeouts: ProxyTimeouts {
            connect_ms: 200,
            first_byte_ms: 500,
            idle_ms: 200,
            request_read_ms: 200,
            ..ProxyTimeouts::default()
        },
        limits: ProxyLimits { requests_max: AT_ONCE, ..ProxyLimits::default() },
        retry: ProxyRetry { eject_after: 0, ..ProxyRetry::default() },
        body_bytes_total: ByteSize(BODY_BYTES * AT_ONCE as u64),
        ..ProxyConfig::default()
    }
}

/// Every request's body has as many bytes.
const BODY_BYTES: u64 = 1_000;

fn request(stream: bool) -> String {
    let (open, close) = (format!(r#","stream":{stream},"x":""#), r#"""#);
    let filler = BODY_BYTES as usize - r#"{"model":"m"}"#.len() - open.len() - close.len();
    chat(&format!("{open}{}{close}", "y".repeat(filler)))
}

/// A connection of a backend that does something else each time.
async fn misbehave(mut stream: TcpStream, mut dice: Rng) {
    loop {
        let mut input = Vec::new();
        while !input.ends_with(b"}") {
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
        let event = "f\r\ndata: {\"a\":1}\n\n\r\n";
        let (says, goes_on) = match dice.u8(0..12) {
            0..4 => (ok("{}"), true),
            4 => (format!("{EVENTS}{event}{event}{END}"), true),
            5 => (format!("{EVENTS}{event}"), false),
            6 => ("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}".into(), true),
            7 => ("HTTP/1.1 429 Many\r\ncontent-length: 2\r\n\r\n{}".into(), true),
            8 => ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly".into(), false),
            9 => ("SPDY/9 hello\r\n\r\n".into(), false),
            10 => (String::new(), false),
            // Hangs, before the first byte or after it.
            _ => {
                let begun = if dice.bool() { EVENTS } else { "" };
                let _ = stream.write_all(begun.as_bytes()).await;
                let _ = timeout(LONG, stream.read_to_end(&mut input)).await;
                return;
            }
        };
        if stream.write_all(says.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

/// A backend of such connections, until the test ends.
async fn unreliable(id: &str, seed: u64, tasks: &mut JoinSet<()>) -> Arc<NodeView> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = node(id, listener.local_addr().unwrap(), NodeState::Ready);
    let mut dice = Rng::with_seed(seed);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(misbehave(stream, dice.fork()));
        }
    });
    node
}

/// A client that does something else each time.
async fn ask(address: std::net::SocketAddr, mut dice: Rng) {
    let Ok(stream) = TcpStream::connect(address).await else { return };
    let mut wire = Wire::new(stream);
    let request = request(dice.bool());
    match dice.u8(0..8) {
        // Goes at once.
        0 => drop(wire.try_say(&request).await),
        // Breaks off in its body, and goes or stays.
        1 => {
            wire.try_say(&request[..request.len() - 10]).await;
            if dice.bool() {
                wire.rest_or_head().await;
            }
        }
        // Goes when the answer begins.
        2 => {
            wire.try_say(&request).await;
            wire.rest_or_head().await;
        }
        // Has nothing more to say.
        3 => {
            wire.try_say(&request).await;
            let _ = wire.stream.shutdown().await;
            wire.rest().await;
        }
        // Says the next before it has this answer.
        4 => {
            wire.try_say(request.repeat(2)).await;
            wire.rest().await;
        }
        // Speaks no HTTP.
        5 => {
            wire.try_say("GET / HTTP/1.1\r\nhost p\r\n\r\n").await;
            wire.rest().await;
        }
        _ => {
            wire.try_say(request.replace("host:", "connection: close\r\nhost:")).await;
            wire.rest().await;
        }
    }
}

#[tokio::test]
async fn after_a_chaos_nothing_is_in_flight_and_every_limit_is_free() {
    let seed = 20_260_726;
    let mut dice = Rng::with_seed(seed);
    let proxy = Proxy::start(config());
    let mut backends = JoinSet::new();
    let mut nodes = Vec::new();
    for id in ["a", "b", "c"] {
        nodes.push(unreliable(id, dice.u64(..), &mut backends).await);
    }
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    nodes.push(node("absent", absent, NodeState::Ready));
    nodes.push(node("draining", absent, NodeState::Draining));
    proxy.members.set(nodes.clone());
    let mut clients = JoinSet::new();
    for _ in 0..REQUESTS {
        if clients.len() == AT_ONCE {
            within("a client's end", clients.join_next()).await.unwrap().unwrap();
        }
        clients.spawn(ask(proxy.server.address(), dice.fork()));
    }
    while let Some(ended) = within("a client's end", clients.join_next()).await {
        ended.unwrap();
    }
    proxy.settled().await;
    let text = proxy.metrics_text();
    for node in &nodes {
        assert_eq!(node.load.in_flight(), 0, "{} (seed {seed})", node.id);
        let gauge = format!("inferno_proxy_backend_in_flight{{backend=\"{}\"}} ", node.id);
        let lines = text.lines().filter(|line| line.starts_with(&gauge));
        lines.for_each(|line| assert!(line.ends_with(" 0"), "{line} (seed {seed})"));
    }
    assert!(text.contains("status=\"499\"") && text.contains("status=\"504\""), "{text}");
    every_limit_is_free(&proxy).await;
}

/// As many requests as may be are taken at once, with as many bytes, and one more is not.
async fn every_limit_is_free(proxy: &Proxy) {
    let backend = Backend::start("sound").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut clients = Vec::new();
    for _ in 0..AT_ONCE {
        clients.push(proxy.send(request(false).as_bytes()).await);
    }
    within("all to be sent on", async {
        while (backend.in_flight() as usize) < AT_ONCE {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut refused = proxy.send(request(false).as_bytes()).await;
    assert_eq!(refused.message().await.code(), "overloaded");
    drop(clients);
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}
