//! What is remembered of one request: counted and logged exactly once, when it is dropped, on
//! whichever way the request ended. Neither prompts nor answers, nor anything else that a client
//! wrote freely, come in here: a model is named only if a backend announced it.

use crate::{error::RequestError, metrics::ProxyMetrics, route::Route};
use http::{HeaderValue, StatusCode};
use inferno_shared::metrics::RequestGuard;
use std::{sync::Arc, time::Duration};

/// What nginx logs, and others after it, where the client left before an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request, from its header to the end of its answer.
pub(crate) struct Exchange {
    metrics: Arc<ProxyMetrics>,
    guard: RequestGuard,
    /// Echoed to the client, sent to the backend.
    pub(crate) request_id: HeaderValue,
    /// The endpoint.
    pub(crate) route: Route,
    /// The model's name, once a backend is known to serve it.
    pub(crate) model: Option<String>,
    /// Who answered.
    pub(crate) backend: Option<String>,
    /// Body bytes that went to the client.
    pub(crate) bytes: u64,
    /// The client went away before the end.
    pub(crate) client_gone: bool,
    status: u16,
    first_byte: Option<Duration>,
    error: Option<String>,
    /// It came to an end of its own, good or bad.
    ended: bool,
}

impl Exchange {
    /// A request has come.
    pub(crate) fn begin(
        metrics: &Arc<ProxyMetrics>,
        request_id: HeaderValue,
        route: Route,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            guard: metrics.node.request_started(),
            request_id,
            route,
            model: None,
            backend: None,
            bytes: 0,
            client_gone: false,
            status: CLIENT_CLOSED_REQUEST,
            first_byte: None,
            error: None,
            ended: false,
        }
    }

    /// An answer begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.first_byte = Some(self.guard.elapsed());
        self.status = status.as_u16();
    }

    /// An error is the answer, or the end of one that had begun.
    pub(crate) fn failed(&mut self, error: &RequestError) {
        if self.first_byte.is_none() {
            self.answered(error.status());
        }
        self.error = Some(format!("{}: {error}", error.code()));
    }

    /// It is over, and nobody cut it.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }

    /// Only the drain drops a request in the middle. Who had no answer yet found the connection
    /// closed: that is nobody's leaving, but capacity that is missing.
    fn cut(&mut self) {
        if self.first_byte.is_none() {
            self.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        }
        self.error.get_or_insert_with(|| "cut by the drain".into());
        self.guard.failed();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.guard.answered(self.status);
        let truncated = self.error.is_some() && self.status < 400;
        if truncated {
            self.guard.failed();
        }
        if !self.ended {
            self.cut();
        }
        let duration = self.guard.elapsed();
        self.metrics.request_ended(self.route, self.status, duration);
        tracing::info!(
            request_id = self.request_id.to_str().unwrap_or_default(),
            route = self.route.label(),
            model = self.model,
            status = self.status,
            backend = self.backend,
            duration_ms = millis(duration),
            ttfb_ms = self.first_byte.map(millis),
            bytes = self.bytes,
            client_gone = self.client_gone.then_some(true),
            error = self.error,
            "request"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
