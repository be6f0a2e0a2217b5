//! Backends find their proxy, are believed, lost, and found again.

use inferno_tests::{client::Client, fleet::Fleet, wait_for};
use nix::sys::signal::Signal;

#[tokio::test]
async fn two_backends_register_and_one_that_is_killed_is_noticed() {
    let mut fleet = Fleet::start(2).await;
    let models = fleet.get("/v1/models").await.ok();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1), "a union, not a list of nodes");
    let killed = fleet.backends[0].id.clone();
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    fleet.wait_for_state(&killed, "gone").await;
    assert_eq!(fleet.state_of("backend-2").await.as_deref(), Some("ready"));
    assert_eq!(fleet.get("/v1/models").await.ok()["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_killed_backend_comes_back_under_its_name_as_a_newer_incarnation() {
    let mut fleet = Fleet::start(1).await;
    let before = fleet.peers().await[0]["generation"].as_u64().expect("a number");
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    fleet.backends.clear();
    fleet.add_backend(&[]);
    wait_for("the newer incarnation is ready", || async {
        let peers = fleet.peers().await;
        let newer = peers[0]["generation"].as_u64() > Some(before);
        (newer && peers[0]["state"] == "ready" && peers.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_paused_backend_is_suspect_then_gone_and_returns() {
    let fleet = Fleet::start(1).await;
    fleet.backends[0].process.signal(Signal::SIGSTOP);
    fleet.wait_for_state("backend-1", "gone").await;
    fleet.backends[0].process.signal(Signal::SIGCONT);
    fleet.wait_for_state("backend-1", "ready").await;
}

#[tokio::test]
async fn a_restarted_proxy_hears_of_its_backends_again() {
    let mut fleet = Fleet::start(1).await;
    fleet.restart_proxy();
    assert_eq!(fleet.get("/v1/models").await.ok()["data"].as_array().map(Vec::len), Some(0));
    fleet.wait_for_state("backend-1", "ready").await;
}

#[tokio::test]
async fn sigterm_drains_says_goodbye_and_exits_0() {
    let mut fleet = Fleet::start(1).await;
    let mut events = Client::new()
        .stream(
            fleet.traffic,
            "/v1/completions",
            &serde_json::json!({"model": inferno_tests::MODEL, "prompt": "Once", "max_tokens": 60,
                "stream": true, "temperature": 0, "ignore_eos": true}),
        )
        .await;
    events.next().await.expect("it has begun");
    fleet.backends[0].process.signal(Signal::SIGTERM);
    fleet.wait_for_state("backend-1", "draining").await;
    let error = fleet
        .post("/v1/completions", &serde_json::json!({"model": inferno_tests::MODEL, "prompt": "x"}))
        .await;
    assert_eq!(error.status, 503, "nobody else serves it: {}", error.body);
    let tokens = events.rest().await.len();
    assert!(tokens >= 50, "the stream was cut after {tokens} events");
    assert_eq!(fleet.backends[0].process.wait().code(), Some(0));
    fleet.wait_for_state("backend-1", "gone").await;
    fleet.proxy.signal(Signal::SIGTERM);
    assert_eq!(fleet.proxy.wait().code(), Some(0));
}

#[tokio::test]
async fn both_processes_answer_the_same_operations_routes() {
    let fleet = Fleet::start(1).await;
    let client = Client::new();
    for (operations, service) in
        [(fleet.operations, "inferno-proxy"), (fleet.backends[0].operations, "inferno-backend")]
    {
        let vitals = client.get(operations, "/metrics").await.ok();
        assert_eq!(vitals["service"], service);
        assert_eq!(vitals["ready"], true);
        assert_eq!(vitals["connected_peers"], 1, "{vitals}");
        assert!(vitals["memory_usage"].as_f64() > Some(0.0));
        assert_eq!(client.get(operations, "/health").await.body, "healthy");
        assert_eq!(client.get(operations, "/health/live").await.status, 200);
        let text = client.get(operations, "/telemetry").await.body;
        assert!(text.contains("inferno_node_uptime_seconds"), "{text}");
    }
    let text = client.get(fleet.backends[0].operations, "/telemetry").await.body;
    assert!(
        text.contains("vllm:num_requests_running{model_name=\"smollm2-135m-instruct\"} 0"),
        "{text}"
    );
    let elsewhere = client
        .post(
            fleet.backends[0].operations,
            "/registration",
            r#"{"id":"x","address":"127.0.0.1:1","metrics_port":1}"#,
        )
        .await;
    assert_eq!(elsewhere.status, 409);
    assert_eq!(elsewhere.json()["proxies"][0], fleet.operations.to_string());
}

#[tokio::test]
async fn the_traffic_port_has_no_operational_path() {
    let fleet = Fleet::proxy_only(&[]);
    for path in ["/metrics", "/health", "/telemetry", "/peers", "/registration"] {
        assert_eq!(fleet.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_proxy_counts_what_is_in_flight_and_gives_it_back() {
    let fleet = Fleet::start(1).await;
    let body = serde_json::json!({"model": inferno_tests::MODEL, "prompt": "Once", "max_tokens": 2_000,
        "stream": true, "ignore_eos": true});
    let mut events = Client::new().stream(fleet.traffic, "/v1/completions", &body).await;
    events.next().await.expect("it has begun");
    assert_eq!(fleet.peers().await[0]["in_flight"], 1);
    drop(events);
    wait_for("in flight is 0 again", || async {
        (fleet.peers().await[0]["in_flight"] == 0).then_some(())
    })
    .await;
}
