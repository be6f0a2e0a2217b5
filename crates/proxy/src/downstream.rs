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

use crate::{
    error::{Interruption, RequestError},
    headers::{REQUEST_ID, SHOULD_RETRY},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use inferno_shared::config::ProxyTimeouts;
use pingora_core::{
    apps::{HttpPersistentSettings, ReusedHttpStream},
    protocols::http::{ServerSession, v1::server::HttpSession as Http1Session},
    server::ShutdownWatch,
};
use pingora_http::{RequestHeader, ResponseHeader};
use std::time::Duration;
use tokio::time::timeout;

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
    /// Something that is not HTTP. There is no header, but an answer can be given.
    Malformed,
}

/// The client's side of one request.
pub(crate) struct Client {
    session: ServerSession,
    stopping: ShutdownWatch,
    idle: Duration,
    /// Of the request; `None` until its header was read.
    read: Option<(Method, Version)>,
}

impl Client {
    /// A client that may have a request. Writes to it may stall for `timeouts.idle_ms`.
    pub(crate) fn new(
        mut session: ServerSession,
        stopping: ShutdownWatch,
        timeouts: &ProxyTimeouts,
    ) -> Self {
        let idle = Duration::from_millis(timeouts.idle_ms);
        session.set_write_timeout(Some(idle));
        session.set_total_drain_timeout(Some(LINGER));
        if let ServerSession::H1(http1) = &mut session {
            http1.set_pipelining_enabled(true);
        }
        Self { session, stopping, idle, read: None }
    }

    /// Waits for a request's header, and for all of it no longer than an idle connection may live.
    /// `None`: none came, or the proxy stops.
    pub(crate) async fn read_header(&mut self) -> Option<Incoming> {
        let stopping = &mut self.stopping;
        let read = tokio::select! {
            biased;
            read = timeout(self.idle, self.session.read_request()) => read.ok()?,
            _ = stopping.wait_for(|stop| *stop) => return None,
        };
        match read {
            Ok(true) => {
                let header = self.session.req_header();
                self.read = Some((header.method.clone(), header.version));
                Some(Incoming::Request)
            }
            Ok(false) => None,
            Err(error) => {
                use pingora_core::ErrorType::{ConnectionClosed, ReadError};
                let lost = matches!(error.etype(), ConnectionClosed | ReadError);
                (!lost).then_some(Incoming::Malformed)
            }
        }
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
            self.session.write_continue_response().await.map_err(|_| ClientGone)?;
        }
        Ok(())
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn read_body(&mut self) -> Result<Option<Bytes>, Interruption> {
        use pingora_core::ErrorType::{ConnectionClosed, ReadError, ReadTimedout};
        self.session.read_request_body().await.map_err(|error| match error.etype() {
            ReadTimedout => RequestError::ReadTimeout.into(),
            ConnectionClosed | ReadError => Interruption::ClientGone,
            // A broken chunk, say.
            _ => RequestError::MalformedHeader.into(),
        })
    }

    /// Resolves when the client has gone, or has half-closed its connection. Cancelling loses
    /// nothing.
    pub(crate) async fn gone(&mut self) {
        while self.session.read_body_or_idle(true).await.is_ok() {}
    }

    /// Sends what waits for more of its answer, as far as the client takes it now: no more will come.
    pub(crate) async fn let_go(&mut self) {
        // [`crate::corked`] does so when it is read.
        tokio::select! {
            biased;
            () = self.gone() => {}
            () = std::future::ready(()) => {}
        }
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
        headers: HeaderMap,
        length: Option<u64>,
    ) -> Result<(), ClientGone> {
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
        let mut headers = HeaderMap::from_iter([(REQUEST_ID.clone(), request_id.clone())]);
        let retry_after =
            error.retry_after_s().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds)));
        let allow = error.allow().map(|allow| (header::ALLOW, HeaderValue::from_static(allow)));
        let challenge = error
            .challenge()
            .map(|challenge| (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        let should_retry =
            error.should_retry().map(|told| (SHOULD_RETRY.clone(), HeaderValue::from_static(told)));
        let all = retry_after.into_iter().chain(allow).chain(challenge).chain(should_retry);
        headers.extend(all);
        self.answer_json(error.status(), headers, error.body()).await
    }

    /// Ends the answer, and reads what is left of the request.
    pub(crate) async fn end(&mut self) -> Result<(), ClientGone> {
        self.session.finish_body().await.map_err(|_| ClientGone)?;
        if self.read.is_some() && !self.session.is_body_done() {
            self.session.drain_request_body().await.map_err(|_| ClientGone)?;
        }
        Ok(())
    }

    /// The connection after [`Self::end`], if another request may follow on it.
    pub(crate) async fn reuse(self) -> Option<ReusedHttpStream> {
        let settings = HttpPersistentSettings::for_session(&self.session);
        let reusable = self.session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}
