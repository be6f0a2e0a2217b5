//! Which backend gets a request, and what is said about it.

use super::support::{Backend, END, EVENTS, Message, Proxy, Wire, ok, post, within};
use inferno_proxy::keys::{NewKey, Timestamp, create};
use inferno_shared::config::{ProxyConfig, RoutingConfig, RoutingPolicy};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

const CHAT: &str = "/v1/chat/completions";

/// A proxy with that policy in front of three backends.
async fn three(policy: RoutingPolicy) -> (Proxy, [Backend; 3]) {
    let routing = RoutingConfig { policy, ..RoutingConfig::default() };
    let proxy = Proxy::start(ProxyConfig { routing, ..ProxyConfig::default() });
    let backends =
        [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    proxy.members.set(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    (proxy, backends)
}

/// A chat of these messages, each of 2,000 bytes, with `more` in its object.
fn turns(messages: &[&str], more: &str) -> String {
    let message = |name: &&str| {
        format!(r#"{{"role":"user","content":"{}"}}"#, name.repeat(2000 / name.len()))
    };
    let messages: Vec<String> = messages.iter().map(message).collect();
    format!(r#"{{"model":"m","messages":[{}]{more}}}"#, messages.join(","))
}

fn with_header(request: &str, header: &str) -> String {
    request.replacen("host:", &format!("{header}\r\nhost:"), 1)
}

/// Who gets a request: the index, and the request as it came.
async fn next(backends: &[Backend; 3]) -> (usize, Wire, Message) {
    let [a, b, c] = backends;
    let (mut wire, index) = within("a backend being asked", async {
        tokio::select! {
            accepted = a.accept() => (accepted, 0),
            accepted = b.accept() => (accepted, 1),
            accepted = c.accept() => (accepted, 2),
        }
    })
    .await;
    let message = wire.message().await;
    (index, wire, message)
}

/// Sends `request` and has whoever gets it answer; who it was.
async fn home(proxy: &Proxy, backends: &[Backend; 3], request: &str) -> usize {
    let mut client = proxy.send(request.as_bytes()).await;
    let (index, mut upstream, _) = next(backends).await;
    upstream.say(ok("{}").replace("content-type", "connection: close\r\ncontent-type")).await;
    assert_eq!(client.message().await.status(), 200);
    proxy.settled().await;
    index
}

async fn explained(proxy: &Proxy, body: &str) -> Value {
    let request = with_header(&post(CHAT, body), "x-inferno-explain: 1");
    let answer = proxy.send(request.as_bytes()).await.message().await;
    assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// What the explanation says of the backend called `id`.
fn reason(explanation: &Value, id: &str, name: &str) -> f64 {
    let candidates = explanation["candidates"].as_array().unwrap();
    let found = candidates.iter().find(|candidate| candidate["id"] == id).unwrap();
    found["reasons"][name].as_f64().unwrap_or_else(|| panic!("{name} in {found}"))
}

#[tokio::test]
async fn a_conversation_comes_back_to_its_backend() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    let mut homes = Vec::new();
    for turn in 1..=3 {
        for name in ["one", "two", "three"] {
            let messages = vec![name; turn];
            homes.push(home(&proxy, &backends, &post(CHAT, &turns(&messages, ""))).await);
        }
    }
    assert!(homes.chunks(3).all(|turn| turn == &homes[..3]), "{homes:?}");
    let mut first = homes[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2], "they do not crowd");
    let text = proxy.metrics_text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let all = value("inferno_proxy_routed_tokens_total");
    let cached = value("inferno_proxy_routed_cached_tokens_total");
    // Of three turns of one, two and three messages, the first one and two are known.
    assert!((0.3..0.5).contains(&(cached / all)), "{cached} of {all}");
}

#[tokio::test]
async fn tools_come_before_messages() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    let with_tools = |tool: &str| turns(&["x"], &format!(r#","tools":["{}"]"#, tool.repeat(800)));
    let first = home(&proxy, &backends, &post(CHAT, &with_tools("t"))).await;
    let explanation = explained(&proxy, &with_tools("t")).await;
    let id = ["a", "b", "c"][first];
    assert!(reason(&explanation, id, "cached_tokens") > 500.0, "{explanation}");
    let other = explained(&proxy, &with_tools("u")).await;
    assert_eq!(reason(&other, id, "cached_tokens"), 0.0, "{other}");
}

#[tokio::test]
async fn what_waits_is_known_until_the_first_token_came() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    // 90,000 tokens: many seconds, as long as nothing else is known.
    let long = turns(&["word"; 180], r#","stream":true"#);
    let mut client = proxy.send(post(CHAT, &long).as_bytes()).await;
    let (index, mut upstream, _) = next(&backends).await;
    let id = ["a", "b", "c"][index];
    let waiting = explained(&proxy, &turns(&["x"], "")).await;
    assert!(reason(&waiting, id, "waiting_s") > 3.0, "{waiting}");
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: {\"role\":1}\n\n").await;
    client.head().await;
    client.event().await;
    let waiting = explained(&proxy, &turns(&["x"], "")).await;
    assert!(reason(&waiting, id, "waiting_s") > 3.0, "a role is no token: {waiting}");
    upstream.say_chunk("data: {\"token\":1}\n\n").await;
    client.event().await;
    let waiting = explained(&proxy, &turns(&["x"], "")).await;
    assert_eq!(reason(&waiting, id, "waiting_s"), 0.0, "{waiting}");
    upstream.say(END).await;
    proxy.settled().await;
}

#[tokio::test]
async fn a_client_that_leaves_waits_no_more() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    let client = proxy.send(post(CHAT, &turns(&["word"; 60], "")).as_bytes()).await;
    let (index, _upstream, _) = next(&backends).await;
    let id = ["a", "b", "c"][index];
    drop(client);
    proxy.settled().await;
    let waiting = explained(&proxy, &turns(&["x"], "")).await;
    assert_eq!(reason(&waiting, id, "waiting_s"), 0.0, "{waiting}");
}

#[tokio::test]
async fn what_a_backend_refused_does_not_wait_there() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    let mut client = proxy.send(post(CHAT, &turns(&["word"; 180], "")).as_bytes()).await;
    let (index, mut upstream, _) = next(&backends).await;
    upstream.say(ok("{}").replace("200 OK", "503 Service Unavailable")).await;
    assert_eq!(client.message().await.status(), 503);
    proxy.settled().await;
    let waiting = explained(&proxy, &turns(&["x"], "")).await;
    assert_eq!(reason(&waiting, ["a", "b", "c"][index], "waiting_s"), 0.0, "{waiting}");
}

#[tokio::test]
async fn a_session_is_named_by_a_header_or_by_the_body() {
    let (proxy, backends) = three(RoutingPolicy::Session).await;
    for (header, more) in [
        ("x-session-id: s", ""),
        ("x-session-id: t", r#","user":"ignored beside the header""#),
        ("accept: */*", r#","prompt_cache_key":"k","user":"u""#),
        ("accept: */*", r#","user":"u""#),
    ] {
        let request = |text| with_header(&post(CHAT, &turns(&[text], more)), header);
        let first = home(&proxy, &backends, &request("x")).await;
        for text in ["y", "z", "x"] {
            assert_eq!(home(&proxy, &backends, &request(text)).await, first, "{header} {more}");
        }
    }
    let same = |more| post(CHAT, &turns(&["x"], more));
    let by_key = home(&proxy, &backends, &same(r#","prompt_cache_key":"k""#)).await;
    let by_header = with_header(&same(""), "x-session-id: k");
    assert_eq!(home(&proxy, &backends, &by_header).await, by_key, "a name is a name");
}

#[tokio::test]
async fn embeddings_have_no_prefix_to_come_back_to() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    let body = format!(r#"{{"model":"m","input":"{}"}}"#, "x".repeat(5000));
    let asked = home(&proxy, &backends, &post("/v1/embeddings", &body)).await;
    let explain = with_header(&post("/v1/embeddings", &body), "x-inferno-explain: 1");
    let explanation = proxy.send(explain.as_bytes()).await.message().await.json();
    assert_eq!(reason(&explanation, ["a", "b", "c"][asked], "cached_tokens"), 0.0);
    assert_eq!(explanation["prompt_tokens_estimated"], body.len() / 4);
}

#[tokio::test]
async fn the_header_of_a_session_can_be_another() {
    let routing = RoutingConfig {
        policy: RoutingPolicy::Session,
        session_header: "x-chat".into(),
        ..RoutingConfig::default()
    };
    let proxy = Proxy::start(ProxyConfig { routing, ..ProxyConfig::default() });
    let request = with_header(&post(CHAT, &turns(&["x"], "")), "x-inferno-explain: 1");
    let backend = Backend::start("a").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    for (header, has_session) in [("x-chat: s", true), ("x-session-id: s", false)] {
        let answer = proxy.send(with_header(&request, header).as_bytes()).await.message().await;
        assert_eq!(answer.json()["has_session"], has_session, "{header}");
    }
}

#[tokio::test]
async fn every_policy_says_what_it_goes_by_and_asks_nobody() {
    for (policy, name, by) in [
        (RoutingPolicy::Prefix, "prefix", "cached_tokens"),
        (RoutingPolicy::LeastOutstanding, "least_outstanding", "in_flight"),
        (RoutingPolicy::PowerOfTwo, "power_of_two", "in_flight"),
        (RoutingPolicy::RoundRobin, "round_robin", "reported_queue"),
        (RoutingPolicy::Weighted, "weighted", "max_concurrency"),
        (RoutingPolicy::Session, "session", "in_flight"),
    ] {
        let (proxy, backends) = three(policy).await;
        let explanation = explained(&proxy, &turns(&["x"], r#","user":"u""#)).await;
        assert_eq!(explanation["object"], "routing.explanation");
        assert_eq!((&explanation["policy"], &explanation["model"]), (&name.into(), &"m".into()));
        assert_eq!(explanation["candidates"].as_array().unwrap().len(), 3);
        reason(&explanation, "a", by);
        let scores: Vec<Option<f64>> = explanation["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|candidate| candidate["score"].as_f64())
            .collect();
        assert!(scores.is_sorted(), "the best first: {scores:?}");
        assert_eq!(scores[0].is_none(), policy == RoutingPolicy::RoundRobin);
        for backend in &backends {
            let asked = tokio::time::timeout(Duration::from_millis(1), backend.accept()).await;
            assert!(asked.is_err(), "{name}");
        }
    }
}

#[tokio::test]
async fn the_first_of_an_explanation_is_who_would_be_asked() {
    let (proxy, backends) = three(RoutingPolicy::Prefix).await;
    for name in ["one", "two", "one", "three", "two", "four"] {
        let body = turns(&[name, name], "");
        let explanation = explained(&proxy, &body).await;
        let first = explanation["candidates"][0]["id"].as_str().unwrap().to_owned();
        let asked = home(&proxy, &backends, &post(CHAT, &body)).await;
        assert_eq!(["a", "b", "c"][asked], first, "{explanation}");
    }
}

#[tokio::test]
async fn only_who_may_have_it_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = |name: &str, explain| {
        let new = NewKey { name: name.into(), explain, ..NewKey::default() };
        create(&path, new, Timestamp::now()).unwrap().key
    };
    let (may, may_not) = (key("may", true), key("may not", false));
    let proxy = Proxy::start(ProxyConfig { keys_file: Some(path), ..ProxyConfig::default() });
    let backend = Backend::start("a").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let ask = |key: &str, value: &str| {
        let headers = format!("authorization: Bearer {key}\r\nx-inferno-explain: {value}");
        let request = with_header(&post(CHAT, &turns(&["x"], "")), &headers);
        let proxy = &proxy;
        async move { proxy.send(request.as_bytes()).await.message().await }
    };
    assert_eq!(ask(may.expose(), "1").await.status(), 200);
    let refused = ask(may_not.expose(), "1").await;
    assert_eq!((refused.status(), refused.code().as_str()), (403, "explanation_refused"));
    let wrong = ask(may.expose(), "yes").await;
    assert_eq!((wrong.status(), wrong.code().as_str()), (400, "internal_header"));
    assert!(String::from_utf8_lossy(&wrong.body).contains("takes 1 and nothing else"));
    // What would be said of a request is said of an explanation too.
    let request = |body| {
        with_header(
            &post(CHAT, body),
            &format!("authorization: Bearer {}\r\nx-inferno-explain: 1", may.expose()),
        )
    };
    let unknown = proxy.send(request(r#"{"model":"n"}"#).as_bytes()).await.message().await;
    assert_eq!((unknown.status(), unknown.code().as_str()), (404, "model_not_found"));
    let malformed = proxy.send(request("{").as_bytes()).await.message().await;
    assert_eq!(malformed.code(), "malformed_json");
}
