//! Embeddings, from the real model's files to the proxy's answer, against what the package itself computes.

use inferno_engine::{
    EngineOptions, ModelSource,
    embed::{Embedder, INPUTS_MAX},
};
use inferno_tests::{
    EMBEDDING_MODEL, MODEL,
    client::Client,
    command, embedding_model_path,
    fleet::Fleet,
    process::{Process, address},
    wait_for,
};
use serde_json::{Value, json};
use std::{io::BufRead, process::Stdio};

const EMBEDDINGS: &str = "/v1/embeddings";
/// What any number of a vector may differ by from a reference's. The references differ by 1.4e-7.
const TOLERANCE: f64 = 1e-5;
/// What the cosine of ours and a reference's must be at least.
const COSINE_MIN: f64 = 0.999_999;

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/minilm.json");
    let text = std::fs::read_to_string(path).expect("the references");
    let references: Value = serde_json::from_str(&text).expect("JSON");
    references["cases"].as_array().expect("cases").clone()
}

fn texts() -> Vec<String> {
    cases().iter().map(|case| case["text"].as_str().expect("text").to_owned()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn assert_close(what: &str, ours: &[f64], reference: &[f64]) {
    assert_eq!((ours.len(), reference.len()), (384, 384), "{what}");
    let worst = ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine =
        product(ours, reference) / (product(ours, ours) * product(reference, reference)).sqrt();
    assert!(worst <= TOLERANCE && cosine >= COSINE_MIN, "{what}: {worst} apart, cosine {cosine}");
}

fn base64_floats(text: &str) -> Vec<f32> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte| DIGITS.iter().position(|d| *d == byte).expect("a digit") as u32;
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let bits = group
            .iter()
            .fold(0, |bits, byte| bits << 6 | if *byte == b'=' { 0 } else { digit(*byte) });
        let padding = group.iter().filter(|byte| **byte == b'=').count();
        bytes.extend(&bits.to_be_bytes()[1..4 - padding]);
    }
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four"))).collect()
}

/// A proxy with a backend that makes embeddings.
async fn fleet() -> Fleet {
    embedding_model_path();
    let mut fleet = Fleet::proxy_only(&[]);
    fleet.add_backend(&[&format!("backend.model={EMBEDDING_MODEL}")]);
    fleet.wait_for_state("backend-1", "ready").await;
    fleet
}

fn request(more: Value) -> Value {
    let mut body = json!({"model": EMBEDDING_MODEL, "input": "Hello"});
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("objects") };
    fields.extend(more);
    body
}

#[test]
fn vectors_and_tokens_are_the_packages() {
    let path = embedding_model_path();
    let source = ModelSource { id: EMBEDDING_MODEL.into(), path, sha256: None };
    let embedder = Embedder::load(source, EngineOptions::default()).expect("the model loads");
    let ids = embedder.encode(&texts()).expect("all fit");
    let embedded = embedder.submit(ids.clone()).expect("taken").blocking_finished().expect("done");
    assert_eq!(ids.iter().map(Vec::len).max(), Some(256), "the longest that there may be");
    for ((case, ids), vector) in cases().iter().zip(ids).zip(&embedded.vectors) {
        let what = case["name"].as_str().expect("a name");
        assert_eq!(json!(ids), case["ids"], "{what}");
        let ours: Vec<f64> = vector.iter().map(|x| f64::from(*x)).collect();
        assert_close(what, &ours, &numbers(&case["package"]));
        assert_close(what, &ours, &numbers(&case["numpy"]));
        let alone = embedder.submit(vec![ids]).expect("taken").blocking_finished().expect("done");
        assert_eq!(alone.vectors[0], *vector, "{what}: company shows");
    }
}

#[tokio::test]
async fn the_endpoint_takes_every_form_of_input_through_the_proxy() {
    let fleet = fleet().await;
    let answer =
        fleet.post(EMBEDDINGS, &request(json!({"input": texts(), "user": "u"}))).await.ok();
    let tokens: usize = cases().iter().map(|case| case["ids"].as_array().expect("ids").len()).sum();
    assert_eq!(answer["object"], "list");
    assert_eq!(answer["model"], EMBEDDING_MODEL);
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    assert!(answer["system_fingerprint"].as_str().is_some_and(|text| text.starts_with("fp_")));
    for (index, (case, item)) in
        cases().iter().zip(answer["data"].as_array().expect("data")).enumerate()
    {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
        assert_close("served", &numbers(&item["embedding"]), &numbers(&case["package"]));
    }
    let case = &cases()[1];
    let (text, ids) = (&case["text"], &case["ids"]);
    let expected = &answer["data"][1]["embedding"];
    for input in [json!(text), json!([text]), ids.clone(), json!([ids])] {
        let one = fleet.post(EMBEDDINGS, &request(json!({"input": input}))).await.ok();
        assert_eq!(one["data"].as_array().map(Vec::len), Some(1));
        assert_eq!(&one["data"][0]["embedding"], expected, "{input}");
        let base64 =
            request(json!({"input": input, "encoding_format": "base64", "dimensions": 384}));
        let base64 = fleet.post(EMBEDDINGS, &base64).await.ok();
        let floats = base64_floats(base64["data"][0]["embedding"].as_str().expect("text"));
        let same = floats.iter().zip(numbers(expected)).all(|(x, number)| *x == number as f32);
        assert!(floats.len() == 384 && same, "{input}");
    }
    assert_eq!(fleet.get("/v1/models").await.ok()["data"][0]["id"], EMBEDDING_MODEL);
    let told = fleet.peers().await;
    assert_eq!(told[0]["capabilities"], json!(["embeddings"]), "{told:?}");
    assert_eq!(told[0]["fingerprint"], answer["system_fingerprint"]);
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_with_its_numbers() {
    let fleet = fleet().await;
    let long = cases().last().expect("cases")["text"].as_str().expect("text").to_owned() + " more";
    for (change, code, param, words) in [
        (json!({"input": null}), "missing_required_parameter", "input", "input"),
        (json!({"input": ""}), "invalid_value", "input", "input 0 is empty"),
        (
            json!({"input": []}),
            "invalid_value",
            "input",
            "1 to 2048 inputs are embedded at once; there are 0",
        ),
        (json!({"input": ["a", ""]}), "invalid_value", "input", "input 1 is empty"),
        (json!({"input": [[5], []]}), "invalid_value", "input", "input 1 is empty"),
        (json!({"input": 7}), "invalid_type", "input", "a string, an array of token ids"),
        (json!({"input": [-1]}), "invalid_type", "input", "a string, an array of token ids"),
        (
            json!({"input": ["a", long]}),
            "context_length_exceeded",
            "input",
            "at most 256 tokens an input; input 1 has 257",
        ),
        (json!({"input": vec![5; 257]}), "context_length_exceeded", "input", "input 0 has 257"),
        (json!({"input": " ".repeat(70_000)}), "invalid_value", "input", "at most 65536 bytes"),
        (
            json!({"input": [30_522]}),
            "invalid_value",
            "input",
            "token ids are below 30522; input 0 has 30522",
        ),
        (json!({"input": vec!["a"; INPUTS_MAX + 1]}), "invalid_value", "input", "there are 2049"),
        (json!({"encoding_format": "hex"}), "invalid_type", "encoding_format", "encoding_format"),
        (json!({"dimensions": 128}), "unsupported_parameter", "dimensions", "384"),
        (json!({"temperature": 0}), "unknown_parameter", "temperature", "temperature"),
    ] {
        let error = fleet.post(EMBEDDINGS, &request(change.clone())).await.error(400);
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)), "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(words)), "{error}");
    }
    let unknown = fleet.post(EMBEDDINGS, &request(json!({"model": "no-such"}))).await.error(404);
    assert_eq!(unknown["code"], "model_not_found");
    let chat = json!({"model": EMBEDDING_MODEL, "messages": [{"role": "user", "content": "hi"}]});
    let refused = fleet.post("/v1/chat/completions", &chat).await.error(400);
    assert_eq!(
        (&refused["code"], &refused["param"]),
        (&json!("model_not_supported"), &json!("model"))
    );
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("/v1/embeddings")),
        "{refused}"
    );
    let whole =
        fleet.post(EMBEDDINGS, &request(json!({"input": vec!["a"; INPUTS_MAX]}))).await.ok();
    assert_eq!(whole["data"].as_array().map(Vec::len), Some(INPUTS_MAX));
    // What was refused is not counted as embedded.
    assert_eq!(whole["usage"]["prompt_tokens"], 3 * INPUTS_MAX);
}

#[tokio::test]
async fn a_model_that_writes_text_makes_no_embeddings() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "input": "Hello"});
    let refused = fleet.post(EMBEDDINGS, &body).await.error(400);
    assert_eq!(
        (&refused["code"], &refused["param"]),
        (&json!("model_not_supported"), &json!("model"))
    );
    assert_eq!(fleet.peers().await[0]["capabilities"], json!(["chat", "completions"]));
}

#[tokio::test]
async fn both_kinds_of_model_are_served_by_one_proxy_and_measured() {
    let mut fleet = Fleet::start(1).await;
    embedding_model_path();
    fleet.add_backend(&[&format!("backend.model={EMBEDDING_MODEL}")]);
    fleet.wait_for_state("backend-2", "ready").await;
    let ids = fleet.get("/v1/models").await.ok();
    let ids: Vec<_> =
        ids["data"].as_array().expect("models").iter().map(|m| m["id"].clone()).collect();
    assert!(ids.contains(&json!(MODEL)) && ids.contains(&json!(EMBEDDING_MODEL)), "{ids:?}");
    fleet.post(EMBEDDINGS, &request(json!({"input": ["Hello", "Hello"]}))).await.ok();
    let chat =
        json!({"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
    fleet.post("/v1/chat/completions", &chat).await.ok();
    let metrics = Client::new()
        .get_with(fleet.backends[1].operations, "/metrics", &[("accept", "text/plain")])
        .await
        .body;
    let labels = format!("{{model_name=\"{EMBEDDING_MODEL}\"}}");
    for line in [
        format!("vllm:prompt_tokens_total{labels} 6"),
        format!("vllm:e2e_request_latency_seconds_count{labels} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in:\n{metrics}");
    }
    let vitals = fleet.vitals(1).await;
    assert_eq!(vitals["models"][0]["id"], EMBEDDING_MODEL);
    assert_eq!(
        vitals["models"][0]["sha256"],
        "bc5e72e3976826f5e80540960d2a5941e499d06be1f1e8333eef98555d7300fc"
    );
}

#[tokio::test]
async fn a_client_that_leaves_costs_no_more_steps() {
    let fleet = fleet().await;
    let backend = &fleet.backends[0];
    let text = cases().last().expect("cases")["text"].clone();
    let body = request(json!({"input": vec![text; INPUTS_MAX]})).to_string();
    let waiting = Client::new();
    let sent = waiting.post(backend.traffic, EMBEDDINGS, body);
    let busy = wait_for("the backend computes", || async {
        (fleet.vitals(0).await["requests_in_progress"] == 1).then_some(())
    });
    tokio::select! {
        answer = sent => panic!("answered at once: {}", answer.status),
        () = busy => {}
    }
    drop(waiting);
    wait_for("the request is forgotten", || async {
        (fleet.vitals(0).await["requests_in_progress"] == 0).then_some(())
    })
    .await;
    fleet.post(EMBEDDINGS, &request(json!({}))).await.ok();
}

#[tokio::test]
async fn up_serves_it_by_its_name() {
    embedding_model_path();
    let mut command = command(&[
        "up",
        "--json",
        "--backends",
        "1",
        "--threads",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--operations",
        "127.0.0.1:0",
        "--model",
        EMBEDDING_MODEL,
    ]);
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let mut process = Process::start("up", command);
    let events = process.stdout().lines().map(|line| line.expect("a line"));
    let events =
        events.map(|line| serde_json::from_str::<Value>(&line).expect("one object a line"));
    let mut events = events.filter(|event| event["event"] == "ready");
    let ready = events.next().unwrap_or_else(|| panic!("never ready:\n{}", process.log()));
    assert_eq!((&ready["model"], &ready["embeds"]), (&json!(EMBEDDING_MODEL), &json!(true)));
    let body = request(json!({})).to_string();
    let answer = Client::new().post(address(&ready, "address"), EMBEDDINGS, body).await.ok();
    assert_eq!(answer["data"][0]["embedding"].as_array().map(Vec::len), Some(384));
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(process.wait().success(), "{}", process.log());
}

/// A folder of its own: it pulls, lists, verifies, damages and removes.
#[test]
fn the_model_command_knows_directories() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let output =
            command(arguments).env("INFERNO_MODELS", folder.path()).output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let source = embedding_model_path();
    let (pulled, said) = run(&["model", "pull", source.to_str().expect("UTF-8")]);
    assert!(pulled && said.contains("87.1 MiB"), "{said}");
    let (_, list) = run(&["model", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let models = list["models"].as_array().expect("models");
    let state =
        |name: &str| &models.iter().find(|model| model["name"] == name).expect("listed")["state"];
    assert_eq!(state(EMBEDDING_MODEL), "pulled");
    let (verified, said) = run(&["model", "verify", EMBEDDING_MODEL]);
    assert!(verified, "{said}");
    let config = folder.path().join("all-MiniLM-L6-v2/config.json");
    let text = std::fs::read_to_string(&config).expect("there").replace("1536", "1535");
    std::fs::write(&config, text).expect("written");
    let (verified, said) = run(&["model", "verify"]);
    assert!(!verified && said.contains("all-MiniLM-L6-v2/config.json"), "{said}");
    let (removed, said) = run(&["model", "remove", EMBEDDING_MODEL]);
    assert!(removed && !folder.path().join("all-MiniLM-L6-v2").exists(), "{said}");
}
