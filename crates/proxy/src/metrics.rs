//! What the traffic side counts. Label values are our own words and the ids of registered nodes,
//! never anything of a request.

use crate::{route::Route, routing::Fleet, upstream::UpstreamError};
use http::StatusCode;
use inferno_shared::MetricsCollector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::{sync::Arc, time::Duration};

/// Seconds. A cached prompt's short answer at one end, a long generation at the other.
const DURATION_BUCKETS_S: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// The proxy's metrics.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    /// The process's own counters, which its vitals show.
    pub(crate) node: Arc<MetricsCollector>,
    requests: IntCounterVec,
    duration: HistogramVec,
    upstream_errors: IntCounterVec,
    /// Requests sent to another backend after one failed.
    pub(crate) retries: IntCounter,
    /// Connections closed because too many were open.
    pub(crate) connections_refused: IntCounter,
}

impl ProxyMetrics {
    /// Registers everything with `node`.
    ///
    /// # Errors
    /// If a metric of that name is registered already.
    pub(crate) fn new(
        node: &Arc<MetricsCollector>,
        fleet: Arc<dyn Fleet>,
    ) -> prometheus::Result<Arc<Self>> {
        let registry = node.registry();
        let duration = HistogramOpts::new(
            "inferno_proxy_request_duration_seconds",
            "From a request's header to the end of its answer.",
        );
        let duration =
            HistogramVec::new(duration.buckets(DURATION_BUCKETS_S.to_vec()), &["route"])?;
        registry.register(Box::new(duration.clone()))?;
        let retries = counter(
            registry,
            "inferno_proxy_retries_total",
            "Requests sent to another backend after one failed.",
        )?;
        let connections_refused = counter(
            registry,
            "inferno_proxy_connections_refused_total",
            "Connections closed at once because proxy.limits.connections_max were open.",
        )?;
        registry.register(Box::new(InFlightByBackend::new(fleet)?))?;
        let upstream_errors = counters(
            registry,
            "inferno_proxy_upstream_errors_total",
            "Failures between the proxy and a backend.",
            &["kind"],
        )?;
        // Each kind is there from the start, at 0: a rate needs the value before the first error.
        for kind in UpstreamError::KINDS {
            upstream_errors.with_label_values(&[kind]);
        }
        Ok(Arc::new(Self {
            node: Arc::clone(node),
            requests: counters(
                registry,
                "inferno_proxy_requests_total",
                "Requests, by endpoint and status. 499: the client left before an answer.",
                &["route", "status"],
            )?,
            duration,
            upstream_errors,
            retries,
            connections_refused,
        }))
    }

    /// A request has ended.
    pub(crate) fn request_ended(&self, route: Route, status: u16, duration: Duration) {
        self.requests.with_label_values(&[route.label(), status_label(status)]).inc();
        self.duration.with_label_values(&[route.label()]).observe(duration.as_secs_f64());
    }

    /// Something went wrong between the proxy and a backend.
    pub(crate) fn upstream_error(&self, kind: &'static str) {
        self.upstream_errors.with_label_values(&[kind]).inc();
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

/// Statuses that are common by themselves, the rest by class: a backend may answer anything.
fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        400 => "400",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        422 => "422",
        429 => "429",
        499 => "499",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => match StatusCode::from_u16(status).map(|status| status.as_u16() / 100) {
            Ok(2) => "2xx",
            Ok(3) => "3xx",
            Ok(4) => "4xx",
            Ok(5) => "5xx",
            _ => "other",
        },
    }
}

/// Requests in flight on each node, read where they are counted when someone asks: a node that is
/// gone leaves no stale gauge behind.
struct InFlightByBackend {
    fleet: Arc<dyn Fleet>,
    gauges: IntGaugeVec,
}

impl InFlightByBackend {
    fn new(fleet: Arc<dyn Fleet>) -> prometheus::Result<Self> {
        let opts =
            Opts::new("inferno_proxy_backend_in_flight", "This proxy's requests on each backend.");
        Ok(Self { fleet, gauges: IntGaugeVec::new(opts, &["backend"])? })
    }
}

impl Collector for InFlightByBackend {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauges.reset();
        for node in self.fleet.snapshot().members() {
            self.gauges.with_label_values(&[node.id.as_str()]).set(node.load.in_flight().into());
        }
        self.gauges.collect()
    }
}
