//! A stand-in for an engine that is not ours: a scripted HTTP server that says so in its answers.
//!
//! It stands where a real engine would be too slow to start, stop and break in each test; the real one
//! has a test beside these.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What it answers completions with.
pub const ANSWER: &str = "I am a stand-in, not an engine.";

/// What it does now.
#[derive(Clone, Debug)]
struct Script {
    models: Vec<String>,
    waiting: u32,
    /// It takes connections and answers nothing.
    hangs: bool,
    /// Streams go on to their end.
    finishes: bool,
}

/// A running stand-in. Dropping it closes its port and every connection.
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    script: watch::Sender<Script>,
    heads: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    /// One that serves `models` at `address`; port 0: any.
    pub async fn start(address: SocketAddr, models: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        let script = Script { models, waiting: 0, hangs: false, finishes: false };
        let (script, scripted) = watch::channel(script);
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let server = tokio::spawn(serve(listener, scripted, Arc::clone(&heads)));
        Self { address, script, heads, server }
    }

    /// Ends it as a crash would: nobody listens there when this returns.
    pub async fn crash(mut self) {
        self.server.abort();
        drop((&mut self.server).await);
    }

    /// It lists these models from now on.
    pub fn serve(&self, models: &[&str]) {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        self.script.send_modify(|script| script.models = models);
    }

    /// It says that so many requests wait.
    pub fn wait(&self, waiting: u32) {
        self.script.send_modify(|script| script.waiting = waiting);
    }

    /// It takes connections and answers nothing, or answers again.
    pub fn hang(&self, hangs: bool) {
        self.script.send_modify(|script| script.hangs = hangs);
    }

    /// Lets streams come to their end.
    pub fn finish(&self) {
        self.script.send_modify(|script| script.finishes = true);
    }

    /// The heads of all requests to `path`, in lower case.
    pub fn heads(&self, path: &str) -> Vec<String> {
        let heads = self.heads.lock().expect("heads");
        heads.iter().filter(|head| head.split(' ').nth(1) == Some(path)).cloned().collect()
    }
}

async fn serve(
    listener: TcpListener,
    script: watch::Receiver<Script>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, script.clone(), Arc::clone(&heads)));
    }
}

/// Requests on one connection, until the other side closes it.
async fn connection(
    mut stream: TcpStream,
    mut script: watch::Receiver<Script>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    while let Some((head, body)) = request(&mut stream).await {
        heads.lock().expect("heads").push(head.clone());
        if script.borrow().hangs {
            return std::future::pending().await;
        }
        let now = script.borrow().clone();
        let answered = match head.split(' ').nth(1).unwrap_or_default() {
            "/health" => answer(&mut stream, "200 OK", "{\"status\":\"ok\"}").await,
            "/v1/models" => answer(&mut stream, "200 OK", &list(&now.models)).await,
            "/metrics" => {
                let text = format!(
                    "vllm:num_requests_running 1\nvllm:num_requests_waiting {}\nvllm:kv_cache_usage_perc 0.5\n",
                    now.waiting
                );
                answer(&mut stream, "200 OK", &text).await
            }
            "/v1/completions" if body.contains("\"stream\":true") => {
                events(&mut stream, &mut script).await
            }
            "/v1/completions" => {
                let text = serde_json::json!({"choices": [{"index": 0, "text": ANSWER}]});
                answer(&mut stream, "200 OK", &text.to_string()).await
            }
            _ => answer(&mut stream, "404 Not Found", "{}").await,
        };
        if answered.is_err() {
            return;
        }
    }
}

fn list(models: &[String]) -> String {
    let model = |id| serde_json::json!({"id": id, "object": "model", "owned_by": "stand-in"});
    let data: Vec<_> = models.iter().map(model).collect();
    serde_json::json!({"object": "list", "data": data}).to_string()
}

/// Head (in lower case) and body of the next request.
async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?.to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((text, String::from_utf8(body).ok()?))
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await
}

/// A first event, and the rest when the script lets streams finish.
async fn events(
    stream: &mut TcpStream,
    script: &mut watch::Receiver<Script>,
) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let event = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(event("data: {\"choices\":[]}\n\n").as_bytes()).await?;
    if script.wait_for(|script| script.finishes).await.is_err() {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    }
    stream.write_all(event("data: [DONE]\n\n").as_bytes()).await?;
    stream.write_all(b"0\r\n\r\n").await
}
