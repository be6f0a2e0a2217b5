//! What the proxy does not know and passes on.

use super::support::{Backend, Proxy, node, ok, post};
use inferno_shared::{
    config::{ProxyConfig, RoutingConfig},
    membership::{ModelRef, NodeState},
};
use std::sync::Arc;

/// A proxy for two models, `m` and `n`, the second for what names none, and the backends of both.
async fn with_default() -> (Proxy, Backend, Backend) {
    let routing = RoutingConfig { default_model: Some("n".into()), ..RoutingConfig::default() };
    let proxy = Proxy::start(ProxyConfig { routing, ..ProxyConfig::default() });
    let (m, mut n) = (Backend::start("m").await, Backend::start("n").await);
    let mut serves_n = (*n.node).clone();
    serves_n.models = vec![ModelRef { id: "n".into(), sha256: None }];
    n.node = Arc::new(serves_n);
    proxy.members.set(vec![Arc::clone(&m.node), Arc::clone(&n.node)]);
    (proxy, m, n)
}

fn request(line: &str, fields: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: p\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn what_names_no_model_goes_to_the_default_ones_backends_as_it_is() {
    let (proxy, _m, n) = with_default().await;
    for (line, fields, body) in [
        ("GET /v1/files?limit=2", "", ""),
        ("DELETE /v1/files/a%2Fb", "", ""),
        ("POST /v1/batches", "content-type: application/json\r\n", r#"["m"]"#),
        ("POST /v1/batches", "content-type: application/json\r\n", r#"{"input":"é"}"#),
        ("POST /v1/x", "content-type: application/octet-stream\r\n", "{\"model\":\"m\"}"),
        ("POST /v1/x", "content-type: application/x-www-form-urlencoded\r\n", "model=m"),
        ("PUT /v1/x", "content-type: image/png\r\n", "\u{1}not JSON"),
        ("PATCH /v1/x", "", ""),
    ] {
        let mut client = proxy.send(request(line, fields, body).as_bytes()).await;
        let (mut upstream, received) = n.receive().await;
        assert_eq!(received.line, format!("{line} HTTP/1.1"));
        assert_eq!(received.body, body.as_bytes(), "{line}");
        upstream.say(ok("{\"a\":1}")).await;
        assert_eq!(client.message().await.body, b"{\"a\":1}");
    }
    proxy.settled().await;
    let requests = proxy.metrics_text();
    let counted = |line: &&str| line.contains("route=\"passthrough\"") && line.contains("\"n\"");
    assert!(requests.lines().any(|line| counted(&line)), "{requests}");
}

#[tokio::test]
async fn what_names_a_model_goes_to_its_backends_by_whichever_method() {
    let (proxy, m, _n) = with_default().await;
    for (line, kind) in [
        ("POST /v1/responses", "application/json; charset=utf-8"),
        ("PATCH /v1/x", "application/merge-patch+json"),
        ("DELETE /v1/x", "Application/JSON"),
        ("POST /v1/x", "application/x-www-form-urlencoded"),
    ] {
        let fields = format!("content-type: {kind}\r\n");
        let body = r#" {"x":[1],"model":"m"}"#;
        let mut client = proxy.send(request(line, &fields, body).as_bytes()).await;
        let (mut upstream, received) = m.receive().await;
        assert_eq!((received.body, &*received.headers["content-type"]), (body.into(), kind));
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test]
async fn a_head_request_passes_and_its_connection_serves_the_next() {
    let (proxy, _m, n) = with_default().await;
    let mut client = proxy.send(b"HEAD /v1/files/f HTTP/1.1\r\nhost: p\r\n\r\n").await;
    let (mut upstream, received) = n.receive().await;
    assert!(!received.headers.contains_key("content-length"), "{received:?}");
    upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").await;
    assert_eq!(client.head().await.headers["content-length"], "1234");
    client.say("HEAD /v1/files/f HTTP/1.1\r\nhost: p\r\n\r\n").await;
    upstream.message().await;
    upstream.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.headers["transfer-encoding"], "chunked");
    client.say("GET /v1/files/f HTTP/1.1\r\nhost: p\r\n\r\n").await;
    // The same connection: what the HEAD was answered did not leave anything to wait for.
    assert_eq!(upstream.message().await.line, "GET /v1/files/f HTTP/1.1");
    upstream.say(ok("1234")).await;
    assert_eq!(client.message().await.body, b"1234");
    client.say("DELETE /v1/files/f HTTP/1.1\r\nhost: p\r\n\r\n").await;
    let mut upstream = n.next(upstream).await;
    upstream.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 204);
}

#[tokio::test]
async fn what_was_passed_on_is_never_sent_to_another() {
    let (proxy, _m, first) = with_default().await;
    let second = Backend::start("n2").await;
    let mut other = (*node("n2", second.node.address, NodeState::Ready)).clone();
    other.models.clone_from(&first.node.models);
    proxy.members.set(vec![Arc::clone(&first.node), Arc::new(other)]);
    for line in ["GET /v1/files", "POST /v1/files", "DELETE /v1/files/f"] {
        let mut client = proxy.send(request(line, "", "").as_bytes()).await;
        let answer = tokio::select! {
            (upstream, _) = first.receive() => { drop(upstream); client.message().await }
            (upstream, _) = second.receive() => { drop(upstream); client.message().await }
        };
        assert_eq!((answer.status(), answer.code().as_str()), (502, "backend_lost"), "{line}");
    }
}

#[tokio::test]
async fn the_endpoints_that_are_known_still_need_a_model_and_their_method() {
    let (proxy, _m, _n) = with_default().await;
    let answer = async |request: &str| {
        let answer = proxy.send(request.as_bytes()).await.message().await;
        (answer.status(), answer.code())
    };
    let missing = (400, "missing_required_parameter".to_owned());
    assert_eq!(answer(&post("/v1/chat/completions", "{}")).await, missing);
    let (status, code) = answer(&request("GET /v1/completions", "", "")).await;
    assert_eq!((status, &*code), (405, "method_not_allowed"));
    let (status, code) = answer(&request("TRACE /v1/x", "", "")).await;
    assert_eq!((status, &*code), (405, "method_not_allowed"));
    let json = "content-type: application/json\r\n";
    let (status, code) = answer(&request("POST /v1/x", json, "{\"model\"")).await;
    assert_eq!((status, &*code), (400, "malformed_json"));
}

#[tokio::test]
async fn without_a_default_only_a_post_with_a_model_passes() {
    let (proxy, backend) = Proxy::with_backend().await;
    for (line, status, code) in [
        ("GET /v1/files", 404, "unknown_url"),
        ("DELETE /v1/files/f", 405, "method_not_allowed"),
        ("POST /v1/x", 400, "malformed_json"),
    ] {
        let answer = proxy.send(request(line, "", "").as_bytes()).await.message().await;
        assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{line}");
    }
    let mut client = proxy.send(post("/v1/x", r#"{"model":"m"}"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}
