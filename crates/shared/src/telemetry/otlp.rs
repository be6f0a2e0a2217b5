//! Spans on their way to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! Nothing of this is on the data path but one push to a bounded queue. OpenTelemetry's batch
//! processor takes from it on a thread of its own and hands batches to [`Collector`], which posts
//! each once, within `telemetry.otlp.timeout_ms`. A batch that is not taken is dropped and counted:
//! spans are not worth memory that grows while a collector is away. It is told once when that begins
//! and once when it is over.

use super::{
    TelemetryError,
    format::Origin,
    metrics::{SPANS_DROPPED, SPANS_EXPORTED},
    trace_context::TraceId,
};
use crate::config::OtlpConfig;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};
use prost::Message;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use ureq::{
    Agent,
    http::{HeaderName, HeaderValue},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// Spans that may wait, those being sent included.
const QUEUE_MAX: usize = 4_096;
/// Spans in one request to the collector.
const BATCH_MAX: usize = 512;
/// How long a span may wait for others to travel with.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// How long the end of the process waits for the last batches.
pub(super) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// Who collects this process's spans.
static EXPORT: OnceLock<Export> = OnceLock::new();

struct Export {
    processor: BatchSpanProcessor,
    pending: Arc<AtomicUsize>,
    /// Trace ids whose last 63 bits are below this are sampled.
    threshold: u64,
}

/// Whether spans are exported.
pub(super) fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// Whether a trace that begins here is recorded, told from its id, so that every process would
/// decide the same.
pub(super) fn samples(trace_id: TraceId) -> bool {
    EXPORT.get().is_some_and(|export| tail(trace_id) < export.threshold)
}

/// The last eight bytes, less one bit, as OpenTelemetry's own `TraceIdRatioBased` has it.
fn tail(trace_id: TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = trace_id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64
}

/// Puts a span into the queue, or drops it.
pub(super) fn export(span: SpanData) {
    let Some(export) = EXPORT.get() else { return };
    if export.pending.fetch_add(1, Relaxed) >= QUEUE_MAX {
        export.pending.fetch_sub(1, Relaxed);
        SPANS_DROPPED.inc();
        return;
    }
    export.processor.on_end(span);
}

/// Begins to export, if a collector is configured.
///
/// # Errors
/// If it cannot be used as configured.
pub(super) fn start(config: &OtlpConfig, origin: &Origin) -> Result<(), TelemetryError> {
    let Some(collector) = Collector::new(config, origin)? else { return Ok(()) };
    let pending = Arc::clone(&collector.pending);
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let processor = BatchSpanProcessor::new(collector, batches);
    let threshold = threshold(config.sample_ratio);
    // Only the first call sets anything up.
    drop(EXPORT.set(Export { processor, pending, threshold }));
    Ok(())
}

/// Whether `config` can be used.
///
/// # Errors
/// If not.
pub(super) fn check(config: &OtlpConfig) -> Result<(), TelemetryError> {
    headers(config).map(drop)
}

/// Sends what waits, and gives up after [`SHUTDOWN_PATIENCE`].
pub(super) fn finish() {
    let Some(export) = EXPORT.get() else { return };
    if export.processor.shutdown_with_timeout(SHUTDOWN_PATIENCE).is_err() {
        let lost = export.pending.load(Relaxed);
        tracing::warn!(lost, "the last spans were not exported");
    }
}

/// The collector, as the batch processor sees it.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    endpoint: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    resource: ResourceAttributesWithSchema,
    pending: Arc<AtomicUsize>,
    away: AtomicBool,
}

impl Collector {
    fn new(config: &OtlpConfig, origin: &Origin) -> Result<Option<Self>, TelemetryError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let endpoint = traces_at(endpoint);
        let mut agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(config.timeout_ms)))
            .http_status_as_error(false)
            .max_redirects(0)
            // Where spans go is what the configuration says, not `HTTP_PROXY`.
            .proxy(None)
            .user_agent(concat!("inferno/", env!("CARGO_PKG_VERSION")));
        if endpoint.starts_with("https:") {
            agent = agent.tls_config(TlsConfig::builder().root_certs(system_roots()?).build());
        }
        let attributes = [
            KeyValue::new("service.name", origin.service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", origin.node_id.clone()),
        ];
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        Ok(Some(Self {
            agent: agent.build().new_agent(),
            endpoint,
            headers: headers(config)?,
            resource: (&resource).into(),
            pending: Arc::default(),
            away: AtomicBool::new(false),
        }))
    }

    /// Posts one batch, once.
    fn post(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut request =
            self.agent.post(&self.endpoint).header("content-type", "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(&body).map_err(|error| error.to_string())?;
        // Read to its end, the connection can be used again.
        let read = answer.body_mut().read_to_vec();
        match answer.status().is_success() {
            true => read.map(drop).map_err(|error| error.to_string()),
            false => Err(format!("it answered {}", answer.status())),
        }
    }

    /// Tells it when it changes.
    fn note(&self, outcome: &Result<(), String>) {
        let away = outcome.is_err();
        if self.away.swap(away, Relaxed) == away {
            return;
        }
        if let Err(reason) = outcome {
            tracing::warn!(%reason, "the OpenTelemetry collector takes no spans; they are dropped and counted");
        } else {
            tracing::info!("the OpenTelemetry collector takes spans again");
        }
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        // Blocking is fine: the processor's thread does nothing else.
        let outcome = self.post(batch);
        let counter = if outcome.is_ok() { &SPANS_EXPORTED } else { &SPANS_DROPPED };
        counter.inc_by(spans as u64);
        self.pending.fetch_sub(spans, Relaxed);
        self.note(&outcome);
        outcome.map_err(OTelSdkError::InternalFailure)
    }
}

/// The address that takes traces: as it stands, or at the usual path if it has none.
fn traces_at(endpoint: &str) -> String {
    let path = endpoint.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    match path {
        None | Some((_, "")) => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
        Some(_) => endpoint.to_owned(),
    }
}

fn system_roots() -> Result<RootCerts, TelemetryError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(TelemetryError::NoCertificates);
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).into())
}

/// `name=value,name=value`, as `OTEL_EXPORTER_OTLP_HEADERS` has it.
fn headers(config: &OtlpConfig) -> Result<Vec<(HeaderName, HeaderValue)>, TelemetryError> {
    let Some(headers) = &config.headers else { return Ok(Vec::new()) };
    let pairs = headers.expose().split(',').map(str::trim).filter(|pair| !pair.is_empty());
    // The text is a secret: what is wrong with it is told by its place alone.
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    let read = |(index, pair)| header(pair).ok_or(TelemetryError::Header { nth: index + 1 });
    pairs.enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn headers_are_pairs_and_an_error_does_not_quote_them() {
        let config = |headers: &str| OtlpConfig {
            headers: Some(Secret::new(headers)),
            ..OtlpConfig::default()
        };
        let read = headers(&config("authorization=Bearer a=b, x-scope = 7,")).expect("two");
        let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(read, [("authorization", &b"Bearer a=b"[..]), ("x-scope", b"7")]);
        for bad in ["canary", "x=1,canary", "ca nary=1", "x=\u{1}canary"] {
            let error = headers(&config(bad)).expect_err("refused").to_string();
            assert!(error.contains("telemetry.otlp.headers"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_without_a_path_has_the_usual_one() {
        for (endpoint, traces) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
        ] {
            assert_eq!(traces_at(endpoint), traces);
        }
    }

    #[test]
    fn a_ratio_samples_its_share_of_traces() {
        let taken = |ratio: f64| {
            let below = |_: &u32| tail(TraceId::random()) < threshold(ratio);
            (0..10_000).filter(below).count()
        };
        assert_eq!(taken(1.0), 10_000);
        assert_eq!(taken(0.0), 0);
        // Six standard deviations: this fails once in a hundred million runs.
        assert!((2_240..=2_760).contains(&taken(0.25)), "about a quarter");
    }
}
