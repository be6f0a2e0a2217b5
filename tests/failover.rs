//! Backends die; clients should hear as little of it as can be.

use inferno_tests::{MODEL, client::Client, fleet::Fleet};
use nix::sys::signal::Signal;
use serde_json::json;

#[tokio::test]
async fn requests_go_on_when_one_of_two_backends_dies() {
    let mut fleet = Fleet::start(2).await;
    let ask = json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0});
    for _ in 0..4 {
        fleet.post("/v1/completions", &ask).await.ok();
    }
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    // At once: before any check can have noticed. Not one may fail.
    for _ in 0..8 {
        assert_eq!(fleet.post("/v1/completions", &ask).await.ok()["choices"][0]["text"], " Paris");
    }
}

#[tokio::test]
async fn a_stream_whose_backend_dies_ends_with_an_error_and_no_done() {
    let mut fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 4_000, "stream": true, "ignore_eos": true});
    let mut events = Client::new().stream(fleet.traffic, "/v1/completions", &body).await;
    events.next().await.expect("it has begun");
    fleet.backends[0].process.signal(Signal::SIGKILL);
    fleet.backends[0].process.wait();
    let mut last = String::new();
    while let Some(data) = events.next().await {
        last = data;
    }
    let last: serde_json::Value = serde_json::from_str(&last).expect("an error event, not [DONE]");
    assert_eq!(last["error"]["code"], "backend_lost", "{last}");
    let refused = fleet.post("/v1/completions", &body).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
}

#[tokio::test]
async fn load_is_spread_over_the_backends() {
    let fleet = Fleet::start(2).await;
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 2_000, "stream": true, "ignore_eos": true});
    let client = Client::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut events = client.stream(fleet.traffic, "/v1/completions", &body).await;
        events.next().await.expect("it has begun");
        streams.push(events);
    }
    for index in 0..2 {
        assert_eq!(fleet.vitals(index).await["requests_in_progress"], 2, "least outstanding");
    }
}
