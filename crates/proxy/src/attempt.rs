//! A backend being asked: its place in the trace, and the span that a collector gets of it.

use http::{HeaderValue, StatusCode};
use inferno_shared::{
    membership::NodeView,
    telemetry::spans::{Hop, Side},
};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// The attempts at one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The request they are for.
    hop: Hop,
    method: &'static str,
    /// How many there were.
    pub(crate) count: u32,
    /// When the first began.
    pub(crate) first: Option<Instant>,
}

impl Attempts {
    /// None yet at the request of `hop`.
    pub(crate) fn new(hop: Hop, method: &'static str) -> Self {
        Self { hop, method, count: 0, first: None }
    }

    /// `node` is asked now.
    pub(crate) fn begin(&mut self, node: &Arc<NodeView>) -> Attempt {
        self.count += 1;
        let started = Instant::now();
        self.first.get_or_insert(started);
        Attempt {
            hop: self.hop.child(),
            node: Arc::clone(node),
            method: self.method,
            resends: self.count - 1,
            started,
            status: None,
            error: Some(Cow::Borrowed("cancelled")),
        }
    }
}

/// One attempt, until it is dropped. Until then it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Attempt {
    hop: Hop,
    node: Arc<NodeView>,
    method: &'static str,
    resends: u32,
    started: Instant,
    status: Option<StatusCode>,
    error: Option<Cow<'static, str>>,
}

impl Attempt {
    /// Who is asked.
    pub(crate) fn node(&self) -> &Arc<NodeView> {
        &self.node
    }

    /// What the backend is told of its place in the trace.
    pub(crate) fn traceparent(&self) -> HeaderValue {
        self.hop.traceparent().to_header()
    }

    /// An answer begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// It came to nothing, or was lost.
    pub(crate) fn failed(&mut self, kind: &'static str) {
        self.error = Some(Cow::Borrowed(kind));
    }

    /// All of the answer came. That it is an error makes the attempt one, as the conventions have it.
    pub(crate) fn completed(mut self) {
        let refused = self.status.filter(|status| status.as_u16() >= 400);
        self.error = refused.map(|status| Cow::Owned(status.as_str().to_owned()));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(record) = self.hop.record(Side::Client, self.started.elapsed()) else { return };
        record
            .named(self.method)
            .with("http.request.method", self.method)
            .with("server.address", self.node.address.ip().to_string())
            .with("server.port", i64::from(self.node.address.port()))
            .with("inferno.backend.id", self.node.id.clone())
            .with_some(
                "http.request.resend_count",
                (self.resends > 0).then_some(i64::from(self.resends)),
            )
            .with_some(
                "http.response.status_code",
                self.status.map(|status| i64::from(status.as_u16())),
            )
            .with_error(self.error.take())
            .end();
    }
}
