//! One request and its answer on a client's connection: a thin layer over `pingora_core`'s sessions
//! that knows the traps of owning the loop.
//!
//! - *Pipelining* is on, not for speed: when it is off, a client that sends its next request early
//!   has its running answer cut. The price: once such bytes lie waiting, a FIN behind them is not
//!   seen, and that this client left shows when a write to it fails.
//! - *A FIN* is all that a client that left shows at first, and all that one that half-closed ever
//!   shows. Before the answer begins it counts as leaving: an abandoned request must not hold a
//!   slot. How a running event stream tells them apart is [`crate::relay`]'s concern.
//! - *Keep-alive* settings and pipelined bytes do not survive a session by themselves: they are
//!   taken out before its end and handed to the next one.
//! - *A refused header* leaves Pingora's session reusable, with no body to it: what the client meant for one would be
//!   its next request. Nothing is read any more of a connection on which we do not know where a request ends.
//! - *Chunks* are read by Pingora, which takes any byte for a part of a chunk's extension, a bare LF too. Who stands in
//!   front of us may see a line end there, and another end of the body. So a chunked request is its connection's last.

use crate::{
    client_stream::ClientStream,
    error::{Interruption, RequestError},
    headers::{REQUEST_ID, RETRY_AFTER_MS, SHOULD_RETRY},
    strict::{self, Fault},
    transform::Transform,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use inferno_shared::config::ProxyTimeouts;
use pingora_core::{
    apps::{HttpPersistentSettings, ReusedHttpStream},
    protocols::http::{ServerSession, v1::server::HttpSession as Http1Session},
    server::ShutdownWatch,
};
use pingora_http::{RequestHeader, ResponseHeader};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, copy, sink},
    time::timeout,
};

/// How long an unread request body is read past after its answer. Closing at once would reset the
/// connection and take the answer with it.
const LINGER: Duration = Duration::from_secs(2);

/// The client went away, or its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

impl From<ClientGone> for Interruption {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

/// What a connection brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A request, whose header can be read.
    Request,
    /// A header that is refused. An answer can be given, and ends the connection.
    Faulty(Fault),
}

/// The client's side of one request.
pub(crate) struct Client {
    session: ServerSession,
    stopping: ShutdownWatch,
    idle: Duration,
    transform: Arc<Transform>,
    /// Of the request; `None` until its header was read.
    read: Option<(Method, Version)>,
    /// Where the next request on the connection would begin, we cannot tell.
    is_lost: bool,
    /// Fields of whatever answer there will be.
    granted: HeaderMap,
}

impl Client {
    /// A client that may have a request. Writes to it may stall for `timeouts.idle_ms`. The paths that it asks for and
    /// the header fields that it gets are those that `transform` makes of them.
    pub(crate) fn new(
        mut session: ServerSession,
        stopping: ShutdownWatch,
        timeouts: &ProxyTimeouts,
        transform: &Arc<Transform>,
    ) -> Self {
        let idle = Duration::from_millis(timeouts.idle_ms);
        session.set_write_timeout(Some(idle));
        session.set_total_drain_timeout(Some(LINGER));
        if let ServerSession::H1(http1) = &mut session {
            http1.set_pipelining_enabled(true);
        }
        let transform = Arc::clone(transform);
        let granted = HeaderMap::new();
        Self { session, stopping, idle, transform, read: None, is_lost: false, granted }
    }

    /// Waits for a request's header, and for all of it no longer than an idle connection may live.
    /// `None`: none came, or the proxy stops.
    pub(crate) async fn read_header(&mut self) -> Option<Incoming> {
        self.bound(strict::HEADER_BYTES_MAX);
        let stopping = &mut self.stopping;
        let read = tokio::select! {
            biased;
            read = timeout(self.idle, self.session.read_request()) => read.ok()?,
            _ = stopping.wait_for(|stop| *stop) => return None,
        };
        let is_spent = self.stream().is_some_and(ClientStream::is_spent);
        self.bound(usize::MAX);
        match read {
            Ok(true) => Some(self.judge()),
            Ok(false) => None,
            Err(error) => {
                use pingora_core::ErrorType::{ConnectionClosed, ReadError};
                let many = Some(&httparse::Error::TooManyHeaders);
                match error.etype() {
                    ReadError if is_spent => Some(Incoming::Faulty(Fault::TooLarge)),
                    ConnectionClosed | ReadError => None,
                    _ if error.root_cause().downcast_ref() == many => {
                        Some(Incoming::Faulty(Fault::TooLarge))
                    }
                    _ => Some(Incoming::Faulty(Fault::Malformed)),
                }
            }
        }
    }

    /// What the header that was read is to us.
    fn judge(&mut self) -> Incoming {
        let raw = self.session.as_http1().map(Http1Session::get_headers_raw_bytes);
        let header = self.session.req_header();
        self.read = Some((header.method.clone(), header.version));
        if let Err(fault) = strict::check(header, raw.as_deref()) {
            return Incoming::Faulty(fault);
        }
        let rewritten = self.transform.paths.rewritten(&header.uri);
        if header.headers.contains_key(header::TRANSFER_ENCODING) {
            self.session.set_keepalive(None);
        }
        if let Some(uri) = rewritten {
            self.session.req_header_mut().set_uri(uri);
        }
        Incoming::Request
    }

    fn stream(&self) -> Option<&ClientStream> {
        let stream = self.session.as_http1()?.stream();
        (**stream).as_any().downcast_ref()
    }

    /// How much of the connection may be read before it fails, bytes.
    fn bound(&self, bytes: usize) {
        if let Some(stream) = self.stream() {
            stream.bound(bytes);
        }
    }

    /// Adds `fields` to whatever is answered.
    pub(crate) fn grant(&mut self, fields: HeaderMap) {
        self.granted = fields;
    }

    /// The request's header.
    pub(crate) fn header(&self) -> &RequestHeader {
        self.session.req_header()
    }

    /// It asks for another protocol on this connection.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.session.is_upgrade_req()
    }

    /// The body's length, where the client told it before.
    pub(crate) fn promised_length(&self) -> Option<u64> {
        let value = self.session.get_header(header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// `100 Continue`, if the client waits for it before it sends a body.
    pub(crate) async fn invite_body(&mut self) -> Result<(), ClientGone> {
        let expects = self
            .session
            .get_header(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if expects && self.header().version == Version::HTTP_11 {
            // To Pingora, an answer while the body is not there yet is a reason to close the connection.
            let keepalive = self.session.get_keepalive();
            self.session.write_continue_response().await.map_err(|_| ClientGone)?;
            self.session.set_keepalive(keepalive);
        }
        Ok(())
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn read_body(&mut self) -> Result<Option<Bytes>, Interruption> {
        use pingora_core::ErrorType::{ConnectionClosed, ReadError, ReadTimedout};
        self.session.read_request_body().await.map_err(|error| match error.etype() {
            ReadTimedout => RequestError::ReadTimeout.into(),
            ConnectionClosed | ReadError => Interruption::ClientGone,
            _ => RequestError::MalformedChunk.into(),
        })
    }

    /// Resolves when the client has gone, or has half-closed its connection. Cancelling loses
    /// nothing.
    pub(crate) async fn gone(&mut self) {
        while self.session.read_body_or_idle(true).await.is_ok() {}
    }

    /// [`Self::gone`] resolved for a FIN: the client may still be reading.
    pub(crate) fn may_still_read(&self) -> bool {
        self.session.as_http1().is_some_and(Http1Session::is_half_closed)
    }

    /// Begins the answer. Without a `length` the body is chunked, or whatever the client's version
    /// of HTTP has instead.
    pub(crate) async fn begin(
        &mut self,
        status: StatusCode,
        mut headers: HeaderMap,
        length: Option<u64>,
    ) -> Result<(), ClientGone> {
        // First: what is granted says of caches what the configuration must not take back.
        self.transform.response.apply(&mut headers);
        for (name, value) in &self.granted {
            headers.append(name, value.clone());
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        (parts.status, parts.headers) = (status, headers);
        let mut head = ResponseHeader::from(parts);
        self.frame(&mut head, length).map_err(|_| ClientGone)?;
        if *self.stopping.borrow() {
            self.session.set_keepalive(None);
        }
        self.session.write_response_header(Box::new(head)).await.map_err(|_| ClientGone)
    }

    /// Says how the body is delimited (RFC 9112 §6).
    fn frame(
        &mut self,
        head: &mut ResponseHeader,
        length: Option<u64>,
    ) -> pingora_core::Result<()> {
        if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(());
        }
        match (length, &self.read) {
            (Some(length), _) => head.insert_header(header::CONTENT_LENGTH, length),
            (None, Some((_, Version::HTTP_11))) => {
                head.insert_header(header::TRANSFER_ENCODING, "chunked")
            }
            // HTTP/2 has frames for it. Before HTTP/1.1 only the connection's end tells.
            (None, _) => {
                self.session.set_keepalive(None);
                Ok(())
            }
        }
    }

    /// One piece of the answer's body, on the wire when this returns unless the length was told.
    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<(), ClientGone> {
        self.session.write_response_body(piece, false).await.map_err(|_| ClientGone)
    }

    /// A whole answer in JSON.
    pub(crate) async fn answer_json(
        &mut self,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), ClientGone> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.begin(status, headers, Some(body.len() as u64)).await?;
        if matches!(self.read, Some((Method::HEAD, _))) { Ok(()) } else { self.write(body).await }
    }

    /// An error for an answer.
    pub(crate) async fn refuse(
        &mut self,
        error: &RequestError,
        request_id: &HeaderValue,
    ) -> Result<(), ClientGone> {
        if error.is_about_framing() {
            self.is_lost = true;
            self.session.set_keepalive(None);
        }
        let mut headers = HeaderMap::from_iter([(REQUEST_ID.clone(), request_id.clone())]);
        let retry_after = error.retry_after().map(retry_after);
        let allow = error.allow().map(|allow| (header::ALLOW, HeaderValue::from_static(allow)));
        let challenge = error
            .challenge()
            .map(|challenge| (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        let should_retry =
            error.should_retry().map(|told| (SHOULD_RETRY.clone(), HeaderValue::from_static(told)));
        let all = retry_after.into_iter().flatten().chain(allow).chain(challenge);
        headers.extend(all.chain(should_retry).chain(error.remaining().headers()));
        self.answer_json(error.status(), headers, error.body()).await
    }

    /// Ends the answer, and reads what is left of the request.
    pub(crate) async fn end(&mut self) -> Result<(), ClientGone> {
        self.session.finish_body().await.map_err(|_| ClientGone)?;
        if self.is_lost {
            return Ok(());
        }
        if self.read.is_some() && !self.session.is_body_done() {
            self.session.drain_request_body().await.map_err(|_| ClientGone)?;
        }
        Ok(())
    }

    /// The connection after [`Self::end`], if another request may follow on it.
    pub(crate) async fn reuse(self) -> Option<ReusedHttpStream> {
        if self.is_lost {
            self.close().await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&self.session);
        let reusable = self.session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    /// Ends the connection within an answer. What there is of it is sent: it tells what broke.
    pub(crate) async fn abandon(self) {
        // Dropping a stream of HTTP/2 resets it.
        if let ServerSession::H1(session) = self.session {
            let mut stream = session.into_inner();
            let _ = timeout(LINGER, AsyncWriteExt::flush(&mut stream)).await;
        }
    }

    /// Ends the connection. What the client still sends is thrown away for a while: closing at
    /// once would reset the connection and take the answer with it.
    async fn close(self) {
        let session = match self.session {
            ServerSession::H1(session) => session,
            other => return drop(other.finish().await),
        };
        let mut stream = session.into_inner();
        let end = async {
            AsyncWriteExt::shutdown(&mut stream).await?;
            copy(&mut stream, &mut sink()).await
        };
        let _ = timeout(LINGER, end).await;
    }
}

/// In whole seconds, as RFC 9110 has it, and in milliseconds, which OpenAI's clients read first.
fn retry_after(wait: Duration) -> [(HeaderName, HeaderValue); 2] {
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    [(header::RETRY_AFTER, ms.div_ceil(1_000).into()), (RETRY_AFTER_MS.clone(), ms.into())]
}
