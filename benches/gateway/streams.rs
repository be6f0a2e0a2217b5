//! Streams: how late an event is that came through a gateway, and what a silent stream occupies.

use crate::{
    probe::Latencies,
    upstream::{HELD, PACED, nanos},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, task::JoinSet};

/// Most streams that are being opened at once.
const OPENING: usize = 64;

/// How long each of `count` events took from being written by the upstream to being read here, over
/// one stream.
pub(crate) fn delays(server: SocketAddr, request: &[u8], count: usize) -> Latencies {
    let request = with_field(request, PACED, count);
    let mut stream = TcpStream::connect(server).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(&request).expect("the server reads");
    let (mut chunk, mut text) = ([0; 16 << 10], String::new());
    let mut delays = Vec::with_capacity(count);
    while delays.len() < count {
        let read = stream.read(&mut chunk).expect("events");
        let now = nanos();
        assert_ne!(read, 0, "{} of {count} events came", delays.len());
        text.push_str(std::str::from_utf8(&chunk[..read]).expect("ASCII"));
        while let Some((event, rest)) = text.split_once("}\n\n") {
            let (_, written) = event.rsplit_once("\"ns\":").expect("a time");
            let written = written.parse().expect("a time");
            delays.push(Duration::from_nanos(now.saturating_sub(written)));
            text = rest.to_owned();
        }
    }
    Latencies::of(delays)
}

/// So many streams that have had one event each and wait for the next.
pub(crate) async fn hold(
    server: SocketAddr,
    request: &[u8],
    count: usize,
) -> Vec<tokio::net::TcpStream> {
    let request = with_field(request, HELD, 1);
    let (mut opening, mut held) = (JoinSet::new(), Vec::with_capacity(count));
    for _ in 0..count {
        if opening.len() == OPENING {
            held.extend(opening.join_next().await.map(|stream| stream.expect("a stream")));
        }
        opening.spawn(open(server, request.clone()));
    }
    held.extend(opening.join_all().await);
    held
}

async fn open(server: SocketAddr, request: Vec<u8>) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(server).await.expect("the server listens");
    stream.write_all(&request).await.expect("the server reads");
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(b"}\n\n\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("an event"), 0, "closed");
    }
    stream
}

/// A request with one more field.
fn with_field(request: &[u8], name: &str, value: usize) -> Vec<u8> {
    let text = std::str::from_utf8(request).expect("ASCII");
    text.replacen("\r\n", &format!("\r\n{name}: {value}\r\n"), 1).into_bytes()
}
