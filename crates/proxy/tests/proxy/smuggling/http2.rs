//! The same over HTTP/2, in frames written by hand: no client library sends what these say.

use super::{
    super::support::{Proxy, Wire},
    corpus::BODY,
    peer::Recorder,
};

/// Frame types and flags (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK has them at its simplest: literals without an index (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127);
        [&[text.len() as u8], text.as_bytes()].concat()
    };
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    fields.iter().flat_map(field).collect()
}

const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "p");
const PATH: (&str, &str) = (":path", "/v1/completions");

/// What came of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// An answer of this status; 0: one that is not among the static table's.
    Answered(u16),
    /// The stream was reset.
    Reset,
    /// The whole connection ended.
    Gone,
}

/// A connection after its preface.
async fn connect(proxy: &Proxy) -> Wire {
    let mut wire = proxy.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    wire.say(frame(SETTINGS, 0, 0, &[])).await;
    wire
}

/// Reads until something has come of `stream`.
async fn end_of(wire: &mut Wire, stream: u32) -> End {
    loop {
        let Some(head) = wire.try_exactly(9).await else { return End::Gone };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = wire.try_exactly(length).await else { return End::Gone };
        let of = u32::from_be_bytes(head[5..9].try_into().unwrap());
        match head[3] {
            GOAWAY => return End::Gone,
            RST_STREAM if of == stream => return End::Reset,
            HEADERS if of == stream => return End::Answered(status(&payload)),
            _ => {}
        }
    }
}

/// The indexed statuses of the static table (RFC 7541 appendix A), after any change of the table's size.
fn status(block: &[u8]) -> u16 {
    let first = block.iter().find(|&&byte| byte & 0xe0 != 0x20);
    match first {
        Some(0x88) => 200,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        _ => 0,
    }
}

/// Sends a request of these fields with `body`, then a sound one; what came of both.
async fn say(proxy: &Proxy, fields: &[(&str, &str)], body: &str) -> (End, End) {
    let mut wire = connect(proxy).await;
    wire.try_say(frame(HEADERS, END_HEADERS, 1, &block(fields))).await;
    wire.try_say(frame(DATA, END_STREAM, 1, body.as_bytes())).await;
    let first = end_of(&mut wire, 1).await;
    let sound = [(":method", "GET"), SCHEME, AUTHORITY, (":path", "/v1/models/m")];
    wire.try_say(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&sound))).await;
    (first, end_of(&mut wire, 3).await)
}

#[tokio::test]
async fn what_http2_forbids_reaches_no_backend() {
    let recorder = Recorder::start().await;
    let proxy = super::proxy(&recorder);
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    let with = |more: &[(&'static str, &'static str)]| [usual.as_slice(), more].concat();
    for (what, fields) in [
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te of something else", with(&[("te", "gzip")])),
        ("a length longer than the body", with(&[("content-length", "99")])),
        ("a length shorter than the body", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "13"), ("content-length", "5")])),
        ("two content types", with(&[("content-type", "a/b"), ("content-type", "c/d")])),
        ("CRLF in a value", with(&[("x", "a\r\ntransfer-encoding: chunked")])),
        ("LF in a value", with(&[("x", "a\nb: c")])),
        ("NUL in a value", with(&[("x", "a\0b")])),
        ("CRLF in a name", with(&[("x: y\r\nz", "a")])),
        ("a space in a name", with(&[("x y", "a")])),
        ("a colon in a name", with(&[("x:y", "a")])),
        ("capitals in a name", with(&[("Content-Type", "a/b")])),
        ("a pseudo-field at the end", with(&[("x", "y"), (":path", "/v1/embeddings")])),
        ("two paths", with(&[(":path", "/v1/embeddings")])),
        ("an unknown pseudo-field", with(&[(":x", "y")])),
        ("another host", with(&[("host", "q")])),
        (
            "a space in the path",
            vec![METHOD, SCHEME, AUTHORITY, (":path", "/v1/completions HTTP/1.1")],
        ),
        ("CRLF in the path", vec![METHOD, SCHEME, AUTHORITY, (":path", "/v1/completions\r\nx: y")]),
        ("an empty path", vec![METHOD, SCHEME, AUTHORITY, (":path", "")]),
        ("an absolute path", vec![METHOD, SCHEME, AUTHORITY, (":path", "http://q/v1/completions")]),
        ("no path", vec![METHOD, SCHEME, AUTHORITY]),
        ("no method", vec![SCHEME, AUTHORITY, PATH]),
        ("a method with a space", vec![(":method", "POST /x"), SCHEME, AUTHORITY, PATH]),
        ("an authority with userinfo", vec![METHOD, SCHEME, (":authority", "u@p"), PATH]),
        ("an authority with a space", vec![METHOD, SCHEME, (":authority", "p q"), PATH]),
        ("an internal field", with(&[("x-inferno-token", "x")])),
    ] {
        let (first, next) = say(&proxy, &fields, BODY).await;
        let refused = matches!(first, End::Answered(400) | End::Reset | End::Gone);
        assert!(refused, "{what}: {first:?}");
        // Whatever ends the connection ends it for all; where it goes on, the next stream is its own.
        assert!(matches!(next, End::Answered(200) | End::Gone), "{what}: then {next:?}");
        assert!(first == End::Gone || next == End::Answered(200), "{what}: {first:?}, {next:?}");
        proxy.settled().await;
        let seen = recorder.take();
        assert!(seen.is_empty(), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn what_http2_allows_reaches_a_backend_as_one_request() {
    let recorder = Recorder::start().await;
    let proxy = super::proxy(&recorder);
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    for more in [
        &[][..],
        &[("content-length", "13")],
        &[("te", "trailers")],
        &[("host", "p")],
        &[("cookie", "a=b"), ("cookie", "c=d")],
        &[("x", "transfer-encoding: chunked")],
    ] {
        let (first, next) = say(&proxy, &[usual.as_slice(), more].concat(), BODY).await;
        assert_eq!((first, next), (End::Answered(200), End::Answered(200)), "{more:?}");
        proxy.settled().await;
        let seen = recorder.take();
        let [one] = seen.as_slice() else { panic!("{more:?}: {seen:?}") };
        assert_eq!(one.body, BODY, "{more:?}");
        assert!(one.head.contains("\r\ncontent-length: 13\r\n"), "{}", one.head);
        assert!(!one.head.contains("transfer-encoding: chunked\r\n\r\n"), "{}", one.head);
    }
}
