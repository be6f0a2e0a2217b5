//! The client of operations servers: checks, registrations, `--healthcheck`, `status`.

use crate::{
    NodeVitals,
    membership::Generation,
    registration::wire::{Peers, Refused, Registered, Registration},
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::de::DeserializeOwned;
use std::{error::Error, io, net::SocketAddr, time::Duration};

/// Largest answer read: the vitals or members of a large installation fit many times.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why an operations server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection failed otherwise.
    #[error("{0}")]
    Connection(String),
    /// It answered with an error.
    #[error("answered {status}: {}", answer.message)]
    Answer {
        /// The status.
        status: StatusCode,
        /// What it said.
        answer: Box<Refused>,
    },
    /// It answered something that is not ours.
    #[error("unexpected answer {status}: {why}")]
    Unexpected {
        /// The status.
        status: StatusCode,
        /// What is wrong with it.
        why: String,
    },
}

/// Asks operations servers; keeps connections between questions.
#[derive(Clone, Debug)]
pub struct OperationsClient {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl OperationsClient {
    /// A client whose every question takes at most `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { client, timeout }
    }

    /// `GET /metrics`.
    pub async fn vitals(&self, server: SocketAddr) -> Result<NodeVitals, ClientError> {
        self.ask(Method::GET, server, "/metrics", None, Bytes::new()).await
    }

    /// `GET /peers`.
    pub async fn peers(
        &self,
        server: SocketAddr,
        secret: Option<&str>,
    ) -> Result<Peers, ClientError> {
        self.ask(Method::GET, server, "/peers", secret, Bytes::new()).await
    }

    /// `POST /registration`.
    pub async fn register(
        &self,
        server: SocketAddr,
        registration: &Registration,
        secret: Option<&str>,
    ) -> Result<Registered, ClientError> {
        let body = serde_json::to_vec(registration).unwrap_or_default();
        self.ask(Method::POST, server, "/registration", secret, body.into()).await
    }

    /// `DELETE /registration/{id}`.
    pub async fn leave(
        &self,
        server: SocketAddr,
        id: &str,
        generation: Generation,
        secret: Option<&str>,
    ) -> Result<(), ClientError> {
        let path = format!("/registration/{id}?generation={generation}");
        self.send(Method::DELETE, server, &path, secret, Bytes::new()).await.map(|_| ())
    }

    /// `GET /health/live`: whether the process there is alive.
    pub async fn live(&self, server: SocketAddr) -> Result<(), ClientError> {
        self.send(Method::GET, server, "/health/live", None, Bytes::new()).await.map(|_| ())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        server: SocketAddr,
        path: &str,
        secret: Option<&str>,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let (status, body) = self.send(method, server, path, secret, body).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unexpected { status, why: error.to_string() })
    }

    /// Sends and reads the whole answer within the timeout; an error status is an error.
    async fn send(
        &self,
        method: Method,
        server: SocketAddr,
        path: &str,
        secret: Option<&str>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{server}{path}"))
            .header(header::ACCEPT, "application/json");
        if let Some(secret) = secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Connection(error.to_string()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| classify(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Connection(error.to_string()))?.to_bytes();
            Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| ClientError::Timeout(self.timeout))??;
        if status.is_success() { Ok((status, body)) } else { Err(refusal(status, &body)) }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(answer) => ClientError::Answer { status, answer: Box::new(answer) },
        Err(_) => {
            let why = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
            ClientError::Unexpected { status, why }
        }
    }
}

/// A refused connection is told apart: it takes a node out at once.
fn classify(error: &hyper_util::client::legacy::Error) -> ClientError {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return ClientError::Refused;
        }
        last = inner.to_string();
        source = inner.source();
    }
    ClientError::Connection(last)
}

/// What `--healthcheck` does: asks the operations server of this configuration, from inside a
/// container without a shell. Unspecified addresses are asked on loopback.
pub async fn healthcheck(operations: SocketAddr) -> Result<(), ClientError> {
    let mut server = operations;
    if server.ip().is_unspecified() {
        server.set_ip(match server {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    OperationsClient::new(Duration::from_secs(2)).live(server).await
}
