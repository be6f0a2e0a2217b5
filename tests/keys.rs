//! API keys with real processes: who asked is in the log, revoking is a SIGHUP, clients bring a key.

use inferno_tests::{
    MODEL,
    client::{Answer, Client},
    command,
    fleet::Fleet,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Runs `inferno key` on the keys file of `folder`; its one JSON object.
fn key(folder: &Path, arguments: &[&str]) -> Value {
    let file = folder.join("keys.toml");
    let mut key = command(&["key"]);
    let output = key.args(arguments).arg("--json").arg("--file").arg(file).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text<'a>(key: &'a Value, field: &str) -> &'a str {
    key[field].as_str().expect("text")
}

async fn complete(fleet: &Fleet, id: &str, key: &str) -> Answer {
    let authorization = format!("Bearer {key}");
    let headers = [("x-request-id", id), ("authorization", authorization.as_str())];
    let body = json!({"model": MODEL, "prompt": "x", "max_tokens": 1}).to_string();
    Client::new().post_with(fleet.traffic, "/v1/completions", &headers, body).await
}

/// The line of the request with this id, once it is there.
fn line(fleet: &Fleet, id: &str) -> Value {
    fleet.proxy.wait_for_count(&format!("\"request_id\":\"{id}\""), 1);
    let log = fleet.proxy.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines = lines.filter(|line| line["message"] == "request");
    lines.find(|line| line["request_id"] == id).expect("its line")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_used_seen_and_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, other) = (
        key(folder.path(), &["create", "app"]),
        key(folder.path(), &["create", "other", "--models", "another-model"]),
    );
    let file = format!("proxy.keys_file={}", folder.path().join("keys.toml").display());
    let mut fleet = Fleet::proxy_only(&[&file]);
    fleet.add_backend(&[]);
    fleet.wait_for_state("backend-1", "ready").await;

    assert_eq!(complete(&fleet, "one", text(&app, "key")).await.status, 200);
    assert_eq!(
        (&line(&fleet, "one")["key_id"], &line(&fleet, "one")["status"]),
        (&app["id"], &json!(200))
    );
    assert_eq!(complete(&fleet, "two", text(&other, "key")).await.status, 404);
    let refused = line(&fleet, "two");
    assert_eq!((&refused["key_id"], &refused["error"]), (&other["id"], &json!("model_not_found")));
    assert_eq!(refused["detail"], "the API key may not use this model");
    assert_eq!(complete(&fleet, "three", "inf_none").await.status, 401);
    let refused = line(&fleet, "three");
    assert_eq!(
        (&refused["key_id"], &refused["detail"]),
        (&Value::Null, &json!("API key refused: unknown"))
    );

    key(folder.path(), &["revoke", "app"]);
    assert_eq!(complete(&fleet, "four", text(&app, "key")).await.status, 200, "before SIGHUP");
    fleet.proxy.signal(Signal::SIGHUP);
    fleet.proxy.wait_for_count("API keys read again", 1);
    assert_eq!(complete(&fleet, "five", text(&app, "key")).await.status, 401);
    let refused = line(&fleet, "five");
    assert_eq!((&refused["key_id"], &refused["error"]), (&app["id"], &json!("invalid_api_key")));

    let keys = folder.path().join("keys.toml");
    let broken = fs::read_to_string(&keys).expect("text") + "nonsense = 1\n";
    fs::write(&keys, broken).expect("written");
    fleet.proxy.signal(Signal::SIGHUP);
    fleet.proxy.wait_for_count("the API keys cannot be read; what was read before stays", 1);
    assert!(fleet.proxy.log().contains("unknown field `nonsense`"));
    assert_eq!(complete(&fleet, "six", text(&other, "key")).await.status, 404, "still known");
    assert!(!fleet.proxy.log().contains(&text(&app, "key")[13..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_key_with_a_higher_priority_go_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let low = key(folder.path(), &["create", "low"]);
    let high = key(folder.path(), &["create", "high", "--priority", "5"]);
    assert_eq!((&low["priority"], &high["priority"]), (&json!(0), &json!(5)));
    let file = format!("proxy.keys_file={}", folder.path().join("keys.toml").display());
    let mut fleet = Fleet::proxy_only(&[&file]);
    fleet.add_backend(&["backend.max_concurrency=1"]);
    fleet.wait_for_state("backend-1", "ready").await;
    let long = json!({"model": MODEL, "prompt": "x", "max_tokens": 4_000, "ignore_eos": true});
    let authorization = format!("Bearer {}", text(&low, "key"));
    let traffic = fleet.traffic;
    let running = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str())];
        Client::new().post_with(traffic, "/v1/completions", &headers, long.to_string()).await
    });
    inferno_tests::wait_for("it runs", || async {
        (fleet.vitals(0).await["requests_in_progress"] == 1).then_some(())
    })
    .await;
    assert_eq!(complete(&fleet, "high", text(&high, "key")).await.status, 200);
    assert!(!running.is_finished(), "the slot was given up for it");
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_and_bench_bring_a_key_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = key(folder.path(), &["create", "app"]);
    let key_file = folder.path().join("app.key");
    fs::write(&key_file, format!("{}\n", text(&app, "key"))).expect("written");
    let file = format!("proxy.keys_file={}", folder.path().join("keys.toml").display());
    let mut fleet = Fleet::proxy_only(&[&file]);
    fleet.add_backend(&[]);
    fleet.wait_for_state("backend-1", "ready").await;
    let url = format!("http://{}", fleet.traffic);
    let chat = ["chat", "--url", &url, "--max-tokens", "1", "Hi"];
    let bench = ["bench", "--url", &url, "--requests", "1", "--max-tokens", "1", "--quiet"];
    for arguments in [&chat[..], &bench[..]] {
        let run = |from: &str| {
            let mut command = command(arguments);
            command.env_remove("OPENAI_API_KEY");
            match from {
                "file" => drop(command.arg("--api-key-file").arg(&key_file)),
                "environment" => drop(command.env("OPENAI_API_KEY", text(&app, "key"))),
                _ => {}
            }
            command.output().expect("it runs")
        };
        for from in ["file", "environment"] {
            let output = run(from);
            assert!(output.status.success(), "{arguments:?} {from}: {output:?}");
        }
        let output = run("nowhere");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("An API key is required") && error.contains("--api-key-file"),
            "{error}"
        );
    }
}
