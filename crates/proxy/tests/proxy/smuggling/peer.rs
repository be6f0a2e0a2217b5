//! Both sides of whoever is tried: a client that says a case's bytes and looks what comes, and a backend that keeps
//! every request.

use super::{
    super::support::{node, ok, within},
    corpus::HIDDEN_PATH,
};
use inferno_shared::membership::{NodeState, NodeView};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long a peer may take to answer or to close: longer than any timeout that it is given.
const PATIENCE: Duration = Duration::from_secs(8);

/// Asks for what every peer here answers with the same body.
const NEXT: &str = "GET /v1/models/m HTTP/1.1\r\nhost: p\r\n\r\n";

/// A request that a backend got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As it came.
    pub head: String,
    pub body: String,
}

/// What came of a case.
#[derive(Debug)]
pub struct Observed {
    /// Of the first answer.
    pub status: Option<u16>,
    /// The next request was answered as its own.
    pub next: bool,
    /// What came in its place: nothing, if the connection was closed.
    pub stray: Vec<u8>,
    /// What backends got.
    pub seen: Vec<Seen>,
}

impl Observed {
    pub fn is_closed(&self) -> bool {
        !self.next && self.stray.is_empty()
    }

    /// One request reached a backend, not the hidden one, and its body was `body`.
    pub fn is_one(&self, body: &str) -> bool {
        match self.seen.as_slice() {
            [one] => one.body == body && !one.head.contains(HIDDEN_PATH),
            _ => false,
        }
    }

    /// In a few words, for the page.
    pub fn told(&self) -> String {
        let end = if self.is_closed() { ", closed" } else { "" };
        let status = self.status.map_or("no answer".into(), |status| status.to_string());
        match self.seen.as_slice() {
            [] => format!("{status}{end}"),
            [one] => format!("passes {} bytes{end}", one.body.len()),
            several => format!("passes {} requests{end}", several.len()),
        }
    }
}

/// A backend that answers everything, and keeps it.
pub struct Recorder {
    pub node: Arc<NodeView>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = node("b", listener.local_addr().unwrap(), NodeState::Ready);
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, Arc::clone(&kept)));
            }
        });
        Self { node, seen }
    }

    /// What came since this was asked before.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Reads requests as the simplest of servers does: by the length that they state, and none by default.
async fn record(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut input = Vec::new();
    loop {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            match stream.read_buf(&mut input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(&input[..end + 2]).into_owned();
        input.drain(..end + 4);
        let length = length_of(&head);
        while input.len() < length {
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                break;
            }
        }
        let body: Vec<u8> = input.drain(..length.min(input.len())).collect();
        // nginx asks it for the next request's answer; our proxy knows it itself.
        let answer = if head.starts_with("GET /v1/models/m ") {
            ok(r#"{"id":"m"}"#)
        } else {
            let body = String::from_utf8_lossy(&body).into_owned();
            seen.lock().unwrap().push(Seen { head, body });
            ok("{}")
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What the first `content-length` of `head` says.
fn length_of(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// Says `bytes` to whoever listens at `address`, then the next request, and looks what comes of both.
pub async fn say(address: SocketAddr, recorder: &Recorder, bytes: &[u8]) -> Observed {
    let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = bytes.to_vec();
    // Whoever is told too much may answer and close before it has all.
    let saying = tokio::spawn(async move {
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut input = Vec::new();
    let mut answer = take_answer(&mut read, &mut input).await;
    while answer.as_ref().is_some_and(|answer| answer.status < 200) {
        answer = take_answer(&mut read, &mut input).await;
    }
    let mut write = saying.await.unwrap();
    let _ = write.write_all(NEXT.as_bytes()).await;
    let second = take_answer(&mut read, &mut input).await;
    let next = second.as_ref().is_some_and(|second| second.body.starts_with(br#"{"id":"m""#));
    let stray = match second {
        Some(second) if !next => second.body,
        _ => Vec::new(),
    };
    Observed { status: answer.map(|answer| answer.status), next, stray, seen: recorder.take() }
}

struct Answer {
    status: u16,
    /// At least the status, where there is none.
    body: Vec<u8>,
}

/// The next answer of a stream; none, if it ends or nothing comes.
async fn take_answer(
    read: &mut (impl AsyncReadExt + Unpin),
    input: &mut Vec<u8>,
) -> Option<Answer> {
    let answer = async {
        let end = loop {
            if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            read.read_buf(input).await.ok().filter(|&bytes| bytes > 0)?;
        };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        let status = head.split(' ').nth(1)?.get(..3)?.parse().ok()?;
        let length = length_of(&head);
        while input.len() < end + length {
            read.read_buf(input).await.ok().filter(|&bytes| bytes > 0)?;
        }
        let body: Vec<u8> = input.drain(..end + length).skip(end).collect();
        Some(Answer { status, body: if body.is_empty() { head.into_bytes() } else { body } })
    };
    timeout(PATIENCE, answer).await.ok().flatten()
}
