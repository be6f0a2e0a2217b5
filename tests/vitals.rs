//! What a node says of itself is true: its counts, its averages, its use of the machine.

use inferno_tests::{MODEL, client::Client, fleet::Fleet, wait_for};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Instant};

async fn vitals(operations: SocketAddr) -> Value {
    Client::new().get(operations, "/metrics").await.ok()
}

/// The vitals once nothing is in progress: a request ends a little after its answer.
async fn settled(operations: SocketAddr) -> Value {
    wait_for("nothing is in progress", || async {
        let vitals = vitals(operations).await;
        (vitals["requests_in_progress"] == 0).then_some(vitals)
    })
    .await
}

fn counts(vitals: &Value) -> [Option<u64>; 3] {
    ["requests_total", "failed_responses", "backoff_requests"].map(|field| vitals[field].as_u64())
}

#[tokio::test]
async fn a_refusal_is_no_failure_on_proxy_and_backend() {
    let mut fleet = Fleet::proxy_only(&[]);
    fleet.add_backend(&["backend.queue_max=0"]);
    fleet.wait_for_state("backend-1", "ready").await;
    let refused = fleet.post("/v1/completions", &json!({"model": MODEL, "prompt": "x"})).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(fleet.get("/v1/nothing").await.status, 404);
    assert_eq!(counts(&settled(fleet.operations).await), [Some(2), Some(0), Some(1)]);
    let backend = settled(fleet.backends[0].operations).await;
    assert_eq!(counts(&backend), [Some(1), Some(0), Some(1)], "{backend}");
}

#[tokio::test]
async fn the_average_response_is_what_a_client_feels() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "x", "max_tokens": 40, "ignore_eos": true});
    let began = Instant::now();
    fleet.post("/v1/completions", &body).await.ok();
    let backend = settled(fleet.backends[0].operations).await["average_response_ms"].as_f64();
    let proxy = settled(fleet.operations).await["average_response_ms"].as_f64();
    let felt_ms = began.elapsed().as_secs_f64() * 1e3;
    assert!(Some(0.0) < backend && backend <= proxy, "{backend:?} inside of {proxy:?}");
    assert!(proxy <= Some(felt_ms), "{proxy:?} inside of {felt_ms}");
    let text = Client::new().get(fleet.operations, "/telemetry").await.body;
    let seconds = text.lines().find_map(|line| {
        line.strip_prefix("inferno_node_average_response_seconds ")?.parse::<f64>().ok()
    });
    let difference = seconds.expect("it is told") - proxy.expect("a number") / 1e3;
    assert!(difference.abs() < 1e-9, "{seconds:?} and {proxy:?}");
}

#[tokio::test]
async fn a_backend_at_work_shows_its_use_of_the_processor() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 2_000, "stream": true,
        "ignore_eos": true});
    let events = Client::new().stream(fleet.traffic, "/v1/completions", &body).await;
    let busy = wait_for("it uses the processor, and makes tokens", || async {
        let vitals = fleet.vitals(0).await;
        let works = vitals["cpu_usage"].as_f64() > Some(1.0)
            && vitals["tokens_per_second"].as_f64() > Some(0.0);
        works.then_some(vitals)
    })
    .await;
    drop(events);
    assert!(busy["cpu_usage"].as_f64() < Some(110.0), "{busy}");
    assert!(busy["kv_cache_usage"].as_f64() > Some(0.0), "{busy}");
    let memory = busy["memory_usage"].as_f64();
    assert!(memory > Some(0.0) && memory < Some(100.0), "{busy}");
}
