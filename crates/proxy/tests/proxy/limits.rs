//! Everything that can grow has a limit, and everything that can last has a timeout.

use super::support::{Proxy, Wire, chat, node, ok, within};
use inferno_shared::{
    config::{ByteSize, ProxyConfig, ProxyLimits, ProxyTimeouts},
    membership::NodeState,
};
use std::{sync::Arc, time::Duration};
use tokio::net::{TcpSocket, TcpStream};

fn small() -> ProxyConfig {
    ProxyConfig {
        body_bytes_max: ByteSize(1_000),
        body_bytes_total: ByteSize(1_500),
        ..ProxyConfig::default()
    }
}

async fn with(config: ProxyConfig) -> (Proxy, super::support::Backend) {
    let (proxy, backend) = (Proxy::start(config), super::support::Backend::start("b").await);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    (proxy, backend)
}

fn sized(bytes: usize) -> String {
    chat(&format!(r#","x":"{}""#, "y".repeat(bytes)))
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_client_hears_it() {
    let (proxy, _backend) = with(small()).await;
    // Told in advance; and far more than fits into socket buffers, which a reset would cost.
    let mut client = proxy.connect().await;
    let answered = tokio::spawn(async move {
        client.say(sized(12 << 20)).await;
        client.message().await
    });
    let answer = answered.await.unwrap();
    assert_eq!((answer.status(), answer.code().as_str()), (413, "request_too_large"));
    // Not told in advance.
    let head = "POST /v1/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client =
        proxy.send(format!("{head}400\r\n{}\r\n0\r\n\r\n", "z".repeat(1_024)).as_bytes()).await;
    assert_eq!(client.message().await.code(), "request_too_large");
    // Before it is invited.
    let request = sized(2_000).replace("host:", "expect: 100-continue\r\nhost:");
    let head = &request[..request.find("\r\n\r\n").unwrap() + 4];
    let mut client = proxy.send(head.as_bytes()).await;
    assert_eq!(client.message().await.line, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(client.rest().await, b"", "and the body is not waited for");
}

#[tokio::test]
async fn bodies_together_have_a_limit_and_give_it_back() {
    let (proxy, backend) = with(small()).await;
    let mut first = proxy.send(sized(800).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    let mut second = proxy.send(sized(800).as_bytes()).await;
    let answer = second.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "overloaded"));
    assert!(answer.headers.contains_key("retry-after"));
    upstream.say(ok("{}")).await;
    assert_eq!(first.message().await.status(), 200);
    proxy.settled().await;
    first.say(sized(800)).await;
    upstream.message().await;
    upstream.say(ok("{}")).await;
    assert_eq!(first.message().await.status(), 200);
}

fn limited(limits: ProxyLimits) -> ProxyConfig {
    ProxyConfig { limits, ..ProxyConfig::default() }
}

#[tokio::test]
async fn requests_in_progress_have_a_limit_and_give_it_back() {
    let limits = ProxyLimits { requests_max: 1, ..ProxyLimits::default() };
    let (proxy, backend) = with(limited(limits)).await;
    let mut first = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    let mut second = proxy.send(chat("").as_bytes()).await;
    let answer = second.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "overloaded"));
    assert!(answer.headers.contains_key("retry-after"));
    upstream.say(ok("{}")).await;
    assert_eq!(first.message().await.status(), 200);
    proxy.settled().await;
    first.say(chat("")).await;
    upstream.message().await;
    upstream.say(ok("{}")).await;
    assert_eq!(first.message().await.status(), 200);
}

#[tokio::test]
async fn connections_have_a_limit_and_give_it_back() {
    let limits = ProxyLimits { connections_max: 2, ..ProxyLimits::default() };
    let (proxy, _backend) = with(limited(limits)).await;
    let models = b"GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
    let mut open = vec![proxy.send(models).await, proxy.send(models).await];
    for client in &mut open {
        assert_eq!(client.message().await.status(), 200);
    }
    let mut refused = proxy.connect().await;
    assert_eq!(refused.rest().await, b"", "closed without a word");
    assert!(proxy.metrics_text().contains("inferno_proxy_connections_refused_total 1"));
    open.pop();
    // Somebody's place is free as soon as the proxy has seen the end of the connection.
    within("a place", async {
        loop {
            let mut client =
                TcpStream::connect(proxy.server.address()).await.map(Wire::new).unwrap();
            if client.try_say(models).await
                && client.rest_or_head().await.starts_with(b"HTTP/1.1 200")
            {
                break;
            }
        }
    })
    .await;
    open[0].say(models).await;
    assert_eq!(open[0].message().await.status(), 200, "the one that stayed was never touched");
}

/// A backend whose queue of connections is full: the system answers no further one.
#[tokio::test]
async fn a_backend_that_takes_no_connection_times_out_as_unreachable() {
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let deaf = deaf.listen(1).unwrap();
    let address = deaf.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queue.push(connected.unwrap());
    }
    let proxy = Proxy::start(hasty(ProxyTimeouts { connect_ms: 50, ..ProxyTimeouts::default() }));
    proxy.members.set(vec![node("deaf", address, NodeState::Ready)]);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "backend_unreachable"));
    let timeouts = "inferno_proxy_upstream_errors_total{kind=\"connect_timeout\"} 1";
    assert!(proxy.metrics_text().contains(timeouts));
}

fn hasty(timeouts: ProxyTimeouts) -> ProxyConfig {
    ProxyConfig { timeouts, ..ProxyConfig::default() }
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let (proxy, _backend) =
        with(hasty(ProxyTimeouts { request_read_ms: 50, ..ProxyTimeouts::default() })).await;
    let request = chat("");
    let mut client = proxy.send(&request.as_bytes()[..request.len() - 1]).await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (408, "request_timeout"));
}

#[tokio::test]
async fn a_backend_that_never_answers_times_out_and_is_not_asked_elsewhere() {
    let (proxy, backend) =
        with(hasty(ProxyTimeouts { first_byte_ms: 50, ..ProxyTimeouts::default() })).await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (504, "backend_timeout"));
    assert_eq!(upstream.rest().await, b"");
}

#[tokio::test]
async fn a_stream_that_stalls_times_out_in_an_event() {
    let (proxy, backend) =
        with(hasty(ProxyTimeouts { idle_ms: 50, ..ProxyTimeouts::default() })).await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(super::support::EVENTS).await;
    client.head().await;
    assert!(client.event().await.contains(r#""code":"backend_timeout""#));
    assert_eq!(upstream.rest().await, b"");
}

#[tokio::test]
async fn connections_that_say_nothing_or_too_little_are_closed() {
    let (proxy, _backend) =
        with(hasty(ProxyTimeouts { idle_ms: 50, ..ProxyTimeouts::default() })).await;
    for beginning in ["", "P", "PRI * HT", "GET /v1/mod"] {
        let mut client = proxy.send(beginning.as_bytes()).await;
        assert_eq!(client.rest().await, b"", "{beginning:?}");
    }
    let mut client: Wire = proxy.send(b"GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    client.message().await;
    assert_eq!(client.rest().await, b"", "idle between requests");
}
