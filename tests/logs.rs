//! What processes log of requests: one line each, the same in proxy and backend; nothing lost but where
//! it is counted; a log that nobody reads holds nobody up.

use inferno_tests::{MODEL, client::Client, command, fleet::Fleet, process::Process, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The lines `request` that a process has logged so far.
fn request_lines(process: &Process) -> Vec<Value> {
    let lines = process.log();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "inferno::request").collect()
}

/// Waits for the line of the request that had this id.
async fn line_of(process: &Process, request_id: &str) -> Value {
    wait_for(&format!("a line of {request_id}"), || async {
        request_lines(process).into_iter().find(|line| line["request_id"] == request_id)
    })
    .await
}

#[tokio::test]
async fn a_request_leaves_one_line_in_proxy_and_backend_under_one_id_and_trace() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 7,
        "ignore_eos": true, "stream": true})
    .to_string();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-00");
    let headers = [("x-request-id", "one-id"), ("traceparent", parent.as_str())];
    let answer =
        Client::new().post_with(fleet.traffic, "/v1/completions", &headers, body.clone()).await;
    assert_eq!(answer.status, 200);
    let proxy = line_of(&fleet.proxy, "one-id").await;
    let backend = line_of(&fleet.backends[0].process, "one-id").await;
    for line in [&proxy, &backend] {
        assert_eq!(line["message"], "request");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["trace_id"], trace);
        assert_eq!(line["route"], "completions");
        assert_eq!(line["model"], MODEL);
        assert_eq!(line["status"], 200);
        assert_eq!(line["stream"], true);
        assert_eq!(line["request_bytes"], body.len());
        assert_eq!(line["response_bytes"], answer.body.len());
        assert!(line["duration_ms"].as_f64() > Some(0.0), "{line}");
        assert!(line.get("error").is_none() && line.get("client_gone").is_none(), "{line}");
    }
    assert_eq!(
        (&proxy["service"], &proxy["backend"]),
        (&json!("inferno-proxy"), &json!("backend-1"))
    );
    assert_eq!(proxy["attempts"], 1);
    assert_eq!(backend["service"], "inferno-backend");
    assert_eq!(backend["node_id"], "backend-1");
    assert_eq!(backend["finish_reason"], "length");
    assert_eq!((&backend["prompt_tokens"], &backend["completion_tokens"]), (&json!(4), &json!(7)));
    assert!(backend["ttft_ms"].as_f64() >= backend["queue_ms"].as_f64(), "{backend}");
}

#[tokio::test]
async fn a_trace_begins_where_none_came_or_none_that_can_be_trusted() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "x", "max_tokens": 1}).to_string();
    let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    for (id, parent) in [("none", None), ("text", Some("canary")), ("zeros", Some(zeros))] {
        let mut headers = vec![("x-request-id", id)];
        headers.extend(parent.map(|parent| ("traceparent", parent)));
        let client = Client::new();
        let sent = client.post_with(fleet.traffic, "/v1/completions", &headers, body.clone());
        sent.await.ok();
        let proxy = line_of(&fleet.proxy, id).await;
        let backend = line_of(&fleet.backends[0].process, id).await;
        let trace = proxy["trace_id"].as_str().expect("there is one");
        assert_eq!(trace.len(), 32);
        assert!(!zeros.contains(trace), "{trace}");
        assert_eq!(backend["trace_id"], trace, "the backend takes up what the proxy began");
    }
}

#[tokio::test]
async fn an_error_and_a_client_that_left_are_told_by_their_line() {
    let fleet = Fleet::start(1).await;
    let client = Client::new();
    let headers = [("x-request-id", "bad")];
    let body = json!({"model": MODEL, "prompt": "x", "temperature": "hot"}).to_string();
    client.post_with(fleet.traffic, "/v1/completions", &headers, body).await.error(400);
    let backend = line_of(&fleet.backends[0].process, "bad").await;
    assert_eq!((&backend["status"], &backend["error"]), (&json!(400), &json!("invalid_type")));
    let headers = [("x-request-id", "nowhere")];
    let refused = client.post_with(fleet.traffic, "/v1/nowhere/at/all", &headers, "{}").await;
    refused.error(400);
    let proxy = line_of(&fleet.proxy, "nowhere").await;
    assert_eq!((&proxy["route"], &proxy["status"]), (&json!("passthrough"), &json!(400)));
    assert_eq!(proxy["error"], "missing_required_parameter");
    assert_eq!(proxy["response_bytes"], refused.body.len());
    let endless = json!({"model": MODEL, "prompt": "Once", "max_tokens": 8_000, "stream": true,
        "ignore_eos": true});
    let mut events = client.stream(fleet.traffic, "/v1/completions", &endless).await;
    events.next().await.expect("it has begun");
    drop(events);
    for process in [&fleet.proxy, &fleet.backends[0].process] {
        let line = wait_for("the line of a client that left", || async {
            request_lines(process).into_iter().find(|line| line["client_gone"] == true)
        })
        .await;
        assert_eq!((&line["status"], &line["stream"]), (&json!(200), &json!(true)), "{line}");
    }
    let tokens = request_lines(&fleet.backends[0].process).pop().expect("a line");
    assert!(tokens["completion_tokens"].as_u64() >= Some(1), "{tokens}");
}

#[tokio::test]
async fn what_else_is_logged_about_a_request_carries_its_ids_and_operations_log_at_debug() {
    let mut fleet = Fleet::proxy_only(&["log.level=debug"]);
    fleet.add_backend(&["log.level=debug"]);
    fleet.wait_for_state("backend-1", "ready").await;
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    let body = json!({"model": MODEL, "prompt": "x", "max_tokens": 1}).to_string();
    let headers = [("x-request-id", "lost")];
    Client::new().post_with(fleet.traffic, "/v1/completions", &headers, body).await.error(503);
    let line = line_of(&fleet.proxy, "lost").await;
    let failure = fleet.proxy.wait_for_event("backend failed a request");
    assert_eq!(failure["request_id"], "lost");
    assert_eq!(failure["trace_id"], line["trace_id"]);
    let operations = fleet.proxy.wait_for_event("operations request");
    assert_eq!(
        (&operations["level"], &operations["target"]),
        (&json!("DEBUG"), &json!("inferno::operations"))
    );
}

#[tokio::test]
async fn exactly_one_line_a_request() {
    let fleet = Fleet::start(1).await;
    let client = Client::new();
    let good = json!({"model": MODEL, "prompt": "x", "max_tokens": 1}).to_string();
    let chat = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1, "stream": true})
    .to_string();
    let before = request_lines(&fleet.proxy).len();
    for _ in 0..5 {
        client.post(fleet.traffic, "/v1/completions", good.clone()).await.ok();
        assert_eq!(
            client.post(fleet.traffic, "/v1/chat/completions", chat.clone()).await.status,
            200
        );
        client.post(fleet.traffic, "/v1/completions", "{").await.error(400);
        client.get(fleet.traffic, "/v1/models").await.ok();
        client.get(fleet.traffic, "/nothing").await.error(404);
    }
    let ends = |process: &Process, count: usize| {
        let count_now = request_lines(process).len();
        (count_now >= count).then_some(count_now)
    };
    // Draining is the end of every line that there can be.
    let (mut proxy, mut backends) = (fleet.proxy, fleet.backends);
    for process in [&mut backends[0].process, &mut proxy] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    assert_eq!(wait_for("25 lines", || async { ends(&proxy, before + 25) }).await, before + 25);
    // Only what the proxy could not answer itself came to the backend.
    let lines = wait_for("10 lines", || async { ends(&backends[0].process, 10) }).await;
    assert_eq!(lines, 10);
    assert!(proxy.log().ends_with('}'), "the last line is whole: {}", proxy.log());
    assert!(proxy.log().contains("proxy drained"), "and none is missing");
}

/// A proxy whose standard error nobody reads yet.
struct Unread {
    child: Child,
    traffic: std::net::SocketAddr,
    operations: std::net::SocketAddr,
}

impl Unread {
    fn start() -> Self {
        let free = || {
            let bound = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            bound.local_addr().expect("bound")
        };
        let (traffic, operations) = (free(), free());
        let mut command = command(&["proxy", "--set", "log.format=json"]);
        command.args(["--set", &format!("proxy.listen={traffic}")]);
        command.args(["--set", &format!("operations.addr={operations}")]);
        let child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        Self { child, traffic, operations }
    }

    async fn counter(&self, name: &str) -> Option<u64> {
        let text = Client::new().get(self.operations, "/telemetry").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
        let deadline = Instant::now() + inferno_tests::PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DROPPED: &str = "inferno_log_lines_dropped_total ";

/// Asks for nothing until `count` lines were dropped.
async fn fill(proxy: &Unread, count: u64) {
    let client = Client::new();
    wait_for("lines are dropped", || async {
        for _ in 0..500 {
            client.get(proxy.traffic, "/nothing").await.error(404);
        }
        (proxy.counter(DROPPED).await? >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let mut proxy = Unread::start();
    wait_for("the proxy listens", || async {
        tokio::net::TcpStream::connect(proxy.operations).await.ok()
    })
    .await;
    // Requests go on being answered with the pipe full, then the buffer full.
    fill(&proxy, 1).await;
    let stderr = BufReader::new(proxy.child.stderr.take().expect("piped"));
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let reading = std::thread::spawn(move || {
        for line in stderr.lines() {
            lines.lock().expect("no panic").push(line.expect("text"));
        }
    });
    // Now somebody reads: it says what was lost, and goes on and ends as if nothing had been.
    let told = |line: &String| line.contains("log lines were dropped");
    wait_for("the loss is told", || async {
        log.lock().expect("no panic").iter().any(told).then_some(())
    })
    .await;
    assert_eq!(proxy.terminate().code(), Some(0));
    reading.join().expect("read");
    let log = log.lock().expect("no panic");
    for line in log.iter() {
        let whole: Result<Value, _> = serde_json::from_str(line);
        assert!(whole.is_ok(), "torn: {line}");
    }
    assert!(log.last().is_some_and(|last| last.contains("proxy drained")), "{:?}", log.last());
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_or_stuck_does_not_hold_the_end_up() {
    for gone in [true, false] {
        let mut proxy = Unread::start();
        wait_for("the proxy listens", || async {
            tokio::net::TcpStream::connect(proxy.operations).await.ok()
        })
        .await;
        if gone {
            drop(proxy.child.stderr.take());
        }
        fill(&proxy, if gone { 100 } else { 1 }).await;
        assert_eq!(proxy.terminate().code(), Some(0), "gone: {gone}");
    }
}

#[test]
fn a_start_that_fails_loses_no_line() {
    let mut command = command(&["proxy", "--set", "log.format=json"]);
    command.env("INFERNO_METRICS_ADDR", "127.0.0.1:0");
    let missing = "registration.secret_files=/does/not/exist";
    command.args(["--set", missing, "--set", "proxy.listen=127.0.0.1:0"]);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.contains("INFERNO_METRICS_ADDR is the old name"), "{log}");
    assert!(log.contains("/does/not/exist"), "{log}");
}

#[test]
fn a_level_that_is_none_names_the_key_and_one_without_effect_is_told() {
    let output = command(&["proxy", "--set", "log.level=inferno_proxy=loud"]).output();
    let log = String::from_utf8(output.expect("it runs").stderr).expect("text");
    assert!(log.contains("log.level") && log.contains("loud"), "{log}");
    let mut command = command(&["proxy", "--set", "log.level=info,hyper=trace"]);
    command.args(["--set", "registration.secret_files=/does/not/exist"]);
    let output = command.output().expect("it runs");
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.contains("hyper=trace") && log.contains("no effect"), "{log}");
}

#[tokio::test]
async fn people_get_the_same_fields_in_a_line_of_text() {
    let fleet = Fleet::proxy_only(&[]);
    let mut command = command(&["proxy", "--set", "log.format=human"]);
    command.args(["--set", "proxy.listen=127.0.0.1:0", "--set", "operations.addr=127.0.0.1:0"]);
    let human = Process::start("human", command);
    human.wait_for_text("proxy ready");
    let ready = human.log();
    let traffic = ready.split("traffic=").nth(1).and_then(|rest| rest.split(' ').next());
    let traffic = traffic.and_then(|address| address.parse().ok()).expect("an address");
    let (client, headers) = (Client::new(), [("x-request-id", "same")]);
    for proxy in [traffic, fleet.traffic] {
        client.post_with(proxy, "/v1/chat/completions", &headers, "{}").await.error(400);
    }
    human.wait_for_text("request_id=same");
    let line = human.log().lines().find(|line| line.contains("same")).expect("a line").to_owned();
    let json = line_of(&fleet.proxy, "same").await;
    let json = json.as_object().expect("an object");
    let only_json = ["timestamp", "level", "message", "target", "service", "node_id"];
    for name in json.keys().filter(|name| !only_json.contains(&name.as_str())) {
        assert!(line.contains(&format!(" {name}=")), "no {name} in {line}");
    }
    assert!(line[12..].starts_with(" INFO  request route=chat_completions "), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours in a pipe");
}
