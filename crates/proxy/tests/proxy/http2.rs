//! HTTP/2 without TLS (h2c by prior knowledge), with hyper as the client, and where it matters when
//! the client reads, one by hand.

use super::support::{END, EVENTS, Proxy, Wire, ok, within};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub async fn connect(proxy: &Proxy) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(proxy.server.address()).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    client
}

pub fn request(body: String) -> Request<Full<Bytes>> {
    Request::post("http://proxy/v1/chat/completions").body(Full::new(body.into())).unwrap()
}

/// A client that reads only when it is told to, answers no ping, and has room for any answer.
pub struct ByHand {
    wire: Wire,
    next_stream: u32,
}

impl ByHand {
    pub async fn connect(proxy: &Proxy) -> Self {
        let mut wire = proxy.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let window_max = u32::try_from(i32::MAX).unwrap();
        let initial_window = [&[0, 4][..], &window_max.to_be_bytes()].concat();
        wire.say(frame(SETTINGS, 0, 0, &initial_window)).await;
        wire.say(frame(WINDOW_UPDATE, 0, 0, &(window_max - 0xffff).to_be_bytes())).await;
        Self { wire, next_stream: 1 }
    }

    /// Sends a chat request on a stream of its own.
    pub async fn post(&mut self, body: &str) {
        // HPACK (RFC 7541): indexed method POST and scheme http, then literal path and authority.
        let path = "/v1/chat/completions";
        let head = [&[0x83, 0x86, 0x04, 20], path.as_bytes(), &[0x01, 5], b"proxy"].concat();
        self.wire.say(frame(HEADERS, END_HEADERS, self.next_stream, &head)).await;
        self.wire.say(frame(DATA, END_STREAM, self.next_stream, body.as_bytes())).await;
        self.next_stream += 2;
    }

    /// Reads until `count` answers are complete; how many body bytes they had together.
    pub async fn answers(&mut self, count: usize) -> usize {
        let (mut ended, mut bytes) = (0, 0);
        while ended < count {
            let head = self.wire.exactly(9).await;
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            self.wire.exactly(length).await;
            if head[3] == DATA {
                bytes += length;
                ended += usize::from(head[4] & END_STREAM);
            }
        }
        bytes
    }
}

/// Frame types and flags (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn requests_and_streams_share_one_connection() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = connect(&proxy).await;
    let streaming = client.send_request(request(r#"{"model":"m","stream":true}"#.into()));
    let (mut streaming_upstream, received) = backend.receive().await;
    assert_eq!(received.line, "POST /v1/chat/completions HTTP/1.1");
    streaming_upstream.say(EVENTS).await;
    let mut stream = within("the head", streaming).await.unwrap().into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        streaming_upstream.say_chunk(event).await;
        let frame = within("an event", stream.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    let big = format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(2 << 20));
    let plain = tokio::spawn(client.send_request(request(big.clone())));
    let (mut upstream, received) = backend.receive().await;
    assert_eq!(received.body, big.as_bytes());
    upstream.say(ok(&big)).await;
    let answer = within("the answer", plain).await.unwrap().unwrap();
    assert!(!answer.headers().contains_key("transfer-encoding"));
    assert_eq!(within("the body", answer.into_body().collect()).await.unwrap().to_bytes(), big);
    streaming_upstream.say(END).await;
    assert!(within("the end", stream.collect()).await.unwrap().to_bytes().is_empty());
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_that_is_reset_frees_the_backend() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = connect(&proxy).await;
    let streaming =
        tokio::spawn(client.send_request(request(r#"{"model":"m","stream":true}"#.into())));
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    let stream = within("the head", streaming).await.unwrap().unwrap();
    drop(stream);
    assert_eq!(upstream.rest().await, b"");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn errors_and_heads_have_no_stray_body() {
    let (proxy, _backend) = Proxy::with_backend().await;
    let mut client = connect(&proxy).await;
    let head = Request::head("http://proxy/v1/models").body(Full::default()).unwrap();
    let answer = within("the head", client.send_request(head)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(within("the end", answer.into_body().collect()).await.unwrap().to_bytes().is_empty());
    let answer = within("an error", client.send_request(request("{}".into()))).await.unwrap();
    assert_eq!(answer.status(), 400);
    let body = within("its body", answer.into_body().collect()).await.unwrap().to_bytes();
    assert!(body.starts_with(br#"{"error""#));
}
