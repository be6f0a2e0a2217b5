//! Clients that take their time: a byte now and then, or none of the answer. Each keeps within the patience for one
//! read or write, so that only a limit on the whole, or on standing still, ends them.

use super::{
    http2::{connect, request},
    support::{Backend, EVENTS, Proxy, Wire, chat, within},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use inferno_shared::config::{ProxyConfig, ProxyTimeouts};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, time::interval};

/// Between two bytes of a slow client: far less than any patience here.
const PACE: Duration = Duration::from_millis(20);

async fn with(timeouts: ProxyTimeouts) -> (Proxy, Backend) {
    let config = ProxyConfig { timeouts, ..ProxyConfig::default() };
    let (proxy, backend) = (Proxy::start(config), Backend::start("b").await);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    (proxy, backend)
}

/// Says `bytes` one by one until something comes back; what, to its end.
async fn drip(wire: &mut Wire, bytes: impl Iterator<Item = u8>) -> String {
    let mut pace = interval(PACE);
    let mut answer = Vec::new();
    for byte in bytes {
        pace.tick().await;
        if !wire.try_say([byte]).await {
            break;
        }
        let came = std::pin::pin!(wire.stream.read_buf(&mut answer));
        match tokio::time::timeout(Duration::ZERO, came).await {
            Ok(_) => break,
            Err(_) => continue,
        }
    }
    answer.extend(wire.rest().await);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_header_that_drips_is_cut_however_steadily() {
    let (proxy, _backend) = with(ProxyTimeouts { idle_ms: 300, ..ProxyTimeouts::default() }).await;
    let endless =
        || b"GET /v1/models HTTP/1.1\r\nx: ".iter().copied().chain(std::iter::repeat(b'y'));
    let mut first = proxy.connect().await;
    assert_eq!(within("the end", drip(&mut first, endless())).await, "");
    // Nor does a request that went well buy time for the next.
    let mut second = proxy.send(b"GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!(second.message().await.status(), 200);
    assert_eq!(within("the end", drip(&mut second, endless())).await, "");
    // Nor does the preface of HTTP/2.
    let mut third = proxy.connect().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied();
    let begun = within("the end", drip(&mut third, preface.take(20).chain([b' '; 100]))).await;
    assert!(begun.is_empty() || begun.starts_with("HTTP/1.1 400"), "{begun}");
}

#[tokio::test]
async fn a_body_that_drips_is_cut_however_steadily() {
    let timeouts = ProxyTimeouts { request_read_ms: 300, ..ProxyTimeouts::default() };
    let (proxy, backend) = with(timeouts).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: p\r\n";
    for framing in ["content-length: 100000\r\n\r\n", "transfer-encoding: chunked\r\n\r\nffff\r\n"]
    {
        let mut client = proxy.send(format!("{head}{framing}").as_bytes()).await;
        let answer = within("an answer", drip(&mut client, std::iter::repeat(b' '))).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{framing}: {answer}");
        assert!(
            answer.contains("request_timeout") && answer.contains("Connection: close"),
            "{answer}"
        );
    }
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0, "no backend was asked");
}

/// A body that comes as it is sent into a channel.
struct Dripping(mpsc::Receiver<Bytes>);

impl Body for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn a_body_that_drips_over_http2_is_cut_too() {
    let timeouts = ProxyTimeouts { request_read_ms: 300, ..ProxyTimeouts::default() };
    let (proxy, _backend) = with(timeouts).await;
    let stream = TcpStream::connect(proxy.server.address()).await.unwrap();
    let (executor, io) = (TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let (pieces, coming) = mpsc::channel(1);
    let request = hyper::Request::post("http://p/v1/completions").body(Dripping(coming)).unwrap();
    let dripping = tokio::spawn(async move {
        let mut pace = interval(PACE);
        while pieces.send(Bytes::from_static(b" ")).await.is_ok() {
            pace.tick().await;
        }
    });
    let answer = within("an answer", client.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 408);
    drop(answer);
    within("the client to be told to stop", dripping).await.unwrap();
}

/// Says events without end until the proxy takes no more.
async fn say_without_end(upstream: &mut Wire) {
    let event = format!("data: {}\n\n", "x".repeat(60_000));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    while upstream.try_say(&chunk).await {}
}

#[tokio::test]
async fn a_client_that_reads_nothing_frees_its_backend() {
    let (proxy, backend) = with(ProxyTimeouts { idle_ms: 200, ..ProxyTimeouts::default() }).await;
    let plain = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for head in [EVENTS, plain] {
        let client = proxy.send(chat("").as_bytes()).await;
        let (mut upstream, _) = backend.receive().await;
        upstream.say(head).await;
        within("the backend to be let go", say_without_end(&mut upstream)).await;
        proxy.settled().await;
        assert_eq!(backend.in_flight(), 0);
        drop(client);
    }
}

#[tokio::test]
async fn a_client_of_http2_that_reads_nothing_frees_its_backend_and_no_neighbour() {
    let (proxy, backend) = with(ProxyTimeouts { idle_ms: 400, ..ProxyTimeouts::default() }).await;
    let mut client = connect(&proxy).await;
    let unread = tokio::spawn(client.send_request(request(r#"{"model":"m"}"#.into())));
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    let unread = within("the head", unread).await.unwrap().unwrap();
    within("the backend to be let go", say_without_end(&mut upstream)).await;
    // The connection lives on.
    let next = tokio::spawn(client.send_request(request(r#"{"model":"m"}"#.into())));
    let (mut upstream, _) = backend.receive().await;
    upstream.say(super::support::ok("{}")).await;
    assert_eq!(within("the next", next).await.unwrap().unwrap().status(), 200);
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
    let rest = within("the end of the one that was not read", unread.into_body().collect()).await;
    assert!(rest.is_err(), "it was broken off");
}

#[tokio::test]
async fn a_header_of_http2_has_limits() {
    let (proxy, _backend) = with(ProxyTimeouts::default()).await;
    for (fields, bytes) in [(1, 100 << 10), (10_000, 1), (200, 10)] {
        let mut client = connect(&proxy).await;
        let mut head = hyper::Request::get("http://p/v1/models");
        for index in 0..fields {
            head = head.header(format!("x-{index}"), "y".repeat(bytes));
        }
        let asked = client.send_request(head.body(http_body_util::Full::default()).unwrap());
        let status = within("an answer", asked).await.map(|answer| answer.status().as_u16());
        assert!(matches!(status, Ok(431) | Err(_)), "{fields} of {bytes} bytes: {status:?}");
        let mut client = connect(&proxy).await;
        let head = hyper::Request::get("http://p/v1/models").body(http_body_util::Full::default());
        let answer = within("an answer", client.send_request(head.unwrap())).await.unwrap();
        assert_eq!(answer.status(), 200, "whoever comes next");
    }
}
