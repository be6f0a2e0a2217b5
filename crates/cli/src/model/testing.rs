//! A real HTTPS server on loopback that says exactly what a test tells it to, and can hang up in
//! the middle of it.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use inferno_engine::store::hex;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

use super::{Progress, Trust};

/// A request as the server saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Header lines, lower case.
    headers: Vec<String>,
    /// Body bytes sent in answer.
    pub(crate) sent_bytes: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// What to answer.
pub(crate) struct Answer {
    /// Status line and headers, without the last empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Answers each connection's one request, in a thread, for as long as the test process lives.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) trust: Trust,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `answer` gets each request with its number, from 0.
    pub(crate) fn start(answer: impl Fn(usize, &Seen) -> Answer + Send + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let config =
            ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("https://localhost:{}/model.gguf", listener.local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that refuses our certificate ends the connection: the test sees that.
                serve(stream, &config, &record, &answer).ok();
            }
        });
        Self { url, trust: Trust::Only(vec![certificate.to_vec()]), seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    record: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(usize, &Seen) -> Answer,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config.clone()).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut seen = Seen::default();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim() {
            "" => break,
            line => seen.headers.push(line.to_lowercase()),
        }
    }
    let number = record.lock().unwrap().len();
    let Answer { head, body } = answer(number, &seen);
    seen.sent_bytes = body.len();
    record.lock().unwrap().push(seen);
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"connection: close\r\n\r\n")?;
    stream.write_all(&body)?;
    stream.flush()
}

/// A progress that keeps what it was told.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) notes: Vec<String>,
    pub(crate) stages: Vec<(String, Option<u64>)>,
    pub(crate) furthest: u64,
}

impl Progress for Heard {
    fn begin(&mut self, what: &str, total_bytes: Option<u64>) {
        self.stages.push((what.to_owned(), total_bytes));
    }
    fn advance_to(&mut self, bytes: u64) {
        self.furthest = bytes;
    }
    fn finish(&mut self) {}
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// Bytes that no two places of are alike, so that a part in the wrong place shows.
pub(crate) fn model_bytes(count: usize) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(count)
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
