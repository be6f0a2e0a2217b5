//! As many questions as a server answers, over several connections.

use inferno_tests::{
    cpu,
    http::{answer_length, is_ok},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// What a server did in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throughput {
    pub(crate) per_second: f64,
    /// Of the server's process, for each request.
    pub(crate) cpu: Duration,
}

/// Asks for so long, over so many connections that each wait for their answer.
pub(crate) async fn saturate(
    server: SocketAddr,
    pid: u32,
    request: &[u8],
    connections: usize,
    time: Duration,
) -> Throughput {
    let (began, cpu_before) = (Instant::now(), cpu::of(pid));
    let end = began + time;
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(ask_until(end, server, request.to_vec()));
    }
    let answers: u32 = clients.join_all().await.into_iter().sum();
    let cpu = cpu::of(pid) - cpu_before;
    Throughput {
        per_second: f64::from(answers) / began.elapsed().as_secs_f64(),
        cpu: cpu / answers.max(1),
    }
}

/// How many answers came on one connection.
async fn ask_until(end: Instant, server: SocketAddr, request: Vec<u8>) -> u32 {
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let mut answer = Vec::with_capacity(64 << 10);
    let mut answers = 0;
    while Instant::now() < end {
        stream.write_all(&request).await.expect("the server reads");
        answer.clear();
        while answer_length(&answer).is_none_or(|length| answer.len() < length) {
            assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "closed");
        }
        assert!(is_ok(&answer), "{}", String::from_utf8_lossy(&answer));
        answers += 1;
    }
    answers
}
