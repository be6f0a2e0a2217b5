//! What is remembered of one request: counted, logged and exported exactly once, when it is dropped,
//! on whichever way the request ended. Neither prompts nor answers, nor anything else that a client
//! wrote freely, come in here: a model is named only if a backend announced it.

use crate::{attempt::Attempts, error::RequestError, metrics::ProxyMetrics, route::Route};
use http::{HeaderValue, StatusCode};
use inferno_shared::{
    metrics::RequestGuard,
    telemetry::{
        request::{self, RequestLine},
        request_id,
        spans::{self, Hop, Side},
        trace_context::TraceParent,
    },
};
use pingora_http::RequestHeader;
use std::{sync::Arc, time::Duration};
use tracing::Span;

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
    /// Sent to the backend as it came, if it came with a valid `traceparent`.
    pub(crate) tracestate: Option<HeaderValue>,
    /// Who was asked.
    pub(crate) attempts: Attempts,
    /// What its line will say.
    pub(crate) line: RequestLine,
    hop: Hop,
    method: &'static str,
    span: Span,
    /// It came to an end of its own, good or bad.
    ended: bool,
}

impl Exchange {
    /// A request has come; without a header, if it was no HTTP.
    pub(crate) fn begin(metrics: &Arc<ProxyMetrics>, header: Option<&RequestHeader>) -> Self {
        let field = |name| header.and_then(|header| header.headers.get(name));
        let request_id = request_id::choose(field(&crate::headers::REQUEST_ID));
        let (parent, tracestate) =
            header.and_then(|header| TraceParent::of(&header.headers)).unzip();
        let hop = Hop::receive(parent);
        let route = header.map_or(Route::Unknown, |header| Route::of(header.uri.path()));
        let method = header.map_or("_OTHER", |header| spans::method(&header.method));
        Self {
            metrics: Arc::clone(metrics),
            guard: metrics.node.request_started(),
            span: request::span(&request_id, &hop),
            request_id,
            route,
            tracestate: tracestate.flatten(),
            attempts: Attempts::new(hop, method),
            line: RequestLine {
                route: route.label(),
                status: CLIENT_CLOSED_REQUEST,
                ..RequestLine::default()
            },
            hop,
            method,
            ended: false,
        }
    }

    /// The span in which it is worked on.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// An answer begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.line.ttfb = Some(self.guard.elapsed());
        self.line.status = status.as_u16();
    }

    /// How long ago it came.
    pub(crate) fn elapsed(&self) -> Duration {
        self.guard.elapsed()
    }

    /// An error is the answer, or the end of one that had begun.
    pub(crate) fn failed(&mut self, error: &RequestError) {
        if self.line.ttfb.is_none() {
            self.answered(error.status());
        }
        self.line.key_id = self.line.key_id.take().or_else(|| error.key_id());
        self.line.error = Some(error.code());
        self.line.detail = Some(error.to_string());
    }

    /// It is over, and nobody cut it.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }

    /// Only the drain drops a request in the middle. Who had no answer yet found the connection
    /// closed: that is nobody's leaving, but capacity that is missing.
    fn cut(&mut self) {
        if self.line.ttfb.is_none() {
            self.line.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        }
        self.line.error.get_or_insert("cut_by_drain");
        self.guard.failed();
    }

    fn export(&self, failed: bool) {
        let Some(record) = self.hop.record(Side::Server, self.line.duration) else { return };
        let path = self.route.path();
        let record = record
            .named(path.map_or(self.method.into(), |path| format!("{} {path}", self.method)))
            .with("http.request.method", self.method)
            .with_some("http.route", path)
            .with("http.response.status_code", i64::from(self.line.status))
            .with("http.request.body.size", spans::integer(self.line.request_bytes))
            .with("http.response.body.size", spans::integer(self.line.response_bytes))
            .with_some("gen_ai.operation.name", self.route.operation())
            .with_some("gen_ai.request.model", self.line.model.clone())
            .with_some("inferno.backend.id", self.line.backend.clone())
            .with_some("inferno.key.id", self.line.key_id.as_deref().map(str::to_owned))
            .with("inferno.request.id", self.request_id.to_str().unwrap_or_default().to_owned());
        match failed {
            true => record.with_error(self.line.error.or(Some("server_error"))),
            false => record.with_some("error.type", self.line.error),
        }
        .end();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.guard.answered(self.line.status);
        let truncated = self.line.error.is_some() && self.line.status < 400;
        if truncated {
            self.guard.failed();
        }
        if !self.ended {
            self.cut();
        }
        self.line.duration = self.guard.elapsed();
        self.line.attempts = (self.attempts.count > 0).then_some(self.attempts.count);
        let model = self.line.model.as_deref().unwrap_or_default();
        self.metrics.request_ended(model, self.route, self.line.status, self.line.duration);
        self.line.log(&self.span);
        self.export(self.line.status >= 500 || truncated || !self.ended);
    }
}
