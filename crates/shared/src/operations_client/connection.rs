//! Connections to operations servers, kept between questions.
//!
//! A node is asked the same thing each second, over one connection, by address: a pool for each
//! endpoint is all that takes. hyper-util's client pools by the name in a URI, which would hide
//! which of a name's addresses answers.

use super::ClientError;
use crate::{endpoint::Endpoint, tls::ClientTls};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Kept for one endpoint; more are closed after use.
const KEPT_PER_ENDPOINT: usize = 4;
/// Kept unused for at most this time. A server of ours closes after ten seconds.
const KEPT_FOR: Duration = Duration::from_secs(9);
/// How often connections that were kept too long are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// One open connection.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// Open connections by endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    connections: HashMap<Endpoint, Vec<(Connection, Instant)>>,
    swept: Option<Instant>,
}

impl Pool {
    /// A kept connection that seems to be open.
    pub(super) fn take(&self, endpoint: &Endpoint) -> Option<Connection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = kept.connections.get_mut(endpoint)?;
        while let Some((connection, since)) = connections.pop() {
            if !connection.is_closed() && since.elapsed() < KEPT_FOR {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read.
    pub(super) fn put(&self, endpoint: &Endpoint, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.sweep(now);
        let connections = kept.connections.entry(endpoint.clone()).or_default();
        if connections.len() < KEPT_PER_ENDPOINT {
            connections.push((connection, now));
        }
    }
}

impl Kept {
    /// Closes what was kept too long, so that nodes that are gone leave nothing behind.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.connections.retain(|_, connections| {
            connections
                .retain(|(connection, since)| !connection.is_closed() && now < *since + KEPT_FOR);
            !connections.is_empty()
        });
    }
}

/// Connects, and speaks TLS if the endpoint does.
pub(super) async fn open(endpoint: &Endpoint, tls: &ClientTls) -> Result<Connection, ClientError> {
    let stream =
        TcpStream::connect(endpoint.address).await.map_err(|error| not_connected(&error))?;
    // A connection that cannot be told not to wait still works.
    let _ = stream.set_nodelay(true);
    let Some(host) = &endpoint.tls else { return handshake(stream).await };
    let name = ServerName::try_from(host.clone())
        .map_err(|_| ClientError::Tls(format!("`{host}` is no name a certificate can carry")))?;
    let secured = tls.connector().connect(name, stream).await;
    handshake(secured.map_err(|error| not_secured(&error))?).await
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Connection, ClientError> {
    let (connection, driver) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // It ends when either side closes; what went wrong then is told by the exchange.
    tokio::spawn(async move { driver.await.ok() });
    Ok(connection)
}

/// Sends one request over an open connection and reads the answer's header.
pub(super) async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    connection.ready().await?;
    connection.send_request(request).await
}

fn not_connected(error: &io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ClientError::Refused,
        _ => ClientError::Connection(error.to_string()),
    }
}

fn not_secured(error: &io::Error) -> ClientError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    ClientError::Tls(match inner {
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS: is it http://?".into(),
        Some(error) => error.to_string(),
        None => error.to_string(),
    })
}

/// What went wrong in an exchange, with a hint where a server that speaks TLS would look like that.
pub(super) fn broken(error: &hyper::Error) -> ClientError {
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    if error.is_parse() {
        text.push_str("; if it speaks TLS, write https://");
    }
    ClientError::Connection(text)
}
