//! The typed configuration. Every field's meaning and default stand in [`super::keys::KEYS`].

use super::{Alias, ByteSize, Device, HeaderField, Rewrite, Secret};
use crate::registration::secrets::SecretSource;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// Everything that one process can be told, whichever program it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This process's identity.
    pub node: NodeConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
    /// The operations server of this process.
    pub operations: OperationsConfig,
    /// Who may register, and for how long.
    pub registration: RegistrationConfig,
    /// How a proxy checks its nodes.
    pub health: HealthConfig,
    /// The proxy's traffic side.
    pub proxy: ProxyConfig,
    /// The backend's inference side.
    pub backend: BackendConfig,
    /// What was odd about where it came from; logged once logging is up.
    #[serde(skip)]
    pub notices: Notices,
}

/// Oddities of a configuration that are no errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// Worth a warning.
    pub warnings: Vec<String>,
    /// Variables that a container platform injected and nobody meant for us.
    pub injected: Vec<String>,
}

impl Notices {
    /// Adds those of another source.
    pub(super) fn extend(&mut self, more: Self) {
        self.warnings.extend(more.warnings);
        self.injected.extend(more.injected);
    }
}

/// `node.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// 1–128 of `[A-Za-z0-9._-]`; none: host name and a random suffix.
    pub id: Option<String>,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or tracing's filter directives.
    pub level: String,
    /// Shape of a log line.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `telemetry.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Export by OpenTelemetry's protocol.
    pub otlp: OtlpConfig,
}

/// `telemetry.otlp.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where spans are posted; none: nowhere.
    pub endpoint: Option<String>,
    /// `name=value,…`, sent along.
    pub headers: Option<Secret>,
    /// The file that holds them.
    pub headers_file: Option<PathBuf>,
    /// How long one post may take.
    pub timeout_ms: u64,
    /// The share of the traces that begin here which is recorded.
    pub sample_ratio: f64,
}

/// `operations.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperationsConfig {
    /// Where the operations server listens.
    pub addr: SocketAddr,
    /// False: `/metrics` and `/telemetry` are 404.
    pub enable_metrics: bool,
    /// TLS on this port, and towards other nodes' operations ports.
    pub tls: TlsConfig,
}

/// `operations.tls.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// This node's certificate and its chain, PEM; none: plain HTTP.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Whom to trust when speaking to other nodes, PEM; none: whom the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// `registration.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationConfig {
    /// The shared secret.
    pub secret: Option<Secret>,
    /// The file that `secret` was read from.
    pub secret_file: Option<PathBuf>,
    /// Files that hold the shared secret: the first is sent, all are accepted.
    pub secret_files: Vec<PathBuf>,
    /// Where registered nodes may live.
    pub allowed_networks: Vec<IpNet>,
    /// How long a registration holds without renewal.
    pub lease_ms: u64,
    /// Accept registrations off loopback without a secret. Dangerous, therefore in so many words.
    pub allow_unauthenticated: bool,
}

/// `health.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Between two checks of one node.
    pub interval_ms: u64,
    /// How long one check may take.
    pub timeout_ms: u64,
}

/// `proxy.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where traffic is accepted.
    pub listen: SocketAddr,
    /// Operations addresses to introduce this proxy to: other proxies, or backends.
    pub peers: Vec<String>,
    /// `host:port` that other nodes should know it by; none: the local address of the route to each.
    pub advertise: Option<String>,
    /// How a backend is chosen.
    pub routing: RoutingConfig,
    /// Further names of models.
    pub aliases: Vec<Alias>,
    /// Paths that are taken for others.
    pub rewrites: Vec<Rewrite>,
    /// Header fields that are changed.
    pub headers: ProxyHeaders,
    /// Largest request body; 413 above.
    pub body_bytes_max: ByteSize,
    /// All request bodies held at once; 503 above.
    pub body_bytes_total: ByteSize,
    /// How much may be open at once.
    pub limits: ProxyLimits,
    /// What each key may that has no limit of its own.
    pub key_limits: KeyLimits,
    /// Patience at each stage of a request.
    pub timeouts: ProxyTimeouts,
    /// When another backend is asked.
    pub retry: ProxyRetry,
    /// Who may use the traffic port; none: anyone.
    pub keys_file: Option<PathBuf>,
    /// TLS for clients.
    pub tls: ProxyTls,
    /// Which web pages may use it.
    pub cors: ProxyCors,
    /// How long running requests may take to finish after SIGTERM.
    pub drain_timeout_ms: u64,
}

/// `proxy.routing.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// The policy's name.
    pub policy: RoutingPolicy,
    /// The header field that names a request's session.
    pub session_header: String,
    /// Whose backends get what is passed through and names no model; none: nobody's.
    pub default_model: Option<String>,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            policy: RoutingPolicy::default(),
            session_header: "x-session-id".into(),
            default_model: None,
        }
    }
}

/// `proxy.headers.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyHeaders {
    /// Put into requests to backends, in place of what clients sent under that name.
    pub request_set: Vec<HeaderField>,
    /// Put there beside it.
    pub request_add: Vec<HeaderField>,
    /// Names of what clients send and no backend gets.
    pub request_remove: Vec<String>,
    /// Put into answers to clients, in place of what backends sent under that name.
    pub response_set: Vec<HeaderField>,
    /// Put there beside it.
    pub response_add: Vec<HeaderField>,
    /// Names of what backends send and no client gets.
    pub response_remove: Vec<String>,
}

/// How a backend is chosen among those that serve the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingPolicy {
    /// Where most of the prompt is cached, weighed against what waits there.
    #[default]
    Prefix,
    /// The one with the least work outstanding.
    LeastOutstanding,
    /// The one of two at random with less work outstanding.
    PowerOfTwo,
    /// Each in turn.
    RoundRobin,
    /// The one that would be used the least, by the `max_concurrency` it registered with.
    Weighted,
    /// The same one for a session as long as it is there.
    Session,
}

/// `proxy.limits.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyLimits {
    /// Requests in progress; 503 above.
    pub requests_max: usize,
    /// Open client connections; closed at once above.
    pub connections_max: usize,
    /// Requests with backends; further ones wait. None: as many as a model's backends compute together.
    pub concurrency_max: Option<usize>,
    /// Requests wait for a place with a backend.
    pub queue: bool,
    /// Requests that wait; 503 above.
    pub queue_max: usize,
    /// For how long; then 503.
    pub queue_timeout_ms: u64,
    /// The limits are those of all proxies together.
    pub divide_among_proxies: bool,
    /// Reserved for an answer of unknown length.
    pub answer_tokens_assumed: u64,
}

/// `proxy.key_limits.*`, and what a key in the keys file has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests in progress; 429 above.
    pub concurrency_max: Option<u64>,
    /// Requests within any minute; 429 above.
    pub requests_per_minute: Option<u64>,
    /// Tokens within any minute; 429 above.
    pub tokens_per_minute: Option<u64>,
}

impl KeyLimits {
    /// These, and where there is none, those of `others`.
    pub fn over(&self, others: &Self) -> Self {
        Self {
            concurrency_max: self.concurrency_max.or(others.concurrency_max),
            requests_per_minute: self.requests_per_minute.or(others.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(others.tokens_per_minute),
        }
    }
}

/// `proxy.retry.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyRetry {
    /// Backends asked for one request.
    pub attempts_max: usize,
    /// Backends asked after one that took the request and died without an answer.
    pub replays_max: usize,
    /// Retries that each request earns.
    pub budget: f64,
    /// Failures in a row before a backend is left alone; 0: never.
    pub eject_after: usize,
    /// For how long at first.
    pub ejection_ms: u64,
}

/// `proxy.tls.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyTls {
    /// The proxy's certificate and its chain, PEM; none: plain HTTP.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Certificates, PEM, one of which must have signed a client's; none: clients need none.
    pub client_ca_file: Option<PathBuf>,
}

/// `proxy.cors.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyCors {
    /// Whose pages may call the API: origins, or `*`; none: nobody is told anything of CORS.
    pub allow_origins: Vec<String>,
    /// The request's header fields that they may set; `*`: whichever they ask for.
    pub allow_headers: Vec<String>,
    /// The answer's header fields that they may read.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember what it was allowed, seconds.
    pub max_age_s: u64,
    /// Their requests may bring cookies and client certificates.
    pub allow_credentials: bool,
}

/// `proxy.timeouts.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyTimeouts {
    /// To connect to a backend.
    pub connect_ms: u64,
    /// From the request sent to the first byte of the answer.
    pub first_byte_ms: u64,
    /// Between two pieces of an answer, and between two requests of one connection.
    pub idle_ms: u64,
    /// From a request's header to the end of its answer; none: as long as it takes.
    pub total_ms: Option<u64>,
    /// For a client to send its body.
    pub request_read_ms: u64,
}

/// `backend.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendConfig {
    /// Where inference requests are accepted.
    pub listen: SocketAddr,
    /// Operations addresses (`host:port`) of the proxies to register with.
    pub proxies: Vec<String>,
    /// The address proxies should send traffic to; none: the local address of the route to each.
    pub advertise: Option<String>,
    /// A catalogue name or the path of a GGUF file.
    pub model: String,
    /// What computes the model.
    pub device: Device,
    /// Threads for the model; none: the cores this process may use.
    pub threads: Option<usize>,
    /// Memory for the KV cache; none: a share of what this process may use.
    pub kv_memory: Option<ByteSize>,
    /// Sequences computed together.
    pub max_concurrency: usize,
    /// Requests waiting beyond those; 503 above.
    pub queue_max: usize,
    /// Tokens of the prompts of those that wait; 503 above.
    pub queue_tokens_max: usize,
    /// How long a client may not read its answer before it is given up.
    pub reader_timeout_ms: u64,
    /// How long a request may take in all; none: as long as it takes.
    pub request_timeout_ms: Option<u64>,
    /// Longest prompt plus answer, in tokens; none: the model's.
    pub context_max: Option<usize>,
    /// Largest request body; 413 above.
    pub body_bytes_max: ByteSize,
    /// How long running requests may take to finish after SIGTERM.
    pub drain_timeout_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: None,
            headers_file: None,
            timeout_ms: 5_000,
            sample_ratio: 1.0,
        }
    }
}

impl Default for OperationsConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 6100)),
            enable_metrics: true,
            tls: TlsConfig::default(),
        }
    }
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            secret_files: Vec::new(),
            allowed_networks: private_networks(),
            lease_ms: 10_000,
            allow_unauthenticated: false,
        }
    }
}

/// Loopback (RFC 1122, RFC 4291) and the private networks of RFC 1918, RFC 6598 and RFC 4193.
fn private_networks() -> Vec<IpNet> {
    [
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    ]
    .iter()
    .filter_map(|network| network.parse().ok())
    .collect()
}

impl RegistrationConfig {
    /// Nobody off loopback may register, nor be registered.
    pub fn is_loopback_only(&self) -> bool {
        self.secret_sources().is_empty() && !self.allow_unauthenticated
    }

    /// Where the shared secrets come from, the one to send first; none: registration is open.
    pub fn secret_sources(&self) -> Vec<SecretSource> {
        match (&self.secret_file, &self.secret) {
            (Some(file), _) => vec![SecretSource::File("registration.secret_file", file.clone())],
            (None, Some(secret)) => {
                vec![SecretSource::Value("registration.secret", secret.clone())]
            }
            (None, None) => {
                let file =
                    |file: &PathBuf| SecretSource::File("registration.secret_files", file.clone());
                self.secret_files.iter().map(file).collect()
            }
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { interval_ms: 1_000, timeout_ms: 500 }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            peers: Vec::new(),
            advertise: None,
            routing: RoutingConfig::default(),
            aliases: Vec::new(),
            rewrites: Vec::new(),
            headers: ProxyHeaders::default(),
            body_bytes_max: ByteSize::mib(16),
            body_bytes_total: ByteSize::mib(512),
            limits: ProxyLimits::default(),
            key_limits: KeyLimits::default(),
            timeouts: ProxyTimeouts::default(),
            retry: ProxyRetry::default(),
            keys_file: None,
            tls: ProxyTls::default(),
            cors: ProxyCors::default(),
            drain_timeout_ms: 30_000,
        }
    }
}

impl Default for ProxyCors {
    fn default() -> Self {
        Self {
            allow_origins: Vec::new(),
            allow_headers: vec!["*".into()],
            expose_headers: [
                "x-request-id",
                "retry-after",
                "retry-after-ms",
                "x-should-retry",
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ]
            .map(Into::into)
            .into(),
            max_age_s: 600,
            allow_credentials: false,
        }
    }
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            requests_max: 4_096,
            connections_max: 8_192,
            concurrency_max: None,
            queue: true,
            queue_max: 1_024,
            queue_timeout_ms: 60_000,
            divide_among_proxies: true,
            answer_tokens_assumed: 512,
        }
    }
}

impl Default for ProxyRetry {
    fn default() -> Self {
        Self { attempts_max: 4, replays_max: 1, budget: 0.2, eject_after: 3, ejection_ms: 1000 }
    }
}

impl Default for ProxyTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: 2_000,
            first_byte_ms: 600_000,
            idle_ms: 60_000,
            total_ms: None,
            request_read_ms: 30_000,
        }
    }
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            proxies: Vec::new(),
            advertise: None,
            model: "smollm2-135m-instruct".into(),
            device: Device::Auto,
            threads: None,
            kv_memory: None,
            max_concurrency: 256,
            queue_max: 1_024,
            queue_tokens_max: 1 << 20,
            reader_timeout_ms: 30_000,
            request_timeout_ms: None,
            context_max: None,
            body_bytes_max: ByteSize::mib(16),
            drain_timeout_ms: 30_000,
        }
    }
}
