//! Spans at an OpenTelemetry collector: a real one's port and protocol (OTLP over HTTP, protobuf), with
//! a collector of ours behind it, for the real one cannot be had here. Waiting for a process blocks a
//! thread, and the collector must go on meanwhile: hence two.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use inferno_tests::{MODEL, client::Client, fleet::Fleet, process::Process, wait_for};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::json;
use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// One span, and the service it is of.
#[derive(Clone)]
struct Seen {
    service: HashMap<String, String>,
    span: Span,
}

impl Seen {
    fn attribute(&self, key: &str) -> Option<String> {
        attributes(&self.span.attributes).remove(key)
    }
}

fn attributes(pairs: &[KeyValue]) -> HashMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.clone().and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// Takes spans as an OpenTelemetry collector does.
#[derive(Clone, Default)]
struct Collector {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Bodies as they came, to search.
    raw: Arc<Mutex<Vec<u8>>>,
    refusing: Arc<Mutex<bool>>,
}

impl Collector {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                let service = hyper::service::service_fn(move |request| {
                    let collector = collector.clone();
                    async move { Ok::<_, Infallible>(collector.take(request).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        assert_eq!(request.uri().path(), "/v1/traces");
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        assert_eq!(request.headers()["authorization"], "Bearer collectors-secret");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let mut response = Response::new(Full::default());
        if *self.refusing.lock().expect("no panic") {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        self.raw.lock().expect("no panic").extend_from_slice(&body);
        let export = ExportTraceServiceRequest::decode(body).expect("OTLP");
        for resource in export.resource_spans {
            let service = attributes(&resource.resource.expect("a resource").attributes);
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let seen = spans.map(|span| Seen { service: service.clone(), span });
            self.seen.lock().expect("no panic").extend(seen);
        }
        response
    }

    /// Waits for `count` spans of a trace.
    async fn trace(&self, trace_id: &str, count: usize) -> Vec<Seen> {
        wait_for(&format!("{count} spans of {trace_id}"), || async {
            let seen = self.seen.lock().expect("no panic").clone();
            let of_it = |seen: &Seen| hex(&seen.span.trace_id) == trace_id;
            let spans: Vec<Seen> = seen.into_iter().filter(of_it).collect();
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const HEADERS: &str = "telemetry.otlp.headers=authorization=Bearer collectors-secret";

/// A proxy and a backend that export to `endpoint`.
async fn fleet(endpoint: &str, more: &[&str]) -> Fleet {
    let endpoint = format!("telemetry.otlp.endpoint={endpoint}");
    let mut settings = vec![endpoint.as_str(), HEADERS];
    settings.extend(more);
    let mut fleet = Fleet::proxy_only(&settings);
    fleet.add_backend(&settings);
    fleet.wait_for_state("backend-1", "ready").await;
    fleet
}

async fn complete(fleet: &Fleet, headers: &[(&str, &str)]) -> String {
    let body = json!({"model": MODEL, "prompt": "Kanarienvogel, sing", "max_tokens": 12,
        "ignore_eos": true, "temperature": 0, "user": "Kanarienvogel"});
    let client = Client::new();
    let sent = client.post_with(fleet.traffic, "/v1/completions", headers, body.to_string());
    let answer = sent.await.ok();
    answer["choices"][0]["text"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_of_a_request_are_one_tree_without_content() {
    let collector = Collector::default();
    let address = collector.start().await;
    let fleet = fleet(&format!("http://{address}"), &[]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "req-canary")];
    let said = complete(&fleet, &headers).await;
    let spans = collector.trace(trace, 6).await;
    let find = |service: &str, name: &str| {
        let of = |seen: &&Seen| seen.service["service.name"] == service && seen.span.name == name;
        let mut found = spans.iter().filter(of);
        let (Some(seen), None) = (found.next(), found.next()) else { panic!("one {name}") };
        seen
    };
    let proxy = find("inferno-proxy", "POST /v1/completions");
    let attempt = find("inferno-proxy", "POST");
    let backend = find("inferno-backend", "POST /v1/completions");
    let stages = ["queue", "prefill", "decode"].map(|stage| find("inferno-backend", stage));
    assert_eq!(hex(&proxy.span.parent_span_id), "b7ad6b7169203331");
    assert_eq!(attempt.span.parent_span_id, proxy.span.span_id);
    assert_eq!(backend.span.parent_span_id, attempt.span.span_id);
    for (seen, kind) in
        [(proxy, SpanKind::Server), (attempt, SpanKind::Client), (backend, SpanKind::Server)]
    {
        assert_eq!(seen.span.kind(), kind, "{}", seen.span.name);
        assert_eq!(seen.attribute("http.response.status_code").as_deref(), Some("200"));
    }
    for pair in stages.windows(2) {
        assert_eq!(pair[0].span.end_time_unix_nano, pair[1].span.start_time_unix_nano);
    }
    for stage in stages {
        assert_eq!(stage.span.parent_span_id, backend.span.span_id);
        assert!(stage.span.start_time_unix_nano >= backend.span.start_time_unix_nano);
        assert!(stage.span.end_time_unix_nano <= backend.span.end_time_unix_nano);
    }
    assert_eq!(proxy.attribute("inferno.request.id").as_deref(), Some("req-canary"));
    assert_eq!(attempt.attribute("inferno.backend.id").as_deref(), Some("backend-1"));
    assert_eq!(backend.service["service.instance.id"], "backend-1");
    assert_eq!(backend.service["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(backend.attribute("gen_ai.operation.name").as_deref(), Some("text_completion"));
    assert_eq!(backend.attribute("gen_ai.request.model").as_deref(), Some(MODEL));
    assert_eq!(backend.attribute("gen_ai.usage.output_tokens").as_deref(), Some("12"));
    let raw = String::from_utf8_lossy(&collector.raw.lock().expect("no panic")).into_owned();
    assert!(raw.contains("req-canary"), "the search would find something");
    for content in ["Kanarienvogel", said.trim()] {
        assert!(!content.is_empty() && !raw.contains(content), "{content} was exported");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_began_the_trace_decides_and_else_the_ratio() {
    let collector = Collector::default();
    let address = collector.start().await;
    let none = ["telemetry.otlp.sample_ratio=0"];
    let fleet = fleet(&format!("http://{address}/v1/traces"), &none).await;
    let id = |digit: char| digit.to_string().repeat(32);
    for (digit, flags) in [('1', "00"), ('2', "01")] {
        let parent = format!("00-{}-b7ad6b7169203331-{flags}", id(digit));
        complete(&fleet, &[("traceparent", &parent)]).await;
    }
    complete(&fleet, &[]).await;
    collector.trace(&id('2'), 6).await;
    // A process at its end has sent all it ever will.
    let (mut proxy, mut backends) = (fleet.proxy, fleet.backends);
    for process in [&mut backends[0].process, &mut proxy] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    let seen = collector.seen.lock().expect("no panic");
    let traces: Vec<String> = seen.iter().map(|seen| hex(&seen.span.trace_id)).collect();
    assert!(traces.iter().all(|trace| *trace == id('2')), "{traces:?}");
    assert_eq!(traces.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_process_sends_its_last_spans() {
    let collector = Collector::default();
    let address = collector.start().await;
    let mut fleet = fleet(&format!("http://{address}"), &[]).await;
    complete(&fleet, &[]).await;
    for process in [&mut fleet.backends[0].process, &mut fleet.proxy] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    assert_eq!(collector.seen.lock().expect("no panic").len(), 6);
}

async fn counter(operations: SocketAddr, name: &str) -> u64 {
    let text = Client::new().get(operations, "/telemetry").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn count_lines(process: &Process, text: &str) -> usize {
    process.log().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_costs_one_warning_and_no_request() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = unused.local_addr().expect("bound");
    drop(unused);
    let mut fleet = fleet(&format!("http://{address}"), &[]).await;
    let dropped = "inferno_spans_dropped_total";
    for batch in 1..=2 {
        let before = counter(fleet.operations, dropped).await;
        complete(&fleet, &[]).await;
        wait_for(&format!("batch {batch} is dropped"), || async {
            (counter(fleet.operations, dropped).await > before).then_some(())
        })
        .await;
    }
    assert_eq!(counter(fleet.operations, "inferno_spans_exported_total").await, 0);
    for process in [&mut fleet.backends[0].process, &mut fleet.proxy] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
        process.wait_for_end_of_log();
        assert_eq!(count_lines(process, "takes no spans"), 1, "{}", process.log());
        assert!(!process.log().contains("collectors-secret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_back_is_used_again() {
    let collector = Collector::default();
    *collector.refusing.lock().expect("no panic") = true;
    let address = collector.start().await;
    let fleet = fleet(&format!("http://{address}"), &[]).await;
    complete(&fleet, &[]).await;
    fleet.proxy.wait_for_text("takes no spans");
    assert_eq!(
        count_lines(&fleet.proxy, "it answered 503"),
        1,
        "the reason is told: {}",
        fleet.proxy.log()
    );
    *collector.refusing.lock().expect("no panic") = false;
    complete(&fleet, &[]).await;
    fleet.proxy.wait_for_text("takes spans again");
    assert_eq!(counter(fleet.operations, "inferno_spans_exported_total").await, 2);
    assert_eq!(counter(fleet.operations, "inferno_spans_dropped_total").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_holds_neither_a_request_nor_the_end_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    // Longer than a process at its end waits for the collector.
    let patient = ["telemetry.otlp.timeout_ms=3600000"];
    let mut fleet = fleet(&format!("http://{address}"), &patient).await;
    complete(&fleet, &[]).await;
    let (_held, _) = listener.accept().await.expect("the first batch, never answered");
    for _ in 0..20 {
        complete(&fleet, &[]).await;
    }
    for process in [&mut fleet.backends[0].process, &mut fleet.proxy] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    fleet.proxy.wait_for_end_of_log();
    assert!(fleet.proxy.log().contains("the last spans were not exported"));
}
