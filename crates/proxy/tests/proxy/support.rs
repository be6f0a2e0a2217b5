//! The scripted peers.

use inferno_proxy::{Fleet, TrafficServer};
use inferno_shared::{
    MetricsCollector,
    config::ProxyConfig,
    membership::{
        Generation, ModelRef, NodeLoad, NodeState, NodeType, NodeView, ReportedLoad, Snapshot,
        Token,
    },
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

/// Longer than anything here takes: reaching it is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test if `future` does not end.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A membership that the test sets.
#[derive(Default)]
pub struct Members {
    snapshot: Mutex<Arc<Snapshot>>,
    changes: watch::Sender<u64>,
    refused: Mutex<Vec<String>>,
}

impl Fleet for Members {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn report_connect_refused(&self, id: &str, _: Generation) {
        self.refused.lock().unwrap().push(id.to_owned());
    }
}

impl Members {
    pub fn set(&self, nodes: Vec<Arc<NodeView>>) {
        let mut snapshot = self.snapshot.lock().unwrap();
        *snapshot = Arc::new(Snapshot::new(snapshot.version + 1, nodes));
        self.changes.send_replace(snapshot.version);
    }

    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }
}

/// No two nodes of the tests have the same.
static ORDINALS: AtomicU32 = AtomicU32::new(0);

/// A node called `id` at `address` that serves the model `m`.
pub fn node(id: &str, address: SocketAddr, state: NodeState) -> Arc<NodeView> {
    Arc::new(NodeView {
        id: id.into(),
        ordinal: ORDINALS.fetch_add(1, Relaxed),
        key: u64::from(address.port()),
        node_type: NodeType::Backend,
        generation: Generation(1_700_000_000_000),
        address,
        operations: address.into(),
        state,
        models: vec![ModelRef { id: "m".into(), sha256: None }],
        capabilities: Vec::new(),
        fingerprint: None,
        max_concurrency: None,
        token: Some(Token::new("lease-token")),
        reported: ReportedLoad::default(),
        load: Arc::new(NodeLoad::default()),
    })
}

/// A proxy on a free port.
pub struct Proxy {
    pub server: TrafficServer,
    pub members: Arc<Members>,
    pub metrics: Arc<MetricsCollector>,
}

impl Proxy {
    pub fn start(config: ProxyConfig) -> Self {
        let config = ProxyConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let (members, metrics) = (Arc::<Members>::default(), MetricsCollector::new());
        let fleet: Arc<Members> = Arc::clone(&members);
        let server = TrafficServer::start(&config, fleet, &metrics).unwrap();
        Self { server, members, metrics }
    }

    /// In front of one ready backend.
    pub async fn with_backend() -> (Self, Backend) {
        let (proxy, backend) = (Self::start(ProxyConfig::default()), Backend::start("b").await);
        proxy.members.set(vec![Arc::clone(&backend.node)]);
        (proxy, backend)
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.server.address()).await.unwrap())
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: &[u8]) -> Wire {
        let mut client = self.connect().await;
        client.say(request).await;
        client
    }

    /// Waits until no request runs, which is shortly after a client saw the end of its answer.
    pub async fn settled(&self) {
        within("all requests to end", async {
            while self.metrics.requests_in_progress() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub fn metrics_text(&self) -> String {
        self.metrics.prometheus_text(&self.metrics.vitals())
    }
}

/// A backend whose every byte the test says.
pub struct Backend {
    listener: TcpListener,
    pub node: Arc<NodeView>,
}

impl Backend {
    pub async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = node(id, listener.local_addr().unwrap(), NodeState::Ready);
        Self { listener, node }
    }

    /// The next connection from the proxy.
    pub async fn accept(&self) -> Wire {
        Wire::new(within("a connection to the backend", self.listener.accept()).await.unwrap().0)
    }

    /// The next connection, and the request on it.
    pub async fn receive(&self) -> (Wire, Message) {
        let mut wire = self.accept().await;
        let request = wire.message().await;
        (wire, request)
    }

    /// The connection on which the next request came: `last`, or a new one, as another of the proxy's threads has its
    /// own.
    pub async fn next(&self, mut last: Wire) -> Wire {
        tokio::select! {
            _ = last.message() => last,
            (new, _) = self.receive() => new,
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.node.load.in_flight()
    }
}

/// An HTTP/1 message as it came.
#[derive(Debug)]
pub struct Message {
    /// Request or status line.
    pub line: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `error.code` of an error answer.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// One end of a connection, read by hand.
pub struct Wire {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        within("a write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Says one chunk of a chunked body.
    pub async fn say_chunk(&mut self, chunk: &str) {
        self.say(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
    }

    /// Head and body, by content-length or chunked; what carries no length has no body.
    pub async fn message(&mut self) -> Message {
        let mut message = self.head().await;
        if message.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = self.chunk().await {
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.headers.get("content-length") {
            message.body = self.exactly(length.parse().unwrap()).await;
        }
        message
    }

    /// The next message, if the connection goes on.
    pub async fn next_message(&mut self) -> Option<Message> {
        let is_there = !self.input.is_empty() || self.more().await;
        if is_there { Some(self.message().await) } else { None }
    }

    pub async fn head(&mut self) -> Message {
        let head = String::from_utf8(self.through(b"\r\n\r\n").await).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        let headers = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Message { line, headers, body: Vec::new() }
    }

    /// One chunk; `None` after the last.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.through(b"\r\n").await).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let chunk = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n");
        (size > 0).then_some(chunk)
    }

    /// The next chunk as text.
    pub async fn event(&mut self) -> String {
        String::from_utf8(self.chunk().await.expect("another chunk")).unwrap()
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.input.len() < length {
            assert!(self.more().await, "the connection ended within {length} bytes");
        }
        self.input.drain(..length).collect()
    }

    /// As [`Wire::exactly`], from a peer that may end the connection; none, if it did.
    pub async fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.input.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.input.drain(..length).collect())
    }

    async fn through(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end) {
                return self.input.drain(..at + end.len()).collect();
            }
            let so_far = String::from_utf8_lossy(&self.input).into_owned();
            assert!(self.more().await, "the connection ended after {so_far:?}");
        }
    }

    /// Reads once; false at the end of the connection, in whichever way it ended.
    async fn more(&mut self) -> bool {
        let read = within("a read", self.stream.read_buf(&mut self.input)).await;
        read.is_ok_and(|bytes| bytes > 0)
    }

    /// As [`Wire::say`], to a peer that may have gone; whether it had not.
    pub async fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("a write", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// The beginning of an answer, or nothing if the connection ends without one.
    pub async fn rest_or_head(&mut self) -> Vec<u8> {
        while !self.input.windows(4).any(|window| window == b"\r\n\r\n") && self.more().await {}
        std::mem::take(&mut self.input)
    }

    /// Waits for the end of the connection; what came before it.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.input)
    }
}

/// A chat request for the model `m`, with `more` in its object.
pub fn chat(more: &str) -> String {
    post("/v1/chat/completions", &format!(r#"{{"model":"m"{more}}}"#))
}

pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A JSON answer.
pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The head of a chunked event stream.
pub const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// The end of a chunked body.
pub const END: &str = "0\r\n\r\n";
