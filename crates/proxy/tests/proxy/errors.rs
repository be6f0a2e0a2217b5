//! What clients are told, and where it is decided.

use super::support::{Backend, Proxy, chat, node, post};
use inferno_shared::{config::ProxyConfig, membership::NodeState};
use std::sync::Arc;

async fn answer(proxy: &Proxy, request: &str) -> super::support::Message {
    proxy.send(request.as_bytes()).await.message().await
}

#[tokio::test]
async fn without_backends_the_client_is_asked_to_wait() {
    let proxy = Proxy::start(ProxyConfig::default());
    let answer = answer(&proxy, &chat("")).await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "no_backends"));
    assert!(answer.headers["retry-after"].parse::<u32>().unwrap() > 0);
    assert_eq!(answer.json()["error"]["type"], "server_error");
    proxy.settled().await;
    assert_eq!(proxy.metrics.vitals().backoff_requests, 1);
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_a_resting_one_unavailable() {
    let (proxy, backend) = Proxy::with_backend().await;
    let unknown = answer(&proxy, &post("/v1/completions", r#"{"model":"other"}"#)).await;
    assert_eq!((unknown.status(), unknown.code().as_str()), (404, "model_not_found"));
    assert_eq!(unknown.json()["error"]["param"], "model");
    for state in [NodeState::Draining, NodeState::Joining] {
        proxy.members.set(vec![node("b", backend.node.address, state)]);
        let resting = answer(&proxy, &chat("")).await;
        assert_eq!((resting.status(), resting.code().as_str()), (503, "model_unavailable"));
        assert!(resting.headers.contains_key("retry-after"));
    }
    proxy.members.set(vec![node("b", backend.node.address, NodeState::Gone)]);
    assert_eq!(answer(&proxy, &chat("")).await.code(), "no_backends");
}

#[tokio::test]
async fn wrong_bodies_are_told_what_is_wrong() {
    let (proxy, _backend) = Proxy::with_backend().await;
    for (body, code, param) in [
        ("{\"model\":\"m\"", "malformed_json", None),
        ("[1]", "malformed_json", None),
        ("", "malformed_json", None),
        ("{}", "missing_required_parameter", Some("model")),
        (r#"{"model":7}"#, "invalid_type", Some("model")),
        (r#"{"model":"m","stream":"yes"}"#, "invalid_type", Some("stream")),
    ] {
        let answer = answer(&proxy, &post("/v1/chat/completions", body)).await;
        assert_eq!((answer.status(), answer.code().as_str()), (400, code), "{body}");
        assert_eq!(answer.json()["error"]["param"].as_str(), param, "{body}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let (proxy, _backend) = Proxy::with_backend().await;
    for (request, status, code) in [
        (post("/chat/completions", "{}"), 404, "unknown_url"),
        ("GET /metrics HTTP/1.1\r\nhost: p\r\n\r\n".into(), 404, "unknown_url"),
        (post("/registration", "{}"), 404, "unknown_url"),
        ("GET /v1/files HTTP/1.1\r\nhost: p\r\n\r\n".into(), 404, "unknown_url"),
        ("GET /v1/chat/completions HTTP/1.1\r\nhost: p\r\n\r\n".into(), 405, "method_not_allowed"),
        (post("/v1/models", "{}"), 405, "method_not_allowed"),
        (chat("").replace("host:", "x-inferno-token: t\r\nhost:"), 400, "internal_header"),
        (
            "GET /v1/chat/completions HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".into(),
            501,
            "upgrade_not_supported",
        ),
        ("GET / HTTP/9.9\r\nhost: p\r\n\r\n".into(), 400, "malformed_request"),
        (chat("").replace("content-length", "content-length: 1\r\ncontent-length"), 400, "malformed_request"),
    ] {
        let answer = answer(&proxy, &request).await;
        assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{request}");
        assert!(answer.headers.contains_key("x-request-id"), "{request}");
    }
    let answer = answer(&proxy, "DELETE /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!(answer.headers["allow"], "GET, HEAD");
}

#[tokio::test]
async fn models_are_the_union_of_the_live_backends() {
    let (proxy, backend) = Proxy::with_backend().await;
    let other = Backend::start("c").await;
    let mut with_two = (*other.node).clone();
    with_two.models.push(inferno_shared::membership::ModelRef { id: "org/n".into(), sha256: None });
    proxy.members.set(vec![Arc::clone(&backend.node), Arc::new(with_two)]);
    let list = answer(&proxy, "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await.json();
    assert_eq!(list["object"], "list");
    let expected = serde_json::json!([
        {"id": "m", "object": "model", "created": 1_700_000_000, "owned_by": "inferno"},
        {"id": "org/n", "object": "model", "created": 1_700_000_000, "owned_by": "inferno"},
    ]);
    assert_eq!(list["data"], expected);
    let one = answer(&proxy, "GET /v1/models/org%2Fn HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!((one.status(), one.json()["id"].as_str()), (200, Some("org/n")));
    let none = answer(&proxy, "GET /v1/models/x HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!((none.status(), none.code().as_str()), (404, "model_not_found"));
}

#[tokio::test]
async fn a_backends_own_error_passes_as_it_is() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    let body = r#"{"error":{"message":"context","type":"invalid_request_error","param":null,"code":"context_length_exceeded"}}"#;
    upstream
        .say(format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        .await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (400, "context_length_exceeded"));
}

#[tokio::test]
async fn a_backend_that_speaks_no_http_is_a_bad_gateway() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say("SSH-2.0-OpenSSH_9\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (502, "backend_protocol_error"));
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}
