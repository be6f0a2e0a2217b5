//! A server on loopback that says what a test tells it to.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// How a streamed answer begins.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A request as the server saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Request line and headers, in lower case.
    pub(crate) head: Vec<String>,
    pub(crate) body: serde_json::Value,
}

/// Answers one request per element of `answers`, each on a connection of its own; gives its address and
/// what it saw.
pub(crate) async fn server(answers: Vec<String>) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let request = read(&mut stream).await;
            record.lock().unwrap().push(request);
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, seen)
}

async fn read(stream: &mut BufReader<tokio::net::TcpStream>) -> Seen {
    let mut seen = Seen::default();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        seen.head.push(line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    seen.body = serde_json::from_slice(&body).unwrap_or_default();
    seen
}

/// An answer in one piece.
pub(crate) fn whole(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// An event of a streamed chat completion.
pub(crate) fn event(content: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n")
}

/// A whole streamed answer of these events, with its usage.
pub(crate) fn streamed(events: &[String]) -> String {
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    format!("{STREAM}{}{usage}\n\ndata: [DONE]\n\n", events.concat())
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
