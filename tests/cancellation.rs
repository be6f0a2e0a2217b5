//! A client that goes away frees its slot, in every phase, and its neighbours notice nothing.

use inferno_tests::{MODEL, client::Client, fleet::Fleet, wait_for};
use serde_json::{Value, json};

fn endless(stream: bool) -> Value {
    json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8_000, "stream": stream,
        "ignore_eos": true, "temperature": 0})
}

async fn wait_for_requests(fleet: &Fleet, count: u64) {
    wait_for(&format!("{count} requests on the backend"), || async {
        (fleet.vitals(0).await["requests_in_progress"] == count).then_some(())
    })
    .await;
}

/// What the engine itself says it runs.
async fn wait_for_engine(fleet: &Fleet, running: u32) {
    let line = format!("vllm:num_requests_running{{model_name=\"{MODEL}\"}} {running}\n");
    wait_for(&format!("the engine runs {running}"), || async {
        let text = Client::new().get(fleet.backends[0].operations, "/telemetry").await.body;
        text.contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    let fleet = Fleet::start(1).await;
    let mut events = Client::new().stream(fleet.traffic, "/v1/completions", &endless(true)).await;
    events.next().await.expect("it has begun");
    wait_for_engine(&fleet, 1).await;
    drop(events);
    wait_for_engine(&fleet, 0).await;
    wait_for_requests(&fleet, 0).await;
}

#[tokio::test]
async fn while_waiting_for_a_whole_answer() {
    let fleet = Fleet::start(1).await;
    let (client, traffic) = (Client::new(), fleet.traffic);
    let request = tokio::spawn(async move {
        client.post(traffic, "/v1/completions", endless(false).to_string()).await
    });
    wait_for_engine(&fleet, 1).await;
    request.abort();
    assert!(request.await.is_err_and(|error| error.is_cancelled()));
    wait_for_engine(&fleet, 0).await;
    wait_for_requests(&fleet, 0).await;
}

#[tokio::test]
async fn in_prefill_and_in_the_queue() {
    let mut fleet = Fleet::proxy_only(&["proxy.limits.queue=false"]);
    fleet.add_backend(&["backend.max_concurrency=1"]);
    fleet.wait_for_state("backend-1", "ready").await;
    let long =
        json!({"model": MODEL, "prompt": "word ".repeat(8_000), "max_tokens": 8, "stream": false});
    let start = |body: Value| {
        let (client, traffic) = (Client::new(), fleet.traffic);
        tokio::spawn(async move { client.post(traffic, "/v1/completions", body.to_string()).await })
    };
    let prefilling = start(long.clone());
    wait_for_engine(&fleet, 1).await;
    let queued = start(long);
    wait_for("one waits", || async { (fleet.vitals(0).await["queue_depth"] == 1).then_some(()) })
        .await;
    queued.abort();
    wait_for("none waits", || async { (fleet.vitals(0).await["queue_depth"] == 0).then_some(()) })
        .await;
    prefilling.abort();
    wait_for_engine(&fleet, 0).await;
    let next = json!({"model": MODEL, "prompt": "hi", "max_tokens": 1});
    fleet.post("/v1/completions", &next).await.ok();
}

#[tokio::test]
async fn the_neighbours_answer_does_not_change() {
    let fleet = Fleet::start(1).await;
    let neighbour = json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 40, "stream": true,
        "temperature": 0.9, "seed": 11, "logprobs": 1});
    let client = Client::new();
    let strip = |events: Vec<Value>| -> Vec<Value> {
        events.iter().map(|event| event["choices"].clone()).collect()
    };
    let alone =
        strip(client.stream(fleet.traffic, "/v1/completions", &neighbour).await.rest().await);
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = client.stream(fleet.traffic, "/v1/completions", &endless(true)).await;
        other.next().await.expect("it has begun");
        others.push(other);
    }
    let mut disturbed = client.stream(fleet.traffic, "/v1/completions", &neighbour).await;
    let mut events = Vec::new();
    while let Some(data) = disturbed.next().await {
        others.pop();
        if data != "[DONE]" {
            events.push(serde_json::from_str(&data).expect("JSON"));
        }
    }
    assert_eq!(strip(events), alone);
}
