//! One connection to a backend and the exchanges on it.

use super::{ResponseHead, UpstreamError, head};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method};
use inferno_shared::{membership::NodeView, telemetry::trace_context::TRACEPARENT};
use nix::errno::Errno;
use std::{future::poll_fn, io, net::SocketAddr, pin::pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// What one read makes room for, bytes.
const READ_BYTES: usize = 16 * 1024;
/// Room for an average request head, bytes.
const HEAD_BYTES: usize = 512;
/// A body up to this size travels in one write with its head.
const ONE_WRITE_BYTES_MAX: usize = 16 * 1024;

/// A request as every candidate would get it. What differs by node is added when it is sent.
#[derive(Debug)]
pub(crate) struct OutgoingRequest {
    /// Written once, and left open for the fields that differ.
    head: BytesMut,
    /// Fields that only backends of ours get.
    internal: BytesMut,
    body: Bytes,
    /// It may be sent again after it was sent once, to anyone.
    pub(crate) replayable: bool,
    /// It may go over a kept connection, which may turn out to be dead: asking the same backend again on a new one
    /// changes nothing, because of the endpoint or the method (RFC 9110 §9.2.1).
    pub(crate) may_reuse: bool,
    /// Its answer has no body.
    is_head: bool,
    /// When all of its answer has to be there.
    pub(crate) until: Option<Instant>,
}

impl OutgoingRequest {
    /// A request for `target` (path and query) with its whole body.
    pub(crate) fn new<'a>(
        method: &Method,
        target: &str,
        headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
        body: Bytes,
        replayable: bool,
    ) -> Self {
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head::open_request(&mut head, method, target, headers);
        // Where a body is not meant, even an empty one may be found odd (RFC 9110 §8.6).
        if !body.is_empty() || !matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
            head::field(&mut head, "content-length", body.len().to_string().as_bytes());
        }
        let (may_reuse, is_head) = (replayable || method.is_safe(), *method == Method::HEAD);
        Self { head, internal: BytesMut::new(), body, replayable, may_reuse, is_head, until: None }
    }

    /// The same with one more field for backends of ours, which [`head::field`] can write. A foreign engine is
    /// not told.
    pub(crate) fn with_internal(mut self, name: &str, value: &[u8]) -> Self {
        head::field(&mut self.internal, name, value);
        self
    }
}

/// What of a request's header differs by node and attempt.
#[derive(Debug)]
pub(crate) struct NodeFields {
    /// Shows a backend of ours that its own proxy asks; none: the engine is foreign, and gets no field that
    /// only we understand.
    pub(crate) token: Option<HeaderValue>,
    /// The attempt's place in the trace.
    pub(crate) traceparent: HeaderValue,
}

impl NodeFields {
    /// Those for `node`.
    pub(crate) fn of(node: &NodeView, traceparent: HeaderValue) -> Self {
        let token = node.token.as_ref().filter(|_| !node.is_foreign());
        let token = token.and_then(|token| HeaderValue::from_str(token.expose()).ok());
        Self { token, traceparent }
    }
}

/// A socket to a backend. Dropping it is how a backend learns that nobody waits for its answer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
    /// Read and not yet decoded.
    input: BytesMut,
}

impl Connection {
    /// Connects within `patience`.
    pub(crate) async fn open(
        address: SocketAddr,
        patience: Duration,
    ) -> Result<Self, UpstreamError> {
        let connected = timeout(patience, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| UpstreamError::ConnectTimeout)?.map_err(|error| {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => UpstreamError::ConnectRefused,
                _ => UpstreamError::Connect(error),
            }
        })?;
        // Answers come in small pieces that must not wait for each other (Nagle).
        stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
        Ok(Self { stream, host: address.to_string(), input: BytesMut::new() })
    }

    /// Nothing arrived while it lay idle. What did would be the end of the connection, or bytes
    /// that answer no request.
    pub(crate) fn is_quiet(&self) -> bool {
        let error = self.stream.try_read(&mut [0; 1]).err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// [`Self::is_quiet`], asked of the system: the runtime learns of what arrived only between two turns.
    pub(crate) fn is_surely_quiet(&self) -> bool {
        matches!(nix::unistd::read(&self.stream, &mut [0; 1]), Err(Errno::EAGAIN))
    }

    /// Sends `request` with the node's own `fields`, and reads the answer's head within `patience`.
    pub(crate) async fn exchange(
        mut self,
        request: &OutgoingRequest,
        fields: &NodeFields,
        patience: Duration,
    ) -> Result<Response, UpstreamError> {
        let answered = async {
            let sent = self.send(request, fields).await;
            // A backend may answer before it has read everything, to refuse it, and close.
            let head = self.read_head(request.is_head).await;
            match (sent, head) {
                (Ok(()), head) => head,
                (Err(_), Ok(head)) => Ok(ResponseHead { keep_alive: false, ..head }),
                (Err(error), Err(_)) => Err(UpstreamError::Unanswered(error)),
            }
        };
        let head =
            timeout(patience, answered).await.map_err(|_| UpstreamError::FirstByteTimeout)??;
        Ok(Response { head, connection: self })
    }

    async fn send(&mut self, request: &OutgoingRequest, fields: &NodeFields) -> io::Result<()> {
        let inline = request.body.len().min(ONE_WRITE_BYTES_MAX);
        let mut out = BytesMut::with_capacity(request.head.len() + HEAD_BYTES + inline);
        out.extend_from_slice(&request.head);
        head::field(&mut out, "host", self.host.as_bytes());
        head::field(&mut out, TRACEPARENT.as_str(), fields.traceparent.as_bytes());
        if let Some(token) = &fields.token {
            head::field(&mut out, crate::headers::TOKEN, token.as_bytes());
            out.extend_from_slice(&request.internal);
        }
        out.extend_from_slice(b"\r\n");
        if request.body.len() <= ONE_WRITE_BYTES_MAX {
            out.extend_from_slice(&request.body);
            return self.stream.write_all(&out).await;
        }
        self.stream.write_all(&out).await?;
        self.stream.write_all(&request.body).await
    }

    async fn read_head(&mut self, to_head: bool) -> Result<ResponseHead, UpstreamError> {
        loop {
            if let Some(head) = head::decode_response(&mut self.input, to_head)? {
                return Ok(head);
            }
            let nothing_yet = self.input.is_empty();
            self.read().await.map_err(|error| {
                if nothing_yet {
                    UpstreamError::Unanswered(error)
                } else {
                    UpstreamError::Lost(error)
                }
            })?;
        }
    }

    /// Reads once. Cancelling loses nothing.
    async fn read(&mut self) -> io::Result<()> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// [`Self::read`], without room for what may be long in coming: most of what an idle stream would occupy.
    async fn read_in_time(&mut self) -> io::Result<()> {
        poll_fn(|context| {
            let read = pin!(self.read()).poll(context);
            if read.is_pending() && self.input.is_empty() {
                self.input = BytesMut::new();
            }
            read
        })
        .await
    }
}

/// An answer whose head was read.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its head; the body decoder in it moves on with [`Self::next`].
    pub(crate) head: ResponseHead,
    connection: Connection,
}

impl Response {
    /// The next piece of the body as soon as it is there, by `deadline`; `None` at its end.
    /// Cancelling loses nothing.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            if let Some(piece) = self.head.body.decode(&mut self.connection.input)? {
                return Ok(Some(piece));
            }
            if self.head.body.is_done() {
                return Ok(None);
            }
            let read = timeout_at(deadline, self.connection.read_in_time()).await;
            match read.map_err(|_| UpstreamError::IdleTimeout)? {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.head.body.end_of_input().map_err(UpstreamError::Lost)?;
                }
                Err(error) => return Err(UpstreamError::Lost(error)),
            }
        }
    }

    /// The connection, if the exchange on it is over and another may follow.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        let over =
            self.head.keep_alive && self.head.body.is_done() && self.connection.input.is_empty();
        over.then_some(self.connection)
    }
}
