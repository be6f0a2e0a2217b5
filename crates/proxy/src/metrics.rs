//! What the traffic side counts. Label values are our own words and the ids of registered nodes,
//! never anything of a request.

use crate::{route::Route, routing::Fleet, upstream::UpstreamError};
use inferno_shared::{
    MetricsCollector,
    metrics::{Kind, Label, Metric, STATUS, Values, status_label},
};
use prometheus::{HistogramVec, IntCounter, IntCounterVec};
use std::{sync::Arc, time::Duration};

const ROUTE: Label = Label { name: "route", values: Values::OneOf(&Route::LABELS) };
const KIND: Label = Label { name: "kind", values: Values::OneOf(&UpstreamError::KINDS) };
const BACKEND: Label = Label { name: "backend", values: Values::Each("each member, by its id") };

const REQUESTS: Metric = Metric {
    name: "inferno_proxy_requests_total",
    kind: Kind::Counter,
    labels: &[ROUTE, STATUS],
    unit: "requests",
    help: "Requests, by endpoint and status. 499: the client left before an answer.",
};

const DURATION: Metric = Metric {
    name: "inferno_proxy_request_duration_seconds",
    // A cached prompt's short answer at one end, a long generation at the other.
    kind: Kind::Histogram(&[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
    ]),
    labels: &[ROUTE],
    unit: "seconds",
    help: "From a request's header to the end of its answer.",
};

const BACKEND_IN_FLIGHT: Metric = Metric {
    name: "inferno_proxy_backend_in_flight",
    kind: Kind::Gauge,
    labels: &[BACKEND],
    unit: "requests",
    help: "This proxy's requests on each backend.",
};

const RETRIES: Metric = Metric {
    name: "inferno_proxy_retries_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "requests",
    help: "Requests sent to another backend after one failed.",
};

const CONNECTIONS_REFUSED: Metric = Metric {
    name: "inferno_proxy_connections_refused_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "connections",
    help: "Connections closed at once because proxy.limits.connections_max were open.",
};

const UPSTREAM_ERRORS: Metric = Metric {
    name: "inferno_proxy_upstream_errors_total",
    kind: Kind::Counter,
    labels: &[KIND],
    unit: "errors",
    help: "Failures between the proxy and a backend; each kind is there from the start.",
};

/// Every metric that only a proxy has.
pub const METRICS: &[Metric] =
    &[REQUESTS, DURATION, BACKEND_IN_FLIGHT, RETRIES, CONNECTIONS_REFUSED, UPSTREAM_ERRORS];

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
        let metrics = Self {
            node: Arc::clone(node),
            requests: registry.counters(REQUESTS)?,
            duration: registry.histograms(DURATION)?,
            upstream_errors: registry.counters(UPSTREAM_ERRORS)?,
            retries: registry.counter(RETRIES)?,
            connections_refused: registry.counter(CONNECTIONS_REFUSED)?,
        };
        registry.read_at_scrape(BACKEND_IN_FLIGHT, move |emit| {
            for node in fleet.snapshot().members() {
                emit(&[node.id.as_str()], node.load.in_flight().into());
            }
        })?;
        // A rate needs the value before the first error.
        for kind in UpstreamError::KINDS {
            metrics.upstream_errors.with_label_values(&[kind]);
        }
        Ok(Arc::new(metrics))
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

#[cfg(test)]
mod tests {
    use super::*;
    use inferno_shared::membership::{Generation, Snapshot};

    struct Nobody;

    impl Fleet for Nobody {
        fn snapshot(&self) -> Arc<Snapshot> {
            Arc::default()
        }

        fn report_connect_refused(&self, _: &str, _: Generation) {}
    }

    #[test]
    fn the_table_is_what_is_registered() {
        let node = MetricsCollector::new();
        ProxyMetrics::new(&node, Arc::new(Nobody)).expect("each name once");
        let mut registered = node.registry().described();
        let mut table = METRICS.to_vec();
        registered.sort_by_key(|metric| metric.name);
        table.sort_by_key(|metric| metric.name);
        assert_eq!(registered, table);
    }
}
