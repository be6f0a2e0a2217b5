//! Asking an engine how it is.
//!
//! Each question has a connection of its own: what a proxy needs is an engine that still accepts some,
//! and engines with a thread for each connection get theirs back at once.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::engine_url::EngineUrl;
use super::load::{self, EngineLoad};
use super::models::{self, Listed};
use crate::api::message;
use crate::nodes::one_line;

/// Largest answer read: the metrics of a large installation fit several times.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The list of models is read again every so many rounds.
const MODELS_EVERY: u32 = 5;
/// Characters of an engine's own words that are repeated.
const WORDS_MAX: usize = 200;

const HEALTH: &str = "/health";
const MODELS: &str = "/v1/models";
const METRICS: &str = "/metrics";

/// Why an engine is not to be sent requests.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("nobody listens there (connection refused)")]
    Refused,
    #[error("no answer within {0} ms")]
    Timeout(u64),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("GET {path}: {why}")]
    Broken { path: &'static str, why: String },
    #[error("GET {path} is answered {status}: {said}")]
    Status { path: &'static str, status: StatusCode, said: String },
    #[error(
        "GET {path} is answered {0}: it asks for an API key, which proxies do not send; start it without one, where \
         only the proxies reach it (keys for clients: `inferno key`)",
        status.as_u16()
    )]
    WantsKey { path: &'static str, status: StatusCode },
    #[error(
        "GET {MODELS} is not answered with OpenAI's list of models ({0}); --model NAME says what it serves"
    )]
    NoList(serde_json::Error),
    #[error("it lists no model: load one, or say with --model NAME what it serves")]
    NoModels,
    #[error(
        "that is a proxy or backend of Inferno: backends register themselves (backend.proxies)"
    )]
    Ours,
}

impl Failure {
    /// It cannot be a moment's weakness.
    pub(crate) fn is_certain(&self) -> bool {
        matches!(self, Self::Refused | Self::Ours)
    }
}

/// What a round of questions found.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Where it answered.
    pub(crate) address: SocketAddr,
    /// Its models, when they were asked for.
    pub(crate) listed: Option<Listed>,
    /// Its own load, if it tells.
    pub(crate) load: Option<EngineLoad>,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Whether an engine has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Unknown,
    There,
    Absent,
}

/// Asks one engine, round after round.
#[derive(Debug)]
pub(crate) struct Prober {
    url: EngineUrl,
    timeout: Duration,
    /// Its models are known without asking.
    is_named: bool,
    health: Page,
    metrics: Page,
    until_models: u32,
}

/// An answer, and who gave it.
struct Answer {
    address: SocketAddr,
    status: StatusCode,
    body: Bytes,
}

impl Prober {
    /// For the engine at `url`; each answer has `timeout`. Its models are not asked for if they are named.
    pub(crate) fn new(url: EngineUrl, timeout: Duration, is_named: bool) -> Self {
        let (health, metrics) = (Page::Unknown, Page::Unknown);
        Self { url, timeout, is_named, health, metrics, until_models: 0 }
    }

    /// Asks everything once.
    ///
    /// # Errors
    /// Why the engine is not to be sent requests, as it seems now.
    pub(crate) async fn round(&mut self) -> Result<Seen, Failure> {
        let seen = self.ask_all().await;
        if seen.is_err() {
            // What comes back may be another engine.
            (self.health, self.metrics) = (Page::Unknown, Page::Unknown);
            self.until_models = 0;
        }
        seen
    }

    async fn ask_all(&mut self) -> Result<Seen, Failure> {
        let mut address = self.healthy().await?;
        let mut listed = None;
        let is_due = self.until_models == 0 && !self.is_named;
        if is_due || address.is_none() {
            let (at, list) = self.list().await?;
            (address, listed) = (address.or(Some(at)), list);
            self.until_models = MODELS_EVERY;
        }
        self.until_models = self.until_models.saturating_sub(1);
        let load = self.load().await;
        // One of the two questions was asked, and answered.
        let address = address.ok_or(Failure::NoModels)?;
        Ok(Seen { address, listed, load })
    }

    /// Where its `/health` says yes; none: it has no such page, as Ollama.
    async fn healthy(&mut self) -> Result<Option<SocketAddr>, Failure> {
        if self.health == Page::Absent {
            return Ok(None);
        }
        let answer = self.get(HEALTH).await?;
        if is_no_page(answer.status) {
            self.health = Page::Absent;
            return Ok(None);
        }
        self.health = Page::There;
        checked(HEALTH, answer).map(|answer| Some(answer.address))
    }

    /// Its models, unless they are named: then it is enough that it answers.
    async fn list(&self) -> Result<(SocketAddr, Option<Listed>), Failure> {
        let answer = self.get(MODELS).await?;
        if self.is_named && is_no_page(answer.status) {
            return Ok((answer.address, None));
        }
        let answer = checked(MODELS, answer)?;
        if self.is_named {
            return Ok((answer.address, None));
        }
        let listed = models::parse(&answer.body).map_err(Failure::NoList)?;
        match &listed {
            Listed { is_ours: true, .. } => Err(Failure::Ours),
            Listed { models, .. } if models.is_empty() => Err(Failure::NoModels),
            _ => Ok((answer.address, Some(listed))),
        }
    }

    /// Its load. That it does not tell says nothing of its health.
    async fn load(&mut self) -> Option<EngineLoad> {
        if self.metrics == Page::Absent {
            return None;
        }
        let answer = self.get(METRICS).await.ok()?;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        let load = load::parse(text).filter(|_| answer.status.is_success());
        self.metrics = if load.is_some() { Page::There } else { Page::Absent };
        load
    }

    async fn get(&self, path: &'static str) -> Result<Answer, Failure> {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let asked = tokio::time::timeout(self.timeout, self.exchange(path)).await;
        asked.map_err(|_| Failure::Timeout(timeout_ms))?
    }

    async fn exchange(&self, path: &'static str) -> Result<Answer, Failure> {
        let stream = TcpStream::connect(self.url.target()).await.map_err(not_connected)?;
        let address = stream.peer_addr().map_err(Failure::Connect)?;
        let broken = |error: &hyper::Error| Failure::Broken { path, why: told(error) };
        let (mut sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // It ends with the exchange; what went wrong is told by that.
        let driver = tokio::spawn(async move { driver.await.ok() });
        let _closed = AbortOnDrop(driver);
        let answer =
            sender.send_request(self.request(path)?).await.map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let unread = |error: BoxError| Failure::Broken { path, why: error.to_string() };
        let body = body.map_err(unread)?.to_bytes();
        Ok(Answer { address, status, body })
    }

    fn request(&self, path: &'static str) -> Result<Request<Empty<Bytes>>, Failure> {
        let request = Request::get(path)
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, concat!("inferno-register/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close");
        let unsendable = |error: http::Error| Failure::Broken { path, why: error.to_string() };
        request.body(Empty::new()).map_err(unsendable)
    }
}

/// A connection whose exchange is over, or was given up, is closed.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How servers say that they do not know a path, or that this build or start of them does not.
fn is_no_page(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

fn checked(path: &'static str, answer: Answer) -> Result<Answer, Failure> {
    match answer.status {
        status if status.is_success() => Ok(answer),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(Failure::WantsKey { path, status })
        }
        status => {
            let said = one_line(&message(status, &answer.body));
            Err(Failure::Status { path, status, said: said.chars().take(WORDS_MAX).collect() })
        }
    }
}

fn not_connected(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::Connect(error),
    }
}

/// What went wrong and why, with a hint where an engine that speaks TLS would look like that.
fn told(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
    }
    if error.is_parse() {
        text.push_str("; if it speaks TLS there, proxies cannot use it");
    }
    text
}

#[cfg(test)]
mod tests;
