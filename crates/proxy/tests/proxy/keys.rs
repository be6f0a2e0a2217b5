//! API keys on the traffic port.

use super::support::{Backend, Message, Proxy, chat, ok, post};
use inferno_proxy::keys::{ApiKey, NewKey, Timestamp, create, revoke};
use inferno_shared::{
    config::ProxyConfig,
    membership::{CAPABILITY_FOREIGN, ModelRef, NodeView, Token},
    reload::Reloadable,
};
use proptest::prelude::*;
use std::{path::PathBuf, sync::Arc};

/// A keys file in a folder of its own.
pub struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        keys.add("first", None, None);
        keys
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    fn add(&self, name: &str, models: Option<&[&str]>, expires: Option<Timestamp>) -> ApiKey {
        let models = models.map(|models| models.iter().map(|&model| model.to_owned()).collect());
        let new = NewKey { name: name.into(), models, expires, priority: 3, ..NewKey::default() };
        create(&self.path(), new, Timestamp::now()).unwrap().key
    }

    /// A proxy that asks for these keys, in front of one backend.
    async fn proxy(&self) -> (Proxy, Backend) {
        let config = ProxyConfig { keys_file: Some(self.path()), ..ProxyConfig::default() };
        let (proxy, backend) = (Proxy::start(config), Backend::start("b").await);
        proxy.members.set(vec![Arc::clone(&backend.node)]);
        (proxy, backend)
    }
}

/// `request` with this `authorization`.
fn with(request: &str, authorization: &str) -> String {
    request.replacen("host:", &format!("authorization: {authorization}\r\nhost:"), 1)
}

fn bearer(request: &str, key: &ApiKey) -> String {
    with(request, &format!("Bearer {}", key.expose()))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: proxy\r\n\r\n")
}

async fn answer(proxy: &Proxy, request: &str) -> Message {
    proxy.send(request.as_bytes()).await.message().await
}

#[tokio::test]
async fn every_request_needs_a_key() {
    let keys = Keys::new();
    let (proxy, _backend) = keys.proxy().await;
    for request in [
        chat(""),
        post("/v1/anything", "{}"),
        post("/elsewhere", "{}"),
        get("/v1/models"),
        get("/"),
        "DELETE /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".into(),
        chat("").replace("host:", "x-inferno-token: t\r\nhost:"),
        chat("").replace("host:", "x-api-key: t\r\nhost:"),
    ] {
        let answer = answer(&proxy, &request).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "missing_api_key"),
            "{request}"
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"inferno\"");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn a_key_opens_the_door_and_stays_at_it() {
    let keys = Keys::new();
    let key = keys.add("k", None, None);
    let (proxy, backend) = keys.proxy().await;
    for scheme in ["Bearer", "bearer", "BEARER "] {
        let mut client = proxy.connect().await;
        client.say(with(&chat(""), &format!("{scheme} {}", key.expose()))).await;
        let (mut upstream, request) = backend.receive().await;
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        let text = format!("{request:?}");
        assert!(!text.contains(key.expose()), "{text}");
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
    }
    assert_eq!(answer(&proxy, &bearer(&get("/v1/models"), &key)).await.status(), 200);
    assert_eq!(answer(&proxy, &bearer(&get("/x"), &key)).await.status(), 404);
}

#[tokio::test]
async fn wrong_keys_are_all_told_the_same() {
    let keys = Keys::new();
    let key = keys.add("k", None, None);
    let (good, other) = (key.expose(), keys.add("other", None, None));
    let (proxy, _backend) = keys.proxy().await;
    let (id, secret) = good.rsplit_once('_').unwrap();
    let mixed = format!("{}_{secret}", other.expose().rsplit_once('_').unwrap().0);
    let mut bodies = Vec::new();
    for authorization in [
        format!("Bearer {id}_{}", secret.chars().rev().collect::<String>()),
        format!("Bearer inf_00000000_{secret}"),
        format!("Bearer {mixed}"),
        format!("Bearer {}", &good[..good.len() - 1]),
        format!("Bearer {good}x"),
        "Bearer sk-proj-something".into(),
        format!("Basic {good}"),
        good.to_owned(),
        "Bearer".into(),
        String::new(),
        format!("Bearer {good}\r\nauthorization: Bearer {good}"),
        format!("Bearer {good}, Bearer {good}"),
        "Bearer \u{fc}\u{fc}".into(),
    ] {
        let answer = answer(&proxy, &with(&chat(""), &authorization)).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (401, "invalid_api_key"),
            "{authorization}"
        );
        let challenge = &answer.headers["www-authenticate"];
        assert_eq!(challenge, "Bearer realm=\"inferno\", error=\"invalid_token\"");
        let body = String::from_utf8(answer.body).unwrap();
        assert!(!body.contains(&secret[..8]), "{body}");
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(!proxy.metrics_text().contains(&secret[..8]));
}

#[tokio::test]
async fn a_key_expires() {
    let keys = Keys::new();
    let key = keys.add("k", None, Some(Timestamp::from_unix(Timestamp::now().unix() - 1)));
    let (proxy, _backend) = keys.proxy().await;
    let answer = answer(&proxy, &bearer(&chat(""), &key)).await;
    assert_eq!((answer.status(), answer.code().as_str()), (401, "invalid_api_key"));
    assert_eq!(answer.json()["error"]["message"], "The API key has expired.");
}

#[tokio::test]
async fn keys_come_and_go_while_the_proxy_runs() {
    let keys = Keys::new();
    let old = keys.add("old", None, None);
    let (proxy, _backend) = keys.proxy().await;
    let parts = proxy.server.reloaded_with(Reloadable::default());
    let status = async |key: &ApiKey| answer(&proxy, &bearer(&get("/v1/models"), key)).await;
    let mut open = proxy.send(bearer(&get("/v1/models"), &old).as_bytes()).await;
    assert_eq!(open.message().await.status(), 200);
    let new = keys.add("new", None, None);
    revoke(&keys.path(), "old", Timestamp::now()).unwrap();
    assert_eq!((status(&old).await.status(), status(&new).await.status()), (200, 401));
    parts.reload();
    assert_eq!((status(&old).await.status(), status(&new).await.status()), (401, 200));
    assert_eq!(status(&old).await.json()["error"]["message"], "The API key has been revoked.");
    // A connection is no credential.
    open.say(bearer(&get("/v1/models"), &old)).await;
    assert_eq!(open.message().await.status(), 401);
    let good = std::fs::read_to_string(keys.path()).unwrap();
    std::fs::write(keys.path(), good.replace("hmac_sha256", "hmac")).unwrap();
    parts.reload();
    assert_eq!(status(&new).await.status(), 200, "a broken file changes nothing");
}

#[tokio::test]
async fn a_key_has_the_models_it_lists_and_does_not_learn_of_others() {
    let keys = Keys::new();
    let (only_n, any) =
        (keys.add("n", Some(&["org/n", "later"]), None), keys.add("any", None, None));
    let (proxy, backend) = keys.proxy().await;
    let mut two = (*backend.node).clone();
    two.models.push(ModelRef { id: "org/n".into(), sha256: None });
    proxy.members.set(vec![Arc::new(two)]);
    let ids = async |key: &ApiKey| {
        let list = answer(&proxy, &bearer(&get("/v1/models"), key)).await.json();
        let ids = list["data"].as_array().unwrap().iter().map(|model| model["id"].to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&only_n).await, r#""org/n""#);
    assert_eq!(ids(&any).await, r#""m" "org/n""#);
    let ask = async |model: &str| {
        let one = bearer(&get(&format!("/v1/models/{model}")), &only_n);
        let chat = post("/v1/chat/completions", &format!(r#"{{"model":"{model}"}}"#));
        [answer(&proxy, &one).await, answer(&proxy, &bearer(&chat, &only_n)).await]
    };
    for (there, absent) in ask("m").await.into_iter().zip(ask("x").await) {
        assert_eq!((there.status(), there.code().as_str()), (404, "model_not_found"));
        let same = String::from_utf8(there.body).unwrap().replace("'m'", "'x'");
        assert_eq!(same.as_bytes(), absent.body);
    }
    let allowed = post("/v1/chat/completions", r#"{"model":"org/n"}"#);
    let mut client = proxy.send(bearer(&allowed, &only_n).as_bytes()).await;
    let (mut upstream, request) = backend.receive().await;
    let tenant = request.headers["x-inferno-tenant"].to_string();
    assert!(only_n.expose().contains(&tenant) && tenant.len() == 8, "the id of the key: {tenant}");
    assert_eq!(request.headers["x-inferno-priority"], "3", "that of the key");
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn without_a_keys_file_any_key_will_do() {
    let (proxy, _backend) = Proxy::with_backend().await;
    for authorization in ["Bearer none", "Basic eDp4"] {
        assert_eq!(answer(&proxy, &with(&get("/v1/models"), authorization)).await.status(), 200);
    }
}

#[test]
fn no_authorization_is_too_odd() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let keys = Keys::new();
    let (proxy, _backend) = runtime.block_on(keys.proxy());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) };
    proptest!(config, |(bytes: Vec<u8>)| {
        // What cannot stand in a header's line would be another request.
        let value: Vec<u8> = bytes.into_iter().filter(|byte| !b"\r\n\0".contains(byte)).collect();
        let head = b"GET /v1/models HTTP/1.1\r\nhost: p\r\nauthorization: Bearer ";
        let request = [head.as_slice(), &value, b"\r\n\r\n"].concat();
        let status = runtime.block_on(async { proxy.send(&request).await.message().await.status() });
        prop_assert!(status == 401 || status == 400, "{}", status);
    });
}

#[tokio::test]
async fn a_foreign_engine_is_told_nothing_that_only_we_understand() {
    let keys = Keys::new();
    let key = keys.add("app", None, None);
    let (proxy, backend) = keys.proxy().await;
    let foreign = [CAPABILITY_FOREIGN.to_owned()];
    for (token, capabilities, internal) in [
        (Some("lease-token"), &[][..], true),
        (None, &[], false),
        (None, &foreign, false),
        (Some("its own"), &foreign, false),
    ] {
        let node = NodeView {
            token: token.map(Token::new),
            capabilities: capabilities.to_vec(),
            ..(*backend.node).clone()
        };
        proxy.members.set(vec![Arc::new(node)]);
        let mut client = proxy.send(bearer(&chat(""), &key).as_bytes()).await;
        let (mut upstream, request) = backend.receive().await;
        let names = request.headers.keys().filter(|name| name.starts_with("x-inferno-"));
        assert_eq!(names.count(), if internal { 3 } else { 0 }, "{:?}", request.headers);
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
    }
}
