//! The fields of the vitals, and the metric that each number among them is.

use super::{
    describe::{Kind, Metric},
    text::Row,
};
use crate::vitals::NodeVitals;
use std::sync::LazyLock;

/// One field of the vitals.
#[derive(Debug)]
pub(super) struct Vital {
    /// Its name in the JSON of `GET /metrics`.
    pub(super) field: &'static str,
    /// Of the value there; of what is no number, its form.
    pub(super) unit: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
    /// The metric it is in Prometheus text, if it is a number.
    pub(super) metric: Option<Metric>,
    read: fn(&NodeVitals) -> f64,
}

impl Vital {
    /// A gauge, in the unit of the field.
    const fn gauge(
        field: &'static str,
        name: &'static str,
        unit: &'static str,
        meaning: &'static str,
        read: fn(&NodeVitals) -> f64,
    ) -> Self {
        let metric = Metric { name, kind: Kind::Gauge, labels: &[], unit, help: meaning };
        Self { field, unit, meaning, metric: Some(metric), read }
    }

    /// What is no number, and so no metric.
    const fn text(field: &'static str, form: &'static str, meaning: &'static str) -> Self {
        Self { field, unit: form, meaning, metric: None, read: |_| 0.0 }
    }
}

/// Writes each number of `vitals` as a metric, `inferno_node_…`.
pub(super) fn write(page: &mut String, vitals: &NodeVitals) {
    for (row, vital) in ROWS.iter() {
        row.read(page, |emit| emit(&[], (vital.read)(vitals)));
    }
}

static ROWS: LazyLock<Vec<(Row, &Vital)>> = LazyLock::new(|| {
    VITALS.iter().filter_map(|vital| Some((Row::new(vital.metric?), vital))).collect()
});

/// Every field, in the order of the JSON.
///
/// `failed_responses` and `backoff_requests` only grow, yet are gauges: Prometheus wants `_total` at
/// the end of a counter's name, and theirs are fixed. `rate()` works on them all the same.
pub(super) static VITALS: [Vital; 24] = [
    Vital::gauge(
        "ready",
        "inferno_node_ready",
        "1 or 0",
        "Whether it takes new requests; true or false in JSON.",
        |vitals| f64::from(vitals.ready),
    ),
    Vital::gauge(
        "requests_in_progress",
        "inferno_node_requests_in_progress",
        "requests",
        "Requests being worked on.",
        |vitals| vitals.requests_in_progress as f64,
    ),
    Vital::gauge(
        "cpu_usage",
        "inferno_node_cpu_usage",
        "percent",
        "CPU time used of what the process may use (its control group's quota, else the cores it may run on), over the last second or more.",
        |vitals| vitals.cpu_usage,
    ),
    Vital::gauge(
        "memory_usage",
        "inferno_node_memory_usage",
        "percent",
        "Resident memory of what the process may use (its control group's limit, else the machine's memory).",
        |vitals| vitals.memory_usage,
    ),
    Vital::gauge(
        "gpu_usage",
        "inferno_node_gpu_usage",
        "percent",
        "Mean over its GPUs; 0 without one.",
        |vitals| vitals.gpu_usage,
    ),
    Vital::gauge(
        "failed_responses",
        "inferno_node_failed_responses",
        "requests",
        "Requests that ended in a failure of ours, by a status of 500 or more other than 503 or by an answer cut short; only grows.",
        |vitals| vitals.failed_responses as f64,
    ),
    Vital::gauge(
        "connected_peers",
        "inferno_node_connected_peers",
        "nodes",
        "Nodes it is in touch with: a proxy's live backends, a backend's proxies.",
        |vitals| f64::from(vitals.connected_peers),
    ),
    Vital::gauge(
        "backoff_requests",
        "inferno_node_backoff_requests",
        "requests",
        "Requests refused with 503 for lack of capacity; only grows.",
        |vitals| vitals.backoff_requests as f64,
    ),
    Vital::gauge(
        "uptime_seconds",
        "inferno_node_uptime_seconds",
        "seconds",
        "Since the process started.",
        |vitals| vitals.uptime_seconds as f64,
    ),
    Vital::text("version", "text", "Of the program."),
    Vital::text("node_id", "text", "The node's name."),
    Vital::text(
        "service",
        "text",
        "`inferno-proxy`, `inferno-backend`, or `inferno-register` for a foreign engine.",
    ),
    Vital::text("state", "text", "`loading`, `ready`, `draining` or `stalled`."),
    Vital::gauge(
        "generation",
        "inferno_node_generation",
        "milliseconds since 1970",
        "This incarnation: when the node started, or later.",
        |vitals| vitals.generation.0 as f64,
    ),
    Vital::text("nonce", "text", "What it registered with: the proof that it is the same process."),
    Vital {
        field: "requests_total",
        unit: "requests",
        meaning: "Requests ever begun on the traffic port; a backend counts those for tokens.",
        metric: Some(Metric {
            name: "inferno_node_requests_total",
            kind: Kind::Counter,
            labels: &[],
            unit: "requests",
            help: "Requests ever begun on the traffic port; a backend counts those for tokens.",
        }),
        read: |vitals| vitals.requests_total as f64,
    },
    // In Prometheus text in base units, as `promtool check metrics` demands; so another name.
    Vital {
        field: "average_response_ms",
        unit: "milliseconds",
        meaning: "From a request's header to the end of its answer, mean over all that have ended.",
        metric: Some(Metric {
            name: "inferno_node_average_response_seconds",
            kind: Kind::Gauge,
            labels: &[],
            unit: "seconds",
            help: "From a request's header to the end of its answer, mean over all that have ended.",
        }),
        read: |vitals| vitals.average_response_ms / 1e3,
    },
    Vital::gauge(
        "queue_depth",
        "inferno_node_queue_depth",
        "requests",
        "Requests waiting: for the engine on a backend, for a backend on a proxy.",
        |vitals| vitals.queue_depth as f64,
    ),
    Vital::gauge(
        "kv_cache_usage",
        "inferno_node_kv_cache_usage",
        "percent",
        "KV cache in use; 0 on a proxy.",
        |vitals| vitals.kv_cache_usage,
    ),
    Vital::gauge(
        "kv_cache_tokens",
        "inferno_node_kv_cache_tokens",
        "tokens",
        "What the whole KV cache holds; 0 on a proxy.",
        |vitals| vitals.kv_cache_tokens as f64,
    ),
    Vital::gauge(
        "tokens_per_second",
        "inferno_node_tokens_per_second",
        "tokens a second",
        "Generated, over the last second or more; 0 on a proxy.",
        |vitals| vitals.tokens_per_second,
    ),
    Vital::text("models", "list of `{id, sha256}`", "What it serves."),
    Vital::text("fingerprint", "text or null", "Nodes with equal ones give equal tokens."),
    Vital::text(
        "gpus",
        "list of `{name, utilization, memory_used_bytes, memory_total_bytes, temperature_celsius, power_watts}`",
        "Its GPUs.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_table_has_every_field_and_every_number_is_a_metric() {
        let json = serde_json::to_value(NodeVitals::default()).expect("vitals are JSON");
        let fields = json.as_object().expect("an object");
        assert!(fields.keys().eq(VITALS.iter().map(|vital| vital.field)), "{fields:?}");
        for vital in &VITALS {
            let is_number = matches!(fields[vital.field], Value::Number(_) | Value::Bool(_));
            assert_eq!(vital.metric.is_some(), is_number, "{}", vital.field);
        }
    }

    #[test]
    fn a_metric_is_named_for_its_field_but_where_that_has_no_base_unit() {
        for vital in &VITALS {
            let Some(metric) = vital.metric else { continue };
            let name = vital.field.replace("_ms", "_seconds");
            assert_eq!(metric.name, format!("inferno_node_{name}"));
            let counts = metric.name.ends_with("_total");
            assert_eq!(metric.kind == Kind::Counter, counts, "{}", metric.name);
        }
    }

    /// Each number of the JSON gets a value that nobody else has, and must come out under its name.
    #[test]
    fn each_metric_reads_its_own_field() {
        let mut json = serde_json::to_value(NodeVitals::default()).expect("vitals are JSON");
        let fields = json.as_object_mut().expect("an object");
        let mut expected = Vec::new();
        for (index, vital) in VITALS.iter().enumerate() {
            let Some(metric) = vital.metric else { continue };
            let number = 1_000 * (index + 1);
            let (value, shown) = match &fields[vital.field] {
                Value::Bool(_) => (Value::Bool(true), 1),
                _ if vital.field.ends_with("_ms") => (number.into(), number / 1_000),
                _ => (number.into(), number),
            };
            fields.insert(vital.field.into(), value);
            expected.push(format!("{} {shown}", metric.name));
        }
        let vitals: NodeVitals = serde_json::from_value(json).expect("vitals");
        let mut text = String::new();
        write(&mut text, &vitals);
        let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(shown, expected);
    }
}
