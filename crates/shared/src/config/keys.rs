//! The table of every configuration key: the one place that knows names, kinds and meanings.
//!
//! The environment layer, the checks of values, the nearest-name hints, the reference and the
//! sample file are made from it; tests hold it against the typed schema.

use super::kind::{
    Kind::{
        self, Address, Alias, Boolean, Bytes, Choice, Count, Device, HeaderField, HeaderName, Host,
        List, LogFilter, Milliseconds, Network, NodeId, Operations, Origin, Path, Ratio, Rewrite,
        Secret, Text, Url,
    },
    Range, none,
};
use figment::value::Value;

/// One key: what it is called, what it takes, what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted path, e.g. `proxy.routing.policy`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// A flat environment name besides the nested one.
    pub flat: Option<&'static str>,
    /// For a key that may have no value: what happens without one.
    pub unset: Option<&'static str>,
    /// What it means, for the reference and the sample file.
    pub about: &'static str,
}

impl Key {
    /// The nested environment name: `proxy.listen` is `INFERNO_PROXY__LISTEN`.
    pub fn variable(&self) -> String {
        format!("INFERNO_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }

    /// The table it stands in: `proxy.routing`.
    pub fn table(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// What it is called there: `policy`.
    pub fn leaf(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, leaf)| leaf)
    }

    /// The variables that set it: `INFERNO_LOG__LEVEL` and `INFERNO_LOG`.
    pub fn variables(&self) -> Vec<String> {
        [Some(self.variable()), self.flat.map(String::from)].into_iter().flatten().collect()
    }

    /// The text of a variable or a `--set` as a value.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        match self.empty(text)? {
            Some(value) => Ok(value),
            None => self.kind.parse(text),
        }
    }

    /// A value as a file gives it.
    pub(super) fn accept(&self, value: Value) -> Result<Value, String> {
        let empty = value.as_str().map(|text| self.empty(text)).transpose()?.flatten();
        match empty {
            Some(value) => Ok(value),
            None => self.kind.check(&value).map(|()| value),
        }
    }

    /// What empty text means: no value, where there may be none. `None`: it is not empty.
    fn empty(&self, text: &str) -> Result<Option<Value>, String> {
        match self.kind {
            _ if !text.is_empty() => Ok(None),
            _ if self.unset.is_some() => Ok(Some(none())),
            List(_) => Ok(Some(Value::from(Vec::<Value>::new()))),
            _ => Err("must not be empty; leave it out to get the default".into()),
        }
    }

    const fn flat(self, name: &'static str) -> Self {
        Self { flat: Some(name), ..self }
    }

    const fn or(self, unset: &'static str) -> Self {
        Self { unset: Some(unset), ..self }
    }
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, flat: None, unset: None, about }
}

const AT_LEAST_1: Range = Range::from(1);
/// Far more than one process can hold open.
const OPEN: Range = Range::between(1, 1_000_000);
/// As [`OPEN`], or none at all.
const OPEN_OR_NONE: Range = Range::between(0, 1_000_000);
const ANY: Range = Range::from(0);
/// Up to a day: no browser remembers for longer.
const DAY_S: Range = Range::between(0, 86_400);
/// A shorter lease would be renewed without end.
const LEASE_MS: Range = Range::from(1_000);
/// Most of `backend.max_concurrency`: a step of the engine has no room for more sequences.
pub const CONCURRENCY_MAX: u64 = 512;
const CONCURRENCY: Range = Range::between(1, CONCURRENCY_MAX);

/// Every key there is.
pub const KEYS: &[Key] = &[
    key("node.id", NodeId, "Name of this node among the others: 1-128 of [A-Za-z0-9._-].")
        .or("host name and a random suffix"),
    key(
        "log.level",
        LogFilter,
        "error, warn, info, debug, trace or off; or directives such as `info,inferno_proxy=debug`.",
    )
    .flat("INFERNO_LOG"),
    key(
        "log.format",
        Choice(&["auto", "human", "json"]),
        "Shape of a log line. auto: human on a terminal, else JSON.",
    ),
    key(
        "telemetry.otlp.endpoint",
        Url,
        "Where spans are posted, in protobuf: of a collector, e.g. http://127.0.0.1:4318. Without a \
         path, /v1/traces.",
    )
    .or("no spans are exported"),
    key(
        "telemetry.otlp.headers",
        Secret,
        "name=value,name=value: header fields for the collector, its credentials for example.",
    )
    .or("none"),
    key("telemetry.otlp.headers_file", Path, "The file that holds telemetry.otlp.headers.")
        .or("none"),
    key(
        "telemetry.otlp.timeout_ms",
        Milliseconds(AT_LEAST_1),
        "For the collector to take a batch; the batch is dropped and counted above.",
    ),
    key(
        "telemetry.otlp.sample_ratio",
        Ratio,
        "Which share of the traces that begin here is recorded. Who comes with a traceparent has \
         decided already.",
    ),
    key(
        "operations.addr",
        Address,
        "Where the operations server listens: health, metrics, registration.",
    )
    .flat("INFERNO_OPERATIONS_ADDR"),
    key(
        "operations.enable_metrics",
        Boolean,
        "false: /metrics and /telemetry answer 404; the rest stays.",
    )
    .flat("INFERNO_ENABLE_METRICS"),
    key(
        "operations.tls.cert_file",
        Path,
        "Certificate and its chain in PEM: the operations port then speaks TLS 1.2 and 1.3 and \
         nothing else. Needs key_file. Read again on SIGHUP.",
    )
    .or("none: plain HTTP"),
    key("operations.tls.key_file", Path, "Private key of that certificate in PEM.").or("none"),
    key(
        "operations.tls.ca_file",
        Path,
        "Certificates in PEM to trust when speaking to other operations servers. Read again on SIGHUP.",
    )
    .or("those that the system trusts"),
    key(
        "registration.secret",
        Secret,
        "The secret that backends register with, 1 line of printable ASCII. Needed off loopback. \
         Better in a file: what stands in a variable or a flag, other processes may see.",
    )
    .or("none"),
    key("registration.secret_file", Path, "The file that holds registration.secret.").or("none"),
    key(
        "registration.secret_files",
        List(&Path),
        "For rotation: one secret a file. The first is sent, all are accepted.",
    ),
    key(
        "registration.allowed_networks",
        List(&Network),
        "Networks in which registered nodes may live.",
    ),
    key(
        "registration.lease_ms",
        Milliseconds(LEASE_MS),
        "How long a registration holds without renewal. Backends renew at a third of it.",
    ),
    key(
        "registration.allow_unauthenticated",
        Boolean,
        "Accept registrations off loopback without a secret. Anyone who reaches the port can then \
         receive your traffic.",
    ),
    key(
        "health.interval_ms",
        Milliseconds(AT_LEAST_1),
        "Between two checks of one node by a proxy.",
    ),
    key("health.timeout_ms", Milliseconds(AT_LEAST_1), "How long one check may take."),
    key("proxy.listen", Address, "Where the proxy accepts traffic."),
    key(
        "proxy.peers",
        List(&Operations),
        "Operations addresses to introduce this proxy to: other proxies, which tell their backends of \
         it, or backends. One of several proxies is enough, or a name behind which all stand.",
    ),
    key("proxy.advertise", Host, "Where other nodes should know this proxy to be.")
        .or("per node, the local address of the route to it"),
    key(
        "proxy.routing.policy",
        Choice(&[
            "prefix",
            "least_outstanding",
            "power_of_two",
            "round_robin",
            "weighted",
            "session",
        ]),
        "How a backend is chosen among those that serve the model (docs/routing.md).",
    ),
    key(
        "proxy.routing.session_header",
        HeaderName,
        "The header field that names a request's session, for the policy `session`; without it `prompt_cache_key` or `user` of the body.",
    ),
    key(
        "proxy.routing.default_model",
        Text,
        "The model whose backends get what is passed through and names none: other methods than POST, other bodies \
         than JSON, forms without a `model` (docs/transformation.md).",
    )
    .or("none: only POST with a model is passed through"),
    key(
        "proxy.aliases",
        List(&Alias),
        "Further names of models: clients ask for ALIAS, backends get MODEL (docs/transformation.md).",
    ),
    key(
        "proxy.rewrites",
        List(&Rewrite),
        "Paths that are taken for others: what begins with FROM, as if it began with TO. The first that fits counts.",
    ),
    key(
        "proxy.headers.request_set",
        List(&HeaderField),
        "Header fields for backends, in place of what a client sent under that name. A value with a comma needs the \
         form [\"NAME: VALUE\"] in a variable.",
    ),
    key("proxy.headers.request_add", List(&HeaderField), "Header fields for backends, beside those."),
    key(
        "proxy.headers.request_remove",
        List(&HeaderName),
        "Header fields of clients that no backend gets.",
    ),
    key(
        "proxy.headers.response_set",
        List(&HeaderField),
        "Header fields for clients, in place of what a backend sent under that name; in the proxy's own answers too.",
    ),
    key("proxy.headers.response_add", List(&HeaderField), "Header fields for clients, beside those."),
    key(
        "proxy.headers.response_remove",
        List(&HeaderName),
        "Header fields of backends that no client gets.",
    ),
    key("proxy.body_bytes_max", Bytes(AT_LEAST_1), "Largest request body; 413 above."),
    key("proxy.body_bytes_total", Bytes(AT_LEAST_1), "All request bodies held at once; 503 above."),
    key(
        "proxy.limits.requests_max",
        Count(OPEN),
        "Requests in progress at once, whoever sent them; 503 `overloaded` with Retry-After above.",
    ),
    key(
        "proxy.limits.connections_max",
        Count(OPEN),
        "Client connections open at once; a further one is closed without an answer. Each takes a \
         file descriptor, and each request in progress another: the proxy raises its limit on them as \
         far as the system lets it, and warns where that is not enough.",
    ),
    key(
        "proxy.limits.concurrency_max",
        Count(OPEN),
        "Requests with backends at once, all models together; further ones wait.",
    )
    .or("no limit but each model's: as many as its backends compute together (backend.max_concurrency), if all of them tell"),
    key(
        "proxy.limits.queue",
        Boolean,
        "true: a request waits in the proxy until its model's backends have a place for it, and goes to whichever has one first. false: it is sent at once and waits in a backend, unless proxy.limits.concurrency_max holds it.",
    ),
    key(
        "proxy.limits.queue_max",
        Count(OPEN_OR_NONE),
        "Requests that may wait for a backend. When one more comes, the key with the most waiting loses its newest: 503 `queue_full`.",
    ),
    key(
        "proxy.limits.queue_timeout_ms",
        Milliseconds(AT_LEAST_1),
        "How long a request may wait for a backend; then 503 `queue_timeout`.",
    ),
    key(
        "proxy.limits.divide_among_proxies",
        Boolean,
        "true: proxy.limits.concurrency_max, proxy.key_limits.* and the limits of keys are those of all proxies together, of which each grants its share. false: each grants all of them.",
    ),
    key(
        "proxy.limits.answer_tokens_assumed",
        Count(AT_LEAST_1),
        "Tokens reserved for the answer to a request that sets no max_tokens.",
    ),
    key(
        "proxy.key_limits.concurrency_max",
        Count(AT_LEAST_1),
        "Requests in progress at once, the waiting among them; 429 `concurrency_limit_exceeded` above.",
    )
    .or("no limit"),
    key(
        "proxy.key_limits.requests_per_minute",
        Count(AT_LEAST_1),
        "Requests within any minute; 429 `rate_limit_exceeded` above.",
    )
    .or("no limit"),
    key(
        "proxy.key_limits.tokens_per_minute",
        Count(AT_LEAST_1),
        "Tokens of prompts and answers within any minute: those of the longest answer that a request allows are reserved when it comes, those not used come back when it ends; 429 `rate_limit_exceeded` above.",
    )
    .or("no limit"),
    key("proxy.timeouts.connect_ms", Milliseconds(AT_LEAST_1), "To connect to a backend."),
    key(
        "proxy.timeouts.first_byte_ms",
        Milliseconds(AT_LEAST_1),
        "From the request sent to the first byte of the answer; 504 above.",
    ),
    key(
        "proxy.timeouts.idle_ms",
        Milliseconds(AT_LEAST_1),
        "Between two pieces of an answer, and between two requests of one connection.",
    ),
    key(
        "proxy.timeouts.total_ms",
        Milliseconds(AT_LEAST_1),
        "From a request's header to the end of its answer, the time it waits included; 504 above, or the end of the stream with an error.",
    )
    .or("as long as it takes"),
    key(
        "proxy.timeouts.request_read_ms",
        Milliseconds(AT_LEAST_1),
        "For a client to send its body; 408 above.",
    ),
    key(
        "proxy.retry.attempts_max",
        Count(AT_LEAST_1),
        "Backends asked for one request, the first included; 1: no other is ever asked.",
    ),
    key(
        "proxy.retry.replays_max",
        Count(ANY),
        "Backends asked after one that took the request and died without an answer: it may have \
         begun on it. Within attempts_max; only for endpoints that are known to be safe to repeat.",
    ),
    key(
        "proxy.retry.budget",
        Ratio,
        "Retries that each request earns: 0.2 lets a fifth of the requests be sent to another backend. \
         Beyond that 10 a second are free; then the first failure is the answer, with x-should-retry: false.",
    ),
    key(
        "proxy.retry.eject_after",
        Count(ANY),
        "Failures in a row (no connection, no answer, one that broke off or stalled; never a status) after which \
         a backend is left alone for a while, at most half of them at a time; 0: never.",
    ),
    key(
        "proxy.retry.ejection_ms",
        Milliseconds(AT_LEAST_1),
        "For how long at first; doubled each time, up to a minute.",
    ),
    key(
        "proxy.keys_file",
        Path,
        "The API keys that clients need, one of which each request must then bring; `inferno key` makes \
         and changes it. Read again on SIGHUP.",
    )
    .or("none: whoever reaches the port may use every model"),
    key(
        "proxy.tls.cert_file",
        Path,
        "Certificate and its chain in PEM: the traffic port then speaks TLS 1.2 and 1.3, HTTP/2 and \
         HTTP/1.1 by ALPN. Needs key_file. Read again on SIGHUP.",
    )
    .or("none: plain HTTP"),
    key("proxy.tls.key_file", Path, "Private key of that certificate in PEM.").or("none"),
    key(
        "proxy.tls.client_ca_file",
        Path,
        "Certificates in PEM, one of which must have signed a client's certificate.",
    )
    .or("none: clients need no certificate"),
    key(
        "proxy.cors.allow_origins",
        List(&Origin),
        "The web pages that may call the API from a browser, by their origins, or `*` for all. Empty: none, and no \
         answer has a CORS header. It says which pages browsers let in, and is no protection: that is what keys are.",
    ),
    key(
        "proxy.cors.allow_headers",
        List(&HeaderName),
        "The header fields that those pages may send, besides the few that need no leave; `*`: whichever they ask \
         for, `authorization` among them.",
    ),
    key(
        "proxy.cors.expose_headers",
        List(&HeaderName),
        "The header fields of answers that those pages may read, besides the few that need no leave.",
    ),
    key(
        "proxy.cors.max_age_s",
        Count(DAY_S),
        "For how long a browser may remember what it was told before it asks again, in seconds.",
    ),
    key(
        "proxy.cors.allow_credentials",
        Boolean,
        "Pages may let the browser add cookies and client certificates. API keys in `authorization` do not need it. \
         Not with the origin `*`.",
    ),
    key(
        "proxy.drain_timeout_ms",
        Milliseconds(ANY),
        "How long running requests may take after SIGTERM; then they are cut.",
    ),
    key("backend.listen", Address, "Where the backend accepts inference requests."),
    key(
        "backend.proxies",
        List(&Operations),
        "Operations addresses of the proxies to register with: every address behind a name.",
    ),
    key("backend.advertise", Host, "Where proxies should send traffic to.")
        .or("per proxy, the local address of the route to it"),
    key(
        "backend.model",
        Text,
        "A catalogue name (see `inferno model list`) or the path of a GGUF file.",
    ),
    key(
        "backend.device",
        Device,
        "What computes: auto, cpu, or cuda:N for a GPU. This build computes on the CPU alone: auto \
         is cpu, cuda:N is refused at the start.",
    ),
    key("backend.threads", Count(AT_LEAST_1), "Threads for the model.")
        .or("the cores this process may use"),
    key("backend.kv_memory", Bytes(AT_LEAST_1), "Memory for the KV cache.")
        .or("a share of what this process may use"),
    key("backend.max_concurrency", Count(CONCURRENCY), "Sequences computed together."),
    key("backend.queue_max", Count(ANY), "Requests that may wait beyond those; 503 above."),
    key(
        "backend.queue_tokens_max",
        Count(AT_LEAST_1),
        "Tokens of the prompts of those that wait, though one alone may have more; 503 above.",
    ),
    key(
        "backend.reader_timeout_ms",
        Milliseconds(AT_LEAST_1),
        "How long a client may not read its answer, which stands still meanwhile; then it is given up.",
    ),
    key(
        "backend.request_timeout_ms",
        Milliseconds(AT_LEAST_1),
        "How long a request may take in all, the time in the queue included; 504 above.",
    )
    .or("as long as it takes"),
    key("backend.context_max", Count(AT_LEAST_1), "Longest prompt plus answer, in tokens.")
        .or("the model's"),
    key("backend.body_bytes_max", Bytes(AT_LEAST_1), "Largest request body; 413 above."),
    key(
        "backend.drain_timeout_ms",
        Milliseconds(ANY),
        "How long running requests may take after SIGTERM; then they are cut.",
    ),
];

/// What the keys of each table are about, in the order of the reference.
pub(super) const TABLES: &[(&str, &str)] = &[
    ("node", "This process among the others."),
    ("log", "What is logged, and how. Logs go to standard error."),
    (
        "telemetry.otlp",
        "Traces for an OpenTelemetry collector (OTLP over HTTP). docs/logs.md has more.",
    ),
    ("operations", "The operations server of this process: health, metrics, registration."),
    ("operations.tls", "TLS on that port, and towards the operations ports of other nodes."),
    (
        "registration",
        "Who may register with a proxy, and for how long. Proxy and backend both read it.",
    ),
    ("health", "How a proxy checks its nodes."),
    ("proxy", "The proxy's traffic side. A backend ignores it."),
    ("proxy.routing", "Which backend gets a request."),
    (
        "proxy.headers",
        "Which header fields are changed on their way. docs/transformation.md says which may not be.",
    ),
    ("proxy.limits", "How much the proxy holds open at once, and how much of it may wait."),
    (
        "proxy.key_limits",
        "What each API key may that has no limit of its own (`inferno key create`); without keys, what all clients may together.",
    ),
    ("proxy.timeouts", "The proxy's patience at each stage of a request."),
    ("proxy.retry", "When the proxy asks another backend: never after a byte of an answer came."),
    ("proxy.tls", "TLS between clients and the proxy."),
    ("proxy.cors", "Which web pages may call the API from a browser (CORS)."),
    ("backend", "The backend's inference side. A proxy ignores it."),
];

/// The key of that dotted name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all keys, after those of all tables if they are wanted too.
pub(super) fn names(tables: bool) -> impl Iterator<Item = &'static str> {
    let tables = TABLES.iter().filter(move |_| tables).map(|(table, _)| *table);
    tables.chain(KEYS.iter().map(|key| key.name))
}

/// The keys of each table, as `TABLES` orders them.
pub(super) fn by_table() -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static Key>)> {
    TABLES.iter().map(|(table, about)| {
        let keys = KEYS.iter().filter(|key| key.table() == *table);
        (*table, *about, keys.collect())
    })
}

/// The names of the keys in the table `name`, if it is one.
pub(super) fn table(name: &str) -> Option<Vec<&'static str>> {
    let inside = |key: &&Key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let keys: Vec<_> = KEYS.iter().filter(inside).map(|key| key.name).collect();
    (!keys.is_empty()).then_some(keys)
}
