//! The operations server counts itself: who asks it, what for, and how long it takes.

use super::{Context, routes};
use crate::metrics::{Kind, Label, Metric, MetricRegistry, STATUS, Values, status_label};
use http::Request;
use hyper::body::Incoming;
use prometheus::{HistogramVec, IntCounterVec};
use std::{net::SocketAddr, time::Instant};

const ROUTE: Label = Label {
    name: "route",
    values: Values::OneOf(&[
        "metrics",
        "telemetry",
        "health",
        "health_live",
        "peers",
        "registration",
        "unknown",
    ]),
};

const REQUESTS: Metric = Metric {
    name: "inferno_operations_requests_total",
    kind: Kind::Counter,
    labels: &[ROUTE, STATUS],
    unit: "requests",
    help: "Requests answered by the operations server; not those that were no HTTP.",
};

const DURATION: Metric = Metric {
    name: "inferno_operations_request_duration_seconds",
    // From an answer out of memory to a registration whose body comes slowly.
    kind: Kind::Histogram(&[1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0]),
    labels: &[ROUTE],
    unit: "seconds",
    help: "From a request's header to its answer, before that is written.",
};

/// Every metric of the operations server.
pub const METRICS: &[Metric] = &[REQUESTS, DURATION];

/// Those of one server.
#[derive(Debug)]
pub(super) struct OperationsMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl OperationsMetrics {
    pub(super) fn register(registry: &MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: registry.counters(REQUESTS)?,
            duration: registry.histograms(DURATION)?,
        })
    }
}

/// Answers one request, counts it, and logs it: at debug, for these come each second from whoever
/// watches.
pub(super) async fn answer(
    context: &Context,
    caller: SocketAddr,
    request: Request<Incoming>,
) -> routes::Answer {
    let began = Instant::now();
    let route = route(request.uri().path());
    let answer = routes::answer(context, caller, request).await;
    let (status, took) = (answer.status().as_u16(), began.elapsed());
    context.own.requests.with_label_values(&[route, status_label(status)]).inc();
    context.own.duration.with_label_values(&[route]).observe(took.as_secs_f64());
    let duration_ms = took.as_micros() as f64 / 1e3;
    tracing::debug!(target: "inferno::operations", route, status, duration_ms, %caller, "operations request");
    answer
}

/// The endpoint, never the caller's own text.
fn route(path: &str) -> &'static str {
    match path {
        "/metrics" => "metrics",
        "/telemetry" => "telemetry",
        "/health" => "health",
        "/health/live" => "health_live",
        "/peers" => "peers",
        "/registration" => "registration",
        path if path.starts_with("/registration/") => "registration",
        _ => "unknown",
    }
}
