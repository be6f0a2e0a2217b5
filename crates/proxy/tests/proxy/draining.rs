//! Stopping: what runs finishes, what idles is closed, what never ends is cut.

use super::{
    http2::ByHand,
    support::{Backend, END, EVENTS, Proxy, chat, ok, within},
};
use http_body_util::BodyExt;
use inferno_shared::config::ProxyConfig;
use std::sync::Arc;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_running_stream_finishes_and_nothing_new_is_accepted() {
    let (proxy, backend) = Proxy::with_backend().await;
    let address = proxy.server.address();
    let mut idle = proxy.send(b"GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    idle.message().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let mut waiting = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, received) = backend.receive().await;
    let (mut other, _) = backend.receive().await;
    if received.json().get("stream").is_none() {
        std::mem::swap(&mut upstream, &mut other);
    }
    upstream.say(EVENTS).await;
    client.head().await;
    let draining = tokio::spawn(proxy.server.drain());
    assert_eq!(idle.rest().await, b"", "an idle connection is closed, so the drain has begun");
    for index in 0..5 {
        upstream.say_chunk(&format!("data: {index}\n\n")).await;
        client.event().await;
    }
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.rest().await, b"");
    assert!(!draining.is_finished(), "a request still waits for its answer");
    other.say(ok("{}")).await;
    assert_eq!(waiting.message().await.headers["connection"], "close");
    assert_eq!(within("the drain", draining).await.unwrap(), 0);
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut() {
    let config = ProxyConfig { drain_timeout_ms: 50, ..ProxyConfig::default() };
    let (proxy, backend) = (Proxy::start(config), Backend::start("b").await);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    let mut waiting = proxy.send(chat("").as_bytes()).await;
    let (mut other, _) = backend.receive().await;
    let metrics = Arc::clone(&proxy.metrics);
    assert_eq!(within("the drain", proxy.server.drain()).await, 2);
    for wire in [&mut client, &mut upstream, &mut waiting, &mut other] {
        assert_eq!(wire.rest().await, b"");
    }
    assert_eq!(backend.in_flight(), 0);
    let vitals = metrics.vitals();
    assert_eq!((vitals.failed_responses, vitals.backoff_requests), (2, 0));
    let text = metrics.prometheus_text(&vitals);
    for status in ["200", "503"] {
        let counted = format!(r#"{{model="m",route="chat_completions",status="{status}"}} 1"#);
        assert!(text.contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn an_http2_stream_finishes_and_its_connection_closes() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = super::http2::connect(&proxy).await;
    let body = r#"{"model":"m","stream":true}"#.to_owned();
    let answered = tokio::spawn(client.send_request(super::http2::request(body)));
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    let stream = within("the head", answered).await.unwrap().unwrap().into_body();
    let draining = tokio::spawn(proxy.server.drain());
    upstream.say_chunk("data: 1\n\n").await;
    upstream.say(END).await;
    let all = within("the stream", stream.collect()).await.unwrap().to_bytes();
    assert_eq!(all, "data: 1\n\n");
    assert_eq!(within("the drain", draining).await.unwrap(), 0);
    // Told to go away, the client finds its connection closed.
    within("the connection's end", async {
        while client.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// More answers than a socket's buffers hold, so that some still lie in the proxy when the last
/// request is done.
const UNREAD: usize = 64;
const UNREAD_BYTES: usize = 256 << 10;

/// A client that has all of [`UNREAD`] to read.
async fn unread(proxy: &Proxy) -> ByHand {
    let backend = Backend::start("b").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut client = ByHand::connect(proxy).await;
    client.post(r#"{"model":"m"}"#).await;
    let (mut upstream, _) = backend.receive().await;
    for _ in 1..UNREAD {
        upstream.say(ok(&"x".repeat(UNREAD_BYTES))).await;
        proxy.settled().await;
        client.post(r#"{"model":"m"}"#).await;
        upstream.message().await;
    }
    upstream.say(ok(&"x".repeat(UNREAD_BYTES))).await;
    proxy.settled().await;
    client
}

#[tokio::test]
async fn what_an_http2_client_has_not_read_yet_is_not_thrown_away() {
    // As in the real process: after the drain, the runtime goes with all that it runs.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = {
        let _inside = runtime.enter();
        Proxy::start(ProxyConfig::default())
    };
    let mut client = unread(&proxy).await;
    let drained = tokio::spawn(async move {
        let cut = proxy.server.drain().await;
        runtime.shutdown_background();
        cut
    });
    assert_eq!(client.answers(UNREAD).await, UNREAD * UNREAD_BYTES);
    assert_eq!(within("the drain", drained).await.unwrap(), 0);
}

#[tokio::test]
async fn an_http2_client_that_never_reads_does_not_outlast_the_drain() {
    let proxy = Proxy::start(ProxyConfig { drain_timeout_ms: 50, ..ProxyConfig::default() });
    let _client = unread(&proxy).await;
    assert_eq!(within("the drain", proxy.server.drain()).await, 1);
}

#[tokio::test]
async fn an_http2_client_that_has_read_all_and_stays_costs_no_time() {
    let proxy = Proxy::start(ProxyConfig { drain_timeout_ms: 60_000, ..ProxyConfig::default() });
    let mut client = unread(&proxy).await;
    client.answers(UNREAD).await;
    assert_eq!(within("the drain", proxy.server.drain()).await, 0);
}
