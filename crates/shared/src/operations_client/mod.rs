//! The client of operations servers: checks, registrations, `--healthcheck`, `status`.

mod connection;

use crate::{
    NodeVitals,
    config::OperationsConfig,
    endpoint::Endpoint,
    membership::Goodbye,
    registration::wire::{Peers, Refused, Registered, Registration},
    tls::{ClientTls, TlsError, own_certificate},
};
use bytes::Bytes;
use connection::{Connection, Pool, broken};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::{net::SocketAddr, time::Duration};

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
    /// Its certificate is not to be trusted, or it speaks no TLS.
    #[error("TLS: {0}")]
    Tls(String),
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
    pool: Pool,
    tls: ClientTls,
    timeout: Duration,
}

/// A question before it is sent.
struct Question<'a> {
    method: Method,
    path: &'a str,
    secret: Option<&'a str>,
    body: Bytes,
}

impl<'a> Question<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, secret: None, body: Bytes::new() }
    }

    fn request(self, endpoint: &Endpoint) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &endpoint.tls {
            Some(host) if host.contains(':') => format!("[{host}]:{}", endpoint.address.port()),
            Some(host) => format!("{host}:{}", endpoint.address.port()),
            None => endpoint.address.to_string(),
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json");
        if let Some(secret) = self.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let unsendable = |error: http::Error| ClientError::Connection(error.to_string());
        request.body(Full::new(self.body)).map_err(unsendable)
    }
}

impl OperationsClient {
    /// A client whose every question takes at most `timeout`, and that trusts whom the system trusts.
    pub fn new(timeout: Duration) -> Self {
        Self { pool: Pool::default(), tls: ClientTls::default(), timeout }
    }

    /// Trusts the certificates of `tls` instead.
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    /// `GET /metrics`.
    pub async fn vitals(&self, server: impl Into<Endpoint>) -> Result<NodeVitals, ClientError> {
        self.ask(&server.into(), Question::get("/metrics")).await
    }

    /// `GET /peers`.
    pub async fn peers(
        &self,
        server: impl Into<Endpoint>,
        secret: Option<&str>,
    ) -> Result<Peers, ClientError> {
        let question = Question { secret, ..Question::get("/peers") };
        self.ask(&server.into(), question).await
    }

    /// `POST /registration`.
    pub async fn register(
        &self,
        server: impl Into<Endpoint>,
        registration: &Registration,
        secret: Option<&str>,
    ) -> Result<Registered, ClientError> {
        let body = serde_json::to_vec(registration).unwrap_or_default().into();
        let question = Question { method: Method::POST, path: "/registration", secret, body };
        self.ask(&server.into(), question).await
    }

    /// `DELETE /registration/{id}`.
    pub async fn leave(
        &self,
        server: impl Into<Endpoint>,
        id: &str,
        goodbye: &Goodbye,
        secret: Option<&str>,
    ) -> Result<(), ClientError> {
        let generation = goodbye.generation.map(|generation| format!("generation={generation}"));
        let nonce = goodbye.nonce.as_ref().map(|nonce| format!("nonce={nonce}"));
        let who: Vec<String> = generation.into_iter().chain(nonce).collect();
        let path = format!("/registration/{id}?{}", who.join("&"));
        let question = Question { method: Method::DELETE, path: &path, secret, body: Bytes::new() };
        self.send(&server.into(), question).await.map(|_| ())
    }

    /// `GET /health/live`: whether the process there is alive.
    pub async fn live(&self, server: impl Into<Endpoint>) -> Result<(), ClientError> {
        self.send(&server.into(), Question::get("/health/live")).await.map(|_| ())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        server: &Endpoint,
        question: Question<'_>,
    ) -> Result<T, ClientError> {
        let (status, body) = self.send(server, question).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unexpected { status, why: error.to_string() })
    }

    /// Sends and reads the whole answer within the timeout; an error status is an error.
    async fn send(
        &self,
        server: &Endpoint,
        question: Question<'_>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let request = question.request(server)?;
        let exchange = async {
            let (answer, connection) = self.exchange(server, request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Connection(error.to_string()))?.to_bytes();
            self.pool.put(server, connection);
            Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| ClientError::Timeout(self.timeout))??;
        if status.is_success() { Ok((status, body)) } else { Err(refusal(status, &body)) }
    }

    /// Over a kept connection if there is one. Its server may have closed it meanwhile, and every
    /// question of ours may be asked twice, so then a new one is tried.
    async fn exchange(
        &self,
        server: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        if let Some(mut kept) = self.pool.take(server)
            && let Ok(answer) = connection::exchange(&mut kept, request.clone()).await
        {
            return Ok((answer, kept));
        }
        let mut fresh = connection::open(server, &self.tls).await?;
        let answer = connection::exchange(&mut fresh, request).await;
        Ok((answer.map_err(|error| broken(&error))?, fresh))
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

/// A client of the operations server that this configuration describes, and where that is: on this
/// machine, so that of a certificate it only matters that it is the node's own. Unspecified
/// addresses are asked on loopback.
///
/// # Errors
/// If its certificate cannot be read.
pub fn own(
    config: &OperationsConfig,
    timeout: Duration,
) -> Result<(OperationsClient, Endpoint), TlsError> {
    let address = reachable(config.addr);
    let client = OperationsClient::new(timeout);
    Ok(match own_certificate(&config.tls)? {
        None => (client, Endpoint::plain(address)),
        Some(certificate) => {
            let endpoint = Endpoint::tls(address, address.ip().to_string());
            (client.with_tls(ClientTls::only(certificate)), endpoint)
        }
    })
}

/// What `--healthcheck` does: asks this configuration's operations server, from inside a container
/// without a shell.
///
/// # Errors
/// If the answer is no, or there is none.
pub async fn healthcheck(config: &OperationsConfig) -> Result<(), HealthcheckError> {
    let (client, endpoint) = own(config, Duration::from_secs(2))?;
    Ok(client.live(endpoint).await?)
}

/// Why a process is not known to be alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It does not answer, or says no.
    #[error(transparent)]
    Unhealthy(#[from] ClientError),
    /// Its certificate cannot be read here.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The address at which this machine reaches what listens on `address`.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests;
