//! Pages in browsers: what they are let do where the configuration names them, and nothing of it where it does not.

use super::{
    keys::Keys,
    support::{Backend, Message, Proxy, chat, ok},
};
use inferno_shared::config::{ProxyConfig, ProxyCors};
use std::sync::Arc;

const PAGE: &str = "https://app.example";

fn config(origins: &[&str]) -> ProxyConfig {
    let allow_origins = origins.iter().map(|&origin| origin.into()).collect();
    let cors = ProxyCors { allow_origins, ..ProxyCors::default() };
    ProxyConfig { cors, ..ProxyConfig::default() }
}

async fn with(config: ProxyConfig) -> (Proxy, Backend) {
    let (proxy, backend) = (Proxy::start(config), Backend::start("b").await);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    (proxy, backend)
}

/// What a browser sends before a page of `origin` may post JSON with a key.
fn preflight(path: &str, origin: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: p\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization,content-type,x-stainless-lang\r\n\r\n"
    )
}

fn from(origin: &str, request: &str) -> String {
    request.replace("host:", &format!("origin: {origin}\r\nhost:"))
}

async fn answer(proxy: &Proxy, request: &str) -> Message {
    proxy.send(request.as_bytes()).await.message().await
}

/// The names of an answer's fields that have to do with CORS.
fn granted(answer: &Message) -> Vec<&str> {
    let ours = |name: &&str| name.starts_with("access-control-") || *name == "vary";
    let mut names: Vec<_> = answer.headers.keys().map(String::as_str).filter(ours).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_page_that_is_named_asks_and_calls() {
    let (proxy, backend) = with(config(&[PAGE])).await;
    let mut client = proxy.send(preflight("/v1/chat/completions", PAGE).as_bytes()).await;
    let leave = client.head().await;
    assert_eq!(leave.status(), 204);
    assert_eq!(leave.headers["access-control-allow-origin"], PAGE);
    assert_eq!(leave.headers["access-control-allow-methods"], "POST");
    let asked = "authorization,content-type,x-stainless-lang";
    assert_eq!(leave.headers["access-control-allow-headers"], asked);
    assert_eq!(leave.headers["access-control-max-age"], "600");
    assert!(!leave.headers.contains_key("content-length"), "RFC 9110 §8.6");
    // On the same connection, as browsers do.
    client.say(from(PAGE, &chat(""))).await;
    let (mut upstream, request) = backend.receive().await;
    assert_eq!(request.body, br#"{"model":"m"}"#);
    // What the backend says of it does not count.
    let theirs = "access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\nvary: accept\r\n";
    upstream.say(ok("{}").replace("content-type", &format!("{theirs}content-type"))).await;
    let answer = client.message().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
    let exposed = &answer.headers["access-control-expose-headers"];
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    proxy.settled().await;
}

#[tokio::test]
async fn a_page_may_read_errors_too() {
    let keys = Keys::new();
    let keys_file = Some(keys.path());
    let (proxy, _backend) = with(ProxyConfig { keys_file, ..config(&[PAGE]) }).await;
    // No key is asked of a question that browsers send without one.
    assert_eq!(answer(&proxy, &preflight("/v1/models", PAGE)).await.status(), 204);
    for (request, status) in [
        (from(PAGE, &chat("")), 401),
        (preflight("/v1/models", "https://other.example"), 401),
        (preflight("/elsewhere", PAGE), 401),
    ] {
        let answer = answer(&proxy, &request).await;
        assert_eq!(answer.status(), status, "{request}");
        let may = answer.headers.get("access-control-allow-origin").map(String::as_str);
        assert_eq!(may, request.contains(PAGE).then_some(PAGE), "{request}");
        assert_eq!(answer.headers["vary"], "origin", "{request}");
    }
    // Without backends, over a limit, and where it is not there.
    let proxy = Proxy::start(config(&[PAGE]));
    for (request, status) in [
        (chat(""), 503),
        (chat("").replace("model", "modal"), 400),
        ("GET /v1/files HTTP/1.1\r\nhost: p\r\n\r\n".into(), 404),
        (chat("").replace("POST", "PUT"), 405),
        (chat("").replace("content-length: 13", "content-length: 99999999"), 413),
    ] {
        let answer = answer(&proxy, &from(PAGE, &request)).await;
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE, "{request}");
    }
}

#[tokio::test]
async fn any_page_may_come_where_all_are_named() {
    let (proxy, _backend) = with(config(&["*"])).await;
    for request in [
        preflight("/v1/embeddings", "null"),
        from("https://x.example", &chat("").replace("POST", "PUT")),
    ] {
        let answer = answer(&proxy, &request).await;
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{request}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{request}");
    }
}

#[tokio::test]
async fn without_configuration_nothing_is_said_of_it() {
    let (proxy, backend) = Proxy::with_backend().await;
    for path in ["/v1/chat/completions", "/v1/models"] {
        let answer = answer(&proxy, &preflight(path, PAGE)).await;
        assert_eq!((answer.status(), answer.code().as_str()), (405, "method_not_allowed"));
        assert_eq!(granted(&answer), [""; 0]);
    }
    let mut client = proxy.send(from(PAGE, &chat("")).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream
        .say(ok("{}").replace("content-type", "access-control-allow-origin: *\r\ncontent-type"))
        .await;
    assert_eq!(granted(&client.message().await), [""; 0], "a backend lets nobody in either");
}
