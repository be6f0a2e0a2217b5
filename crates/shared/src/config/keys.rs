//! The table of every configuration key: the one place that knows names, kinds and meanings.

/// How the text of an environment variable or a `--set` becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Taken as it stands: never unquoted, trimmed or guessed to be a number.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `a,b` or `["a","b"]`; empty: the empty list.
    List,
}

/// One key: what it is called, how it is read, what it means.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path, e.g. `proxy.routing.policy`.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// A flat environment name besides the nested one.
    pub flat: Option<&'static str>,
    /// One sentence for the reference.
    pub about: &'static str,
}

impl Key {
    /// The nested environment name: `proxy.listen` is `INFERNO_PROXY__LISTEN`.
    pub fn variable(&self) -> String {
        format!("INFERNO_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, flat: None, about }
}

const fn flat(name: &'static str, kind: Kind, flat: &'static str, about: &'static str) -> Key {
    Key { name, kind, flat: Some(flat), about }
}

use Kind::{Boolean, Integer, List, Text};

/// Every key there is.
pub const KEYS: &[Key] = &[
    key(
        "node.id",
        Text,
        "Name of this node, 1-128 of [A-Za-z0-9._-]. Default: host name and a random suffix.",
    ),
    flat(
        "log.level",
        Text,
        "INFERNO_LOG",
        "error, warn, info, debug, trace, or filter directives such as `info,inferno_proxy=debug`.",
    ),
    key("log.format", Text, "auto (human on a terminal, else JSON), human or json."),
    key(
        "telemetry.otlp.endpoint",
        Text,
        "Where spans are posted (OTLP over HTTP), e.g. http://127.0.0.1:4318/v1/traces. Default: nowhere.",
    ),
    key(
        "telemetry.otlp.headers",
        Text,
        "name=value,name=value: sent to the collector, for example its credentials.",
    ),
    key(
        "telemetry.otlp.timeout_ms",
        Integer,
        "For the collector to take a batch, in milliseconds.",
    ),
    key(
        "telemetry.otlp.sample_ratio",
        Text,
        "Share of the traces that begin here which is recorded, 0 to 1. Others are as their `traceparent` says.",
    ),
    flat(
        "operations.addr",
        Text,
        "INFERNO_OPERATIONS_ADDR",
        "Where the operations server listens.",
    ),
    flat(
        "operations.enable_metrics",
        Boolean,
        "INFERNO_ENABLE_METRICS",
        "false: /metrics and /telemetry answer 404; the rest stays.",
    ),
    key(
        "registration.secret_files",
        List,
        "Files holding the shared secret. The first is sent, all are accepted.",
    ),
    key("registration.allowed_networks", List, "Networks in which registered nodes may live."),
    key(
        "registration.lease_ms",
        Integer,
        "How long a registration holds without renewal, in milliseconds.",
    ),
    key(
        "registration.allow_unauthenticated",
        Boolean,
        "Accept registrations off loopback without a secret. Anyone who reaches the port can then receive your traffic.",
    ),
    key("health.interval_ms", Integer, "Time between two checks of one node, in milliseconds."),
    key("health.timeout_ms", Integer, "How long one check may take, in milliseconds."),
    key("proxy.listen", Text, "Where the proxy accepts traffic."),
    key("proxy.routing.policy", Text, "least_outstanding or round_robin."),
    key("proxy.body_bytes_max", Text, "Largest request body (413 above): bytes, or e.g. 16MiB."),
    key("proxy.body_bytes_total", Text, "All request bodies held at once (503 above)."),
    key("proxy.timeouts.connect_ms", Integer, "To connect to a backend, in milliseconds."),
    key(
        "proxy.timeouts.first_byte_ms",
        Integer,
        "From the request sent to the first byte of the answer, in milliseconds.",
    ),
    key(
        "proxy.timeouts.idle_ms",
        Integer,
        "Between two pieces of an answer, and between two requests of one connection, in milliseconds.",
    ),
    key(
        "proxy.timeouts.request_read_ms",
        Integer,
        "For a client to send its body, in milliseconds.",
    ),
    key(
        "proxy.drain_timeout_ms",
        Integer,
        "How long running requests may take after SIGTERM, in milliseconds.",
    ),
    key("backend.listen", Text, "Where the backend accepts inference requests."),
    key(
        "backend.proxies",
        List,
        "Operations addresses (host:port) of the proxies to register with.",
    ),
    key(
        "backend.advertise",
        Text,
        "host:port that proxies should use. Default, per proxy: the local address of the route to it.",
    ),
    key(
        "backend.model",
        Text,
        "A catalogue name (see `inferno model list`) or the path of a GGUF file.",
    ),
    key(
        "backend.threads",
        Integer,
        "Threads for the model. Default: the cores this process may use.",
    ),
    key(
        "backend.kv_memory",
        Text,
        "Memory for the KV cache: bytes, or e.g. 2GiB. Default: a share of what this process may use.",
    ),
    key("backend.max_concurrency", Integer, "Sequences computed together, at most 512."),
    key("backend.queue_max", Integer, "Requests that may wait beyond those (503 above)."),
    key(
        "backend.context_max",
        Integer,
        "Longest prompt plus answer in tokens. Default: the model's.",
    ),
    key("backend.body_bytes_max", Text, "Largest request body (413 above)."),
    key(
        "backend.drain_timeout_ms",
        Integer,
        "How long running requests may take after SIGTERM, in milliseconds.",
    ),
];

/// The key of that dotted name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
