//! As many requests as come back in a time, and requests at a fixed rate.

use crate::{
    http::{answer_length, is_ok},
    probe::{self, Latencies},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
    task::JoinSet,
};

/// What a server did in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throughput {
    pub(crate) per_second: f64,
    /// Of the server's processes, for each request.
    pub(crate) cpu_us: f64,
}

/// Asks for so long, each of `requests` on a connection of its own that waits for its answer. Connecting
/// and a first request on each come before and do not count.
pub(crate) async fn saturate(
    server: SocketAddr,
    cpu: impl Fn() -> Duration,
    requests: &[Vec<u8>],
    time: Duration,
) -> Throughput {
    let everyone = Arc::new(Barrier::new(requests.len() + 1));
    let mut clients = JoinSet::new();
    for request in requests {
        clients.spawn(ask_for(time, server, request.clone(), Arc::clone(&everyone)));
    }
    everyone.wait().await;
    let (began, cpu_before) = (Instant::now(), cpu());
    let answers: u32 = clients.join_all().await.into_iter().sum();
    Throughput {
        per_second: f64::from(answers) / began.elapsed().as_secs_f64(),
        cpu_us: (cpu() - cpu_before).as_secs_f64() * 1e6 / f64::from(answers.max(1)),
    }
}

/// How many answers came on one connection.
async fn ask_for(
    time: Duration,
    server: SocketAddr,
    request: Vec<u8>,
    everyone: Arc<Barrier>,
) -> u32 {
    let mut stream = TcpStream::connect(server).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let mut answer = Vec::with_capacity(16 << 10);
    ask(&mut stream, &request, &mut answer).await;
    everyone.wait().await;
    let end = Instant::now() + time;
    let mut answers = 0;
    while Instant::now() < end {
        ask(&mut stream, &request, &mut answer).await;
        answers += 1;
    }
    answers
}

async fn ask(stream: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) {
    stream.write_all(request).await.expect("the server reads");
    answer.clear();
    while answer_length(answer).is_none_or(|length| answer.len() < length) {
        assert_ne!(stream.read_buf(answer).await.expect("an answer"), 0, "closed");
    }
    assert!(is_ok(answer), "{}", String::from_utf8_lossy(answer));
}

/// How long answers take when `rate` requests a second come whether or not they do, evenly over as
/// many connections as there are requests.
pub(crate) fn at_rate(
    server: SocketAddr,
    requests: &[Vec<u8>],
    rate: f64,
    time: Duration,
) -> Latencies {
    let interval = Duration::from_secs_f64(requests.len() as f64 / rate);
    let count = (time.as_secs_f64() / interval.as_secs_f64()).max(1.0) as usize;
    let phase = interval / u32::try_from(requests.len()).expect("some");
    let ask = |(nth, request): (u32, &Vec<u8>)| {
        let request = request.clone();
        thread::spawn(move || {
            thread::sleep(phase * nth);
            probe::latencies(server, &request, interval, count)
        })
    };
    let clients: Vec<_> = (0..).zip(requests).map(ask).collect();
    let all = clients.into_iter().map(|client| client.join().expect("answers"));
    Latencies::of(all.flat_map(|latencies| latencies.all().to_vec()).collect())
}
