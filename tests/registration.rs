//! Backends find their proxy, are believed, lost, and found again.

use inferno_tests::{
    client::Client,
    command,
    fleet::{Fleet, start_backend},
    wait_for,
};
use nix::sys::signal::Signal;
use std::path::Path;

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
async fn a_backend_that_knows_one_proxy_finds_the_others_from_it() {
    let mut first = Fleet::start(1).await;
    let second = Fleet::proxy_only(&[&format!("proxy.peers={}", first.operations)]);
    second.wait_for_state("backend-1", "ready").await;
    let models = second.get("/v1/models").await.ok();
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1));
    // Nobody told the first proxy of a third; the second did.
    let third = Fleet::proxy_only(&[&format!("proxy.peers={}", second.operations)]);
    third.wait_for_state("backend-1", "ready").await;
    wait_for("every proxy knows both others", || async {
        for fleet in [&first, &second, &third] {
            let peers = fleet.peers().await;
            let is_proxy = |peer: &&serde_json::Value| {
                peer["node_type"] == "proxy" && peer["state"] == "ready"
            };
            if peers.iter().filter(is_proxy).count() != 2 {
                return None;
            }
        }
        Some(())
    })
    .await;
    first.proxy.signal(Signal::SIGKILL);
    first.proxy.wait();
    assert_eq!(
        second.state_of("backend-1").await.as_deref(),
        Some("ready"),
        "it needs nobody else"
    );
    first.backends[0].process.signal(Signal::SIGTERM);
    for proxy in [&second, &third] {
        proxy.wait_for_state("backend-1", "gone").await;
    }
}

#[tokio::test]
async fn a_proxy_introduces_itself_to_a_backend_that_knows_none() {
    let backend = start_backend("lonely", &["node.id=lonely", "backend.threads=1"]);
    let proxy = Fleet::proxy_only(&[&format!("proxy.peers={}", backend.operations)]);
    proxy.wait_for_state("lonely", "ready").await;
    let seen = Client::new().get(backend.operations, "/peers").await.ok();
    assert_eq!(seen["proxies"][0]["operations"], proxy.operations.to_string(), "{seen}");
    assert_eq!(seen["proxies"][0]["learned"], true, "{seen}");
}

#[tokio::test]
async fn a_second_backend_of_the_same_name_is_refused_while_the_first_lives() {
    let mut fleet = Fleet::start(1).await;
    let proxies = format!("backend.proxies={}", fleet.operations);
    let thief = start_backend("thief", &["node.id=backend-1", "backend.threads=1", &proxies]);
    thief.process.wait_for_text("id is in use");
    let peers = fleet.peers().await;
    assert_eq!(peers[0]["operations"], fleet.backends[0].operations.to_string());
    assert_eq!(peers[0]["state"], "ready", "it was never out");
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    wait_for("the second has taken its place", || async {
        let peers = fleet.peers().await;
        let taken = peers[0]["operations"] == thief.operations.to_string();
        (taken && peers[0]["state"] == "ready").then_some(())
    })
    .await;
}

#[tokio::test]
async fn secrets_are_rotated_without_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("first"), "old").expect("written");
    std::fs::write(file("second"), "spare").expect("written");
    let secrets = format!("registration.secret_files={},{}", file("first"), file("second"));
    let mut fleet = Fleet::proxy_only(&[&secrets]);
    fleet.add_backend(&[&secrets]);
    let proxy = fleet.operations;
    let peers = |secret: &'static str| async move {
        let bearer = format!("Bearer {secret}");
        Client::new().get_with(proxy, "/peers", &[("authorization", &bearer)]).await
    };
    wait_for("it is ready", || async {
        let members = peers("old").await.json();
        (members["peers"][0]["state"] == "ready").then_some(())
    })
    .await;
    assert_eq!(peers("new").await.status, 401);
    std::fs::write(file("second"), "new").expect("written");
    reload(&fleet);
    for secret in ["old", "new"] {
        assert_eq!(peers(secret).await.status, 200, "both for a while");
    }
    std::fs::write(file("first"), "new").expect("written");
    reload(&fleet);
    assert_eq!(peers("old").await.status, 401);
    let members = peers("new").await.json();
    assert_eq!(members["peers"][0]["state"], "ready", "never out");
    std::fs::remove_file(file("first")).expect("removed");
    fleet.proxy.signal(Signal::SIGHUP);
    fleet.proxy.wait_for_text("what was read before stays");
    assert_eq!(peers("new").await.status, 200);
}

/// Makes both processes read their files again, and waits until they have.
fn reload(fleet: &Fleet) {
    for process in [&fleet.proxy, &fleet.backends[0].process] {
        let before = process.log().matches("read again").count();
        process.signal(Signal::SIGHUP);
        process.wait_for_count("read again", before + 1);
    }
}

/// A certificate for this machine's loopback address, trusted by whoever reads it.
fn certificate(folder: &Path) -> [String; 3] {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let file = |name: &str, content: String| {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let cert = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    [
        format!("operations.tls.cert_file={cert}"),
        format!("operations.tls.key_file={key}"),
        format!("operations.tls.ca_file={cert}"),
    ]
}

#[tokio::test]
async fn a_fleet_whose_operations_ports_speak_tls_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = certificate(folder.path());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut fleet = Fleet::proxy_only(&settings);
    fleet.add_backend(&settings);
    wait_for("it serves", || async {
        let models = fleet.get("/v1/models").await.ok();
        (models["data"].as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    let healthcheck = |operations: std::net::SocketAddr, settings: &[&str]| {
        let mut probe = command(&["proxy", "--healthcheck"]);
        probe.args(["--set", &format!("operations.addr={operations}")]);
        for setting in settings {
            probe.args(["--set", setting]);
        }
        probe.output().expect("it runs").status.code()
    };
    assert_eq!(healthcheck(fleet.operations, &settings), Some(0));
    assert_eq!(healthcheck(fleet.operations, &[]), Some(1), "it speaks nothing else");
    assert_eq!(healthcheck(fleet.backends[0].operations, &settings), Some(0));
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
