//! Real backends behind the default policy: conversations come back to where they are cached.

use inferno_tests::{MODEL, fleet::Fleet};
use serde_json::{Value, json};

/// Something to talk about for some hundred tokens, another for each `topic`.
fn opening(topic: &str) -> String {
    format!("Let us talk about {topic}. ").repeat(40)
}

async fn turn(fleet: &Fleet, messages: &Value) -> (String, u64, u64) {
    let body = json!({"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0});
    let answer = fleet.post("/v1/chat/completions", &body).await.ok();
    let said = answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    let usage = &answer["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    (said, usage["prompt_tokens"].as_u64().expect("a number"), cached)
}

#[tokio::test]
async fn a_conversations_next_turn_finds_the_last_one_in_the_cache() {
    let fleet = Fleet::start(2).await;
    let topics = ["whales", "bridges", "violins", "volcanoes"];
    for topic in topics {
        let mut messages = json!([{"role": "user", "content": opening(topic)}]);
        let (said, first, cached) = turn(&fleet, &messages).await;
        assert!(cached < first / 2, "{topic}: nobody had it: {cached} of {first}");
        let list = messages.as_array_mut().expect("a list");
        list.push(json!({"role": "assistant", "content": said}));
        list.push(json!({"role": "user", "content": "Go on."}));
        let (_, second, cached) = turn(&fleet, &messages).await;
        assert!(second > first && cached + 64 > first, "{topic}: {cached} of {first}");
    }
    let mut served = Vec::new();
    for index in 0..2 {
        let vitals = fleet.vitals(index).await;
        assert!(vitals["kv_cache_tokens"].as_u64() > Some(10_000), "{vitals}");
        served.push(vitals["requests_total"].as_u64().expect("a number"));
    }
    assert_eq!(served, [4, 4], "new conversations go to who has done less");
}
