//! Bad input gets a clear error, through the whole path, and loses nothing.

use inferno_tests::{
    MODEL,
    client::{Answer, Client},
    fleet::Fleet,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat(more: Value) -> Value {
    let mut body =
        json!({"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("objects") };
    fields.extend(more);
    body
}

#[tokio::test]
async fn without_backends_the_answer_is_503_with_retry_after() {
    let fleet = Fleet::proxy_only(&[]);
    let answer = fleet.post(CHAT, &chat(json!({}))).await;
    assert_eq!(answer.error(503)["code"], "no_backends");
    assert!(
        answer.headers["retry-after"].to_str().is_ok_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    assert_eq!(fleet.get("/v1/models").await.ok(), json!({"object": "list", "data": []}));
}

#[tokio::test]
async fn each_mistake_names_its_field() {
    let fleet = Fleet::start(1).await;
    for (change, code, param) in [
        (json!({"model": 7}), "", "model"),
        (json!({"messages": "hi"}), "invalid_type", "messages"),
        (json!({"messages": []}), "invalid_value", "messages"),
        (
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            "invalid_value",
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "missing_required_parameter",
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "unsupported_parameter",
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "unsupported_parameter",
            "messages[0].content",
        ),
        (json!({"temperature": "hot"}), "invalid_type", "temperature"),
        (json!({"temperature": 3}), "invalid_value", "temperature"),
        (json!({"top_p": 2}), "invalid_value", "top_p"),
        (json!({"max_tokens": 0}), "invalid_value", "max_tokens"),
        (json!({"max_tokens": "many"}), "invalid_type", "max_tokens"),
        (json!({"max_completion_tokens": 5}), "invalid_value", "max_tokens"),
        (json!({"seed": 1.5}), "invalid_type", "seed"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "invalid_value", "stop"),
        (json!({"stop": ""}), "invalid_value", "stop"),
        (json!({"stream": "yes"}), "", "stream"),
        (json!({"stream_options": {"include_usage": true}}), "invalid_value", "stream_options"),
        (json!({"top_logprobs": 2}), "invalid_value", "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "invalid_value", "top_logprobs"),
        (json!({"logit_bias": {"x": 1}}), "invalid_value", "logit_bias"),
        (json!({"n": 129}), "invalid_value", "n"),
        (json!({"tools": [{"type": "function"}]}), "unsupported_parameter", "tools"),
        (json!({"response_format": {"type": "xml"}}), "invalid_value", "response_format.type"),
        (json!({"temprature": 0}), "unknown_parameter", "temprature"),
    ] {
        let error = fleet.post(CHAT, &chat(change.clone())).await.error(400);
        assert_eq!(error["param"], param, "{change}: {error}");
        assert!(code.is_empty() || error["code"] == code, "{change}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{change}: {error}");
    }
    fleet.post(CHAT, &chat(json!({}))).await.ok();
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let fleet = Fleet::start(1).await;
    let client = Client::new();
    for body in ["", "{", "[]", "null", "{\"model\":\"x\"", "\u{feff}{}", "{}"] {
        assert_eq!(client.post(fleet.traffic, CHAT, body).await.status, 400, "{body}");
    }
    let unknown = fleet.post(CHAT, &chat(json!({"model": "gpt-9"}))).await.error(404);
    assert_eq!((&unknown["code"], &unknown["param"]), (&json!("model_not_found"), &json!("model")));
    assert_eq!(fleet.get("/v1/models/gpt-9").await.status, 404);
    assert_eq!(fleet.get(&format!("/v1/models/{MODEL}")).await.ok()["id"], MODEL);
    assert_eq!(fleet.get(CHAT).await.status, 405);
    assert_eq!(fleet.get("/nothing").await.status, 404);
    let internal = client
        .post_with(fleet.traffic, CHAT, &[("x-inferno-token", "x")], chat(json!({})).to_string())
        .await;
    assert_eq!(internal.status, 400, "internal headers come from inside");
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_with_the_numbers() {
    let fleet = Fleet::start(1).await;
    let long = "word ".repeat(9_000);
    for (path, body) in [
        ("/v1/completions", json!({"model": MODEL, "prompt": long})),
        (CHAT, chat(json!({"messages": [{"role": "user", "content": long}]}))),
    ] {
        let error = fleet.post(path, &body).await.error(400);
        assert_eq!(error["code"], "context_length_exceeded");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("8192") && message.contains("90"), "{message}");
    }
    let greedy = fleet.post(CHAT, &chat(json!({"max_tokens": 9_000}))).await.error(400);
    assert_eq!(greedy["code"], "context_length_exceeded");
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole_and_too_large_ones_are_refused() {
    let fleet = Fleet::start(1).await;
    for bytes in [1_024, 65_536, 65_537, 2 << 20] {
        let empty = chat(json!({"user": ""})).to_string();
        let body = chat(json!({"user": "x".repeat(bytes - empty.len())}));
        assert_eq!(body.to_string().len(), bytes);
        fleet.post(CHAT, &body).await.ok();
    }
    let huge = chat(json!({"user": "x".repeat(17 << 20)}));
    let answer = fleet.post(CHAT, &huge).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
    fleet.post(CHAT, &chat(json!({}))).await.ok();
}

/// What a third request gets while one runs and another waits, on a backend for one at a time with this setting.
async fn third(setting: &str, prompt: &str) -> Answer {
    let mut fleet = Fleet::proxy_only(&["proxy.limits.queue=false"]);
    fleet.add_backend(&["backend.max_concurrency=1", setting]);
    fleet.wait_for_state("backend-1", "ready").await;
    let long = json!({"model": MODEL, "prompt": "Once", "max_tokens": 4_000, "stream": true, "ignore_eos": true});
    let client = Client::new();
    let mut first = client.stream(fleet.traffic, "/v1/completions", &long).await;
    first.next().await.expect("it runs");
    let second = tokio::spawn({
        let (client, traffic, long) = (client.clone(), fleet.traffic, long.clone());
        async move { client.stream(traffic, "/v1/completions", &long).await.next().await }
    });
    inferno_tests::wait_for("the second waits", || async {
        (fleet.vitals(0).await["queue_depth"] == 1).then_some(())
    })
    .await;
    let third = fleet.post("/v1/completions", &json!({"model": MODEL, "prompt": prompt})).await;
    drop(first);
    assert!(second.await.expect("it ran").is_some(), "the freed slot went to the next");
    third
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let refused = third("backend.queue_max=1", "x").await;
    assert_eq!(refused.error(503)["code"], "queue_full");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn prompts_that_wait_have_a_limit_in_tokens() {
    let words = "one two three four five six seven eight nine ten";
    let refused = third("backend.queue_tokens_max=10", words).await;
    assert_eq!(refused.error(503)["code"], "queue_full");
}

#[tokio::test]
async fn a_request_that_takes_longer_than_it_may_is_ended() {
    let mut fleet = Fleet::proxy_only(&[]);
    fleet.add_backend(&["backend.request_timeout_ms=300"]);
    fleet.wait_for_state("backend-1", "ready").await;
    let long = json!({"model": MODEL, "prompt": "Once", "max_tokens": 8_000, "ignore_eos": true});
    let ended = fleet.post("/v1/completions", &long).await;
    assert_eq!(ended.error(504)["code"], "deadline_exceeded");
    fleet
        .post("/v1/completions", &json!({"model": MODEL, "prompt": "x", "max_tokens": 1}))
        .await
        .ok();
}

#[tokio::test]
async fn off_loopback_a_backend_answers_only_its_proxies() {
    let mut fleet = Fleet::proxy_only(&[]);
    fleet.add_backend(&["backend.listen=0.0.0.0:0"]);
    fleet.wait_for_state("backend-1", "ready").await;
    fleet.post(CHAT, &chat(json!({}))).await.ok();
    let direct = std::net::SocketAddr::from(([127, 0, 0, 1], fleet.backends[0].traffic.port()));
    let refused = Client::new().post(direct, CHAT, chat(json!({})).to_string()).await;
    assert_eq!(refused.error(401)["code"], "not_a_proxy");
}
