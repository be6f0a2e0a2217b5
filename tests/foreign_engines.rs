//! Engines that do not know us, registered by `inferno register`: a stand-in that can be broken at will,
//! and llama.cpp's real server where it was built.

use inferno_tests::{
    client::Client,
    command,
    fleet::Fleet,
    process::{Process, address},
    stand_in::{ANSWER, StandIn},
    wait_for,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A running `inferno register`, which calls its node `engine`.
struct Register {
    process: Process,
    operations: SocketAddr,
}

impl Register {
    fn start(fleet: &Fleet, engine: SocketAddr, arguments: &[&str]) -> Self {
        let (engine, proxy) = (format!("http://{engine}"), fleet.operations.to_string());
        let mut command = command(&["register", &engine, "--proxy", &proxy, "--id", "engine"]);
        command.args(["--probe-interval-ms", "100", "--set", "log.format=json"]).args(arguments);
        let process = Process::start("register", command);
        let operations = address(&process.wait_for_event("watching the engine"), "operations");
        Self { process, operations }
    }

    async fn health(&self) -> String {
        Client::new().get(self.operations, "/health").await.body
    }

    async fn wait_for_health(&self, word: &str) {
        wait_for(&format!("register is {word}"), || async {
            (self.health().await == word).then_some(())
        })
        .await;
    }
}

async fn ask(fleet: &Fleet, model: &str) -> inferno_tests::client::Answer {
    fleet.post("/v1/completions", &json!({"model": model, "prompt": "x", "max_tokens": 4})).await
}

/// Waits until requests for `model` are answered so.
async fn wait_for_status(fleet: &Fleet, model: &str, status: u16) {
    wait_for(&format!("{model} is answered {status}"), || async {
        (ask(fleet, model).await.status == status).then_some(())
    })
    .await;
}

async fn models(fleet: &Fleet) -> Vec<String> {
    let list = fleet.get("/v1/models").await.ok();
    let ids = list["data"].as_array().into_iter().flatten().map(|model| &model["id"]);
    ids.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_waited_for_served_lost_and_found_again() {
    let fleet = Fleet::proxy_only(&[]);
    let place = TcpListener::bind(ANY).and_then(|listener| listener.local_addr()).expect("a port");
    let mut register = Register::start(&fleet, place, &[]);
    register.process.wait_for_event("waiting for the engine");
    assert_eq!(register.health().await, "loading");
    assert_eq!(fleet.peers().await.len(), 0, "who knows no model has nothing to register");

    let engine = StandIn::start(place, &["stand-in"]).await;
    fleet.wait_for_state("engine", "ready").await;
    assert_eq!(register.health().await, "healthy");
    let answer = ask(&fleet, "stand-in").await.ok();
    assert_eq!(answer["choices"][0]["text"], ANSWER, "{answer}");
    let peer = &fleet.peers().await[0];
    assert_eq!((&peer["address"], &peer["capabilities"]), (&json!(place), &json!(["foreign"])));

    engine.crash().await;
    register.wait_for_health("loading").await;
    wait_for_status(&fleet, "stand-in", 503).await;
    assert_eq!(models(&fleet).await, [""; 0]);

    let engine = StandIn::start(place, &["stand-in"]).await;
    register.wait_for_health("healthy").await;
    wait_for_status(&fleet, "stand-in", 200).await;

    engine.serve(&["another", "stand-in"]);
    wait_for("the new model is served", || async {
        (models(&fleet).await == ["another", "stand-in"]).then_some(())
    })
    .await;
    assert_eq!(ask(&fleet, "another").await.status, 200);

    let body = json!({"model": "stand-in", "prompt": "x", "stream": true});
    let mut events = Client::new().stream(fleet.traffic, "/v1/completions", &body).await;
    events.next().await.expect("it has begun");
    register.process.signal(Signal::SIGTERM);
    assert_eq!(register.process.wait().code(), Some(0), "{}", register.process.log());
    fleet.proxy.wait_for_text("\"state\":\"draining\"");
    fleet.wait_for_state("engine", "gone").await;
    assert_eq!(ask(&fleet, "stand-in").await.status, 503);
    engine.finish();
    assert_eq!(events.next().await.as_deref(), Some("[DONE]"), "what ran went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_gets_no_more_requests() {
    let fleet = Fleet::proxy_only(&[]);
    let engine = StandIn::start(ANY, &["stand-in"]).await;
    let register = Register::start(&fleet, engine.address, &["--probe-timeout-ms", "200"]);
    fleet.wait_for_state("engine", "ready").await;
    engine.wait(7);
    wait_for("the engine's own load is known to the proxy", || async {
        let reported = &fleet.peers().await[0]["reported"];
        let told = (reported["queue_depth"] == 7, reported["requests_in_progress"] == 8);
        (told == (true, true) && reported["kv_cache_usage"] == 50.0).then_some(())
    })
    .await;
    engine.hang(true);
    register.process.wait_for_count("the engine failed a probe", 2);
    register.process.wait_for_text("engine lost");
    assert_eq!(register.health().await, "loading");
    fleet.wait_for_state("engine", "joining").await;
    // It would take the request, and never answer.
    assert_eq!(ask(&fleet, "stand-in").await.status, 503);
    engine.hang(false);
    fleet.wait_for_state("engine", "ready").await;
    assert_eq!(ask(&fleet, "stand-in").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_hears_nothing_that_only_we_understand() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.toml").display().to_string();
    let mut made = command(&["key", "create", "app", "--priority", "3", "--json", "--file", &file]);
    let made: Value = serde_json::from_slice(&made.output().expect("runs").stdout).expect("JSON");
    let fleet = Fleet::proxy_only(&[&format!("proxy.keys_file={file}")]);
    let engine = StandIn::start(ANY, &[]).await;
    let register = Register::start(&fleet, engine.address, &["--model", "named"]);
    fleet.wait_for_state("engine", "ready").await;
    assert!(engine.heads("/v1/models").is_empty(), "its models are known");
    let key = format!("Bearer {}", made["key"].as_str().expect("a key"));
    let headers = [("authorization", key.as_str()), ("x-mine", "kept")];
    let body = json!({"model": "named", "prompt": "x"}).to_string();
    let answer = Client::new().post_with(fleet.traffic, "/v1/completions", &headers, body).await;
    assert_eq!(answer.ok()["choices"][0]["text"], ANSWER);
    let heads = engine.heads("/v1/completions");
    assert_eq!(heads.len(), 1);
    assert!(heads[0].contains("x-mine: kept") && !heads[0].contains("authorization"), "{heads:?}");
    assert!(!heads[0].contains("x-inferno-"), "{heads:?}");
    drop(register);
}

/// What `inferno register` says when it ends at once, and its exit code.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command(&["register"]);
    let output = command.args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_told_at_the_start() {
    let fleet = Fleet::proxy_only(&[]);
    let (own, proxy) = (format!("http://{}", fleet.traffic), fleet.operations.to_string());
    for (arguments, code, said) in [
        (&["https://127.0.0.1:1", "--proxy", &proxy][..], 2, "plain HTTP"),
        (&["http://127.0.0.1:1", "--proxy", "nonsense"], 2, "HOST:PORT"),
        (&["http://127.0.0.1:1"], 1, "no proxy to register with"),
        // Documentation's network (RFC 5737): no machine of anybody.
        (&["http://127.0.0.1:1", "--proxy", "198.51.100.1:6100"], 1, "--advertise"),
        (&["http://0.0.0.0:1", "--proxy", "198.51.100.1:6100"], 1, "INFERNO_OPERATIONS_ADDR"),
        (&["http://198.51.100.9:1", "--proxy", &proxy], 1, "beside the engine"),
        (&["http://127.0.0.1:1", "--healthcheck"], 1, "operations.addr is not set"),
    ] {
        let (exit, error) = refused(arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    // A proxy with a backend lists models as an engine does.
    let listed = StandIn::start(ANY, &["m"]).await;
    let _register = Register::start(&fleet, listed.address, &[]);
    fleet.wait_for_state("engine", "ready").await;
    let (exit, error) = refused(&[&own, "--proxy", &proxy]);
    assert_eq!(exit, Some(1), "{error}");
    assert!(error.contains("a proxy or backend of Inferno"), "{error}");
}

/// llama.cpp's server, where `scripts/build-llama-cpp` or `LLAMA_SERVER` put it.
fn llama_server() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/llama-server");
    std::env::var_os("LLAMA_SERVER").map(PathBuf::from).or_else(|| built.is_file().then_some(built))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn llama_server_is_registered_and_answers() {
    let Some(program) = llama_server() else {
        #[expect(clippy::print_stderr, reason = "a test that was not made must not look like one")]
        {
            eprintln!(
                "not tested: scripts/build-llama-cpp builds llama-server, or LLAMA_SERVER names it"
            );
        }
        return;
    };
    let fleet = Fleet::proxy_only(&[]);
    let place = TcpListener::bind(ANY).and_then(|listener| listener.local_addr()).expect("a port");
    let register = Register::start(&fleet, place, &[]);
    register.process.wait_for_event("waiting for the engine");
    let mut command = Command::new(program);
    command.arg("-m").arg(inferno_tests::model_path()).args(["--alias", "smol", "--metrics"]);
    command.args(["-t", "1", "-c", "1024", "-np", "2", "--host", "127.0.0.1"]);
    command.args(["--port", &place.port().to_string()]).stdout(Stdio::null());
    let mut engine = Process::start("llama-server", command);
    fleet.wait_for_state("engine", "ready").await;
    let ready = register.process.wait_for_event("engine ready");
    assert_eq!(ready["load"], "told by the engine", "{ready}");
    assert_eq!(models(&fleet).await, ["smol"]);
    let mut body = json!({"model": "smol", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0});
    let answer = fleet.post("/v1/completions", &body).await.ok();
    let said = answer["choices"][0]["text"].as_str().expect("text");
    assert!(said.starts_with(" Paris"), "{answer}");
    body["stream"] = json!(true);
    let events = Client::new().stream(fleet.traffic, "/v1/completions", &body).await;
    assert!(events.rest().await.len() >= 8, "an event for each token");
    engine.signal(Signal::SIGKILL);
    engine.wait();
    register.wait_for_health("loading").await;
    wait_for_status(&fleet, "smol", 503).await;
}
