//! What the traffic side counts. Label values are our own words and the ids of registered nodes,
//! never anything of a request.

use crate::{
    admission::{self, Lobby},
    route::Route,
    routing::Fleet,
    upstream::UpstreamError,
};
use inferno_shared::{
    MetricsCollector,
    metrics::{Kind, Label, Metric, STATUS, Values, status_label},
};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

const ROUTE: Label = Label { name: "route", values: Values::OneOf(&Route::LABELS) };
const KIND: Label = Label { name: "kind", values: Values::OneOf(&UpstreamError::KINDS) };
const BACKEND: Label = Label { name: "backend", values: Values::Each("each member, by its id") };

const REASON: Label = Label { name: "reason", values: Values::OneOf(&admission::REASONS) };

const MODEL: Label = Label {
    name: "model",
    values: Values::Each("each model that a backend registered; empty where none was found"),
};

const REQUESTS: Metric = Metric {
    name: "inferno_proxy_requests_total",
    kind: Kind::Counter,
    labels: &[MODEL, ROUTE, STATUS],
    unit: "requests",
    help: "Requests, by model, endpoint and status. 499: the client left before an answer.",
};

const DURATION: Metric = Metric {
    name: "inferno_proxy_request_duration_seconds",
    // A cached prompt's short answer at one end, a long generation at the other.
    kind: Kind::Histogram(&[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
    ]),
    labels: &[MODEL, ROUTE],
    unit: "seconds",
    help: "From a request's header to the end of its answer.",
};

const TIME_TO_FIRST_TOKEN: Metric = Metric {
    name: "inferno_proxy_time_to_first_token_seconds",
    kind: Kind::Histogram(&[
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
    ]),
    labels: &[MODEL],
    unit: "seconds",
    help: "From a stream's request to its first event with a token.",
};

const INTER_TOKEN: Metric = Metric {
    name: "inferno_proxy_inter_token_seconds",
    kind: Kind::Histogram(&[0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
    labels: &[MODEL],
    unit: "seconds",
    help: "Between events of a stream, from its first token on.",
};

const OWN_TIME: Metric = Metric {
    name: "inferno_proxy_own_seconds",
    kind: Kind::Histogram(&[
        0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1,
    ]),
    labels: &[ROUTE],
    unit: "seconds",
    help: "From a request's last byte to its being sent to the first backend: reading its JSON, hashing, choosing.",
};

const QUEUE_WAITING: Metric = Metric {
    name: "inferno_proxy_queue_waiting",
    kind: Kind::Gauge,
    labels: &[MODEL],
    unit: "requests",
    help: "Requests that wait here for a backend.",
};

const QUEUE_WAIT: Metric = Metric {
    name: "inferno_proxy_queue_wait_seconds",
    kind: Kind::Histogram(&[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
    labels: &[MODEL],
    unit: "seconds",
    help: "How long requests waited for a backend to be free; most do not.",
};

const LIMITED: Metric = Metric {
    name: "inferno_proxy_limited_total",
    kind: Kind::Counter,
    labels: &[REASON],
    unit: "requests",
    help: "Requests refused because a key was over a limit of its own, or the queue was full or took too long.",
};

const ATTEMPTS: Metric = Metric {
    name: "inferno_proxy_attempts_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "attempts",
    help: "Requests sent to backends, each as often as it was sent.",
};

const EJECTIONS: Metric = Metric {
    name: "inferno_proxy_ejections_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "ejections",
    help: "Times that a backend was left alone for failing requests in a row.",
};

const BUDGET_SPENT: Metric = Metric {
    name: "inferno_proxy_retry_budget_spent_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "requests",
    help: "Requests that another backend was not asked for, because proxy.retry.budget was spent.",
};

const PROMPT_TOKENS: Metric = Metric {
    name: "inferno_proxy_routed_tokens_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "tokens",
    help: "Tokens of the prompts that the policy prefix routed, by their length in bytes.",
};

const CACHED_TOKENS: Metric = Metric {
    name: "inferno_proxy_routed_cached_tokens_total",
    kind: Kind::Counter,
    labels: &[],
    unit: "tokens",
    help: "Of these, those that it believed the chosen backend to have cached.",
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
pub const METRICS: &[Metric] = &[
    REQUESTS,
    DURATION,
    TIME_TO_FIRST_TOKEN,
    INTER_TOKEN,
    OWN_TIME,
    QUEUE_WAITING,
    QUEUE_WAIT,
    LIMITED,
    BACKEND_IN_FLIGHT,
    ATTEMPTS,
    RETRIES,
    BUDGET_SPENT,
    EJECTIONS,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    CONNECTIONS_REFUSED,
    UPSTREAM_ERRORS,
];

/// The proxy's metrics.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    /// The process's own counters, which its vitals show.
    pub(crate) node: Arc<MetricsCollector>,
    requests: IntCounterVec,
    duration: HistogramVec,
    time_to_first_token: HistogramVec,
    inter_token: HistogramVec,
    own_time: HistogramVec,
    queue_wait: HistogramVec,
    limited: IntCounterVec,
    /// Requests sent to backends.
    pub(crate) attempts: IntCounter,
    /// Backends left alone.
    pub(crate) ejections: IntCounter,
    /// Retries that there was no budget for.
    pub(crate) budget_spent: IntCounter,
    /// Tokens of prompts that were routed by them, and those believed to be cached.
    pub(crate) routed_tokens: IntCounter,
    pub(crate) routed_cached_tokens: IntCounter,
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
        lobby: &Lobby,
    ) -> prometheus::Result<Arc<Self>> {
        let registry = node.registry();
        let metrics = Self {
            node: Arc::clone(node),
            requests: registry.counters(REQUESTS)?,
            duration: registry.histograms(DURATION)?,
            time_to_first_token: registry.histograms(TIME_TO_FIRST_TOKEN)?,
            inter_token: registry.histograms(INTER_TOKEN)?,
            own_time: registry.histograms(OWN_TIME)?,
            queue_wait: registry.histograms(QUEUE_WAIT)?,
            limited: registry.counters(LIMITED)?,
            attempts: registry.counter(ATTEMPTS)?,
            ejections: registry.counter(EJECTIONS)?,
            budget_spent: registry.counter(BUDGET_SPENT)?,
            routed_tokens: registry.counter(PROMPT_TOKENS)?,
            routed_cached_tokens: registry.counter(CACHED_TOKENS)?,
            upstream_errors: registry.counters(UPSTREAM_ERRORS)?,
            retries: registry.counter(RETRIES)?,
            connections_refused: registry.counter(CONNECTIONS_REFUSED)?,
        };
        let members = Arc::clone(&fleet);
        registry.read_at_scrape(BACKEND_IN_FLIGHT, move |emit| {
            for node in members.snapshot().members() {
                emit(&[node.id.as_str()], node.load.in_flight().into());
            }
        })?;
        let (queue, members) = (lobby.clone(), fleet);
        registry.read_at_scrape(QUEUE_WAITING, move |emit| {
            let snapshot = members.snapshot();
            let models = snapshot.models().into_iter().map(|model| (model.id.clone(), 0));
            let mut waiting: BTreeMap<_, _> = models.collect();
            queue.each_waiting(|model, count| {
                waiting.insert(model.to_owned(), count);
            });
            waiting.iter().for_each(|(model, &count)| emit(&[model.as_str()], count as f64));
        })?;
        let queue = lobby.clone();
        node.on_vitals(move |vitals| vitals.queue_depth = queue.waiting() as u64);
        // A rate needs the value before the first error.
        for reason in admission::REASONS {
            metrics.limited.with_label_values(&[reason]);
        }
        for kind in UpstreamError::KINDS {
            metrics.upstream_errors.with_label_values(&[kind]);
        }
        Ok(Arc::new(metrics))
    }

    /// A request has ended.
    pub(crate) fn request_ended(&self, model: &str, route: Route, status: u16, duration: Duration) {
        self.requests.with_label_values(&[model, route.label(), status_label(status)]).inc();
        self.duration.with_label_values(&[model, route.label()]).observe(duration.as_secs_f64());
    }

    /// A request was on its way to a backend so long after it had come.
    pub(crate) fn sent(&self, route: Route, own: Duration) {
        self.own_time.with_label_values(&[route.label()]).observe(own.as_secs_f64());
    }

    /// A request for `model` waited so long for a backend.
    pub(crate) fn waited(&self, model: &str, wait: Duration) {
        self.queue_wait.with_label_values(&[model]).observe(wait.as_secs_f64());
    }

    /// A request was refused for one of [`admission::REASONS`].
    pub(crate) fn limited(&self, reason: &'static str) {
        self.limited.with_label_values(&[reason]).inc();
    }

    /// A stream for `model` begins.
    pub(crate) fn stream(&self, model: &str) -> StreamMetrics {
        StreamMetrics {
            time_to_first_token: self.time_to_first_token.with_label_values(&[model]),
            inter_token: self.inter_token.with_label_values(&[model]),
            last: None,
            events: 0,
            duration: Duration::ZERO,
        }
    }

    /// Something went wrong between the proxy and a backend.
    pub(crate) fn upstream_error(&self, kind: &'static str) {
        self.upstream_errors.with_label_values(&[kind]).inc();
    }
}

/// Measures one stream.
#[derive(Debug)]
pub(crate) struct StreamMetrics {
    time_to_first_token: Histogram,
    inter_token: Histogram,
    /// When the last event came, from the first token on.
    last: Option<Instant>,
    /// Events after the first token, and how long they took.
    pub(crate) events: u32,
    pub(crate) duration: Duration,
}

impl StreamMetrics {
    /// The first token came, so long after the request.
    pub(crate) fn first_token(&mut self, elapsed: Duration) {
        self.time_to_first_token.observe(elapsed.as_secs_f64());
        self.last = Some(Instant::now());
    }

    /// Another event came.
    pub(crate) fn event(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let gap = now.duration_since(last);
            self.inter_token.observe(gap.as_secs_f64());
            (self.events, self.duration) = (self.events.saturating_add(1), self.duration + gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::Still;
    use inferno_shared::config::ProxyLimits;

    #[test]
    fn the_table_is_what_is_registered() {
        let node = MetricsCollector::new();
        let lobby = Lobby::new(&ProxyLimits::default());
        ProxyMetrics::new(&node, Arc::new(Still::default()), &lobby).expect("each name once");
        let mut registered = node.registry().described();
        let mut table = METRICS.to_vec();
        registered.sort_by_key(|metric| metric.name);
        table.sort_by_key(|metric| metric.name);
        assert_eq!(registered, table);
    }
}
