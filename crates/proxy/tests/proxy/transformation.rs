//! What is changed of requests and answers, and what is left alone.

use super::{
    http2,
    support::{Backend, Message, Proxy, chat, ok, post},
};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use inferno_proxy::{
    TrafficServer,
    keys::{ApiKey, NewKey, Timestamp, create},
    transform::Defaults,
};
use inferno_shared::{
    Config, MetricsCollector,
    config::{ConfigArgs, ProxyConfig, ProxyCors, ProxyHeaders, RoutingConfig},
    membership::ModelRef,
};
use std::{path::Path, sync::Arc};

fn parsed<T: std::str::FromStr<Err = String>>(items: &[&str]) -> Vec<T> {
    items.iter().map(|item| item.parse().unwrap()).collect()
}

fn aliases(items: &[&str]) -> ProxyConfig {
    ProxyConfig { aliases: parsed(items), ..ProxyConfig::default() }
}

/// In front of one ready backend of the model `m`.
async fn start(config: ProxyConfig) -> (Proxy, Backend) {
    let (proxy, backend) = (Proxy::start(config), Backend::start("b").await);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    (proxy, backend)
}

async fn answer(proxy: &Proxy, request: &str) -> Message {
    proxy.send(request.as_bytes()).await.message().await
}

/// What the backend gets of `request`, which it answers.
async fn sent(proxy: &Proxy, backend: &Backend, request: &str) -> Message {
    let mut client = proxy.send(request.as_bytes()).await;
    let (mut upstream, received) = backend.receive().await;
    // The next request is to come over a connection of its own.
    upstream.say(ok("{}").replacen("content-type", "connection: close\r\ncontent-type", 1)).await;
    assert_eq!(client.message().await.status(), 200, "{request}");
    received
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: p\r\n\r\n")
}

fn bearer(request: &str, key: &ApiKey) -> String {
    request.replacen("host:", &format!("authorization: Bearer {}\r\nhost:", key.expose()), 1)
}

#[tokio::test]
async fn an_alias_is_the_model_for_everyone_behind_the_proxy() {
    let (proxy, backend) = start(aliases(&["gpt-4o=m"])).await;
    let body = "{ \"messages\":[{\"model\":\"gpt-4o\"}],\n\"model\" :\"gpt\\u002d4o\" ,\"x\":1.50}";
    let received = sent(&proxy, &backend, &post("/v1/chat/completions", body)).await;
    let expected = body.replace("\"gpt\\u002d4o\" ", "\"m\" ");
    assert_eq!(String::from_utf8(received.body).unwrap(), expected);
    proxy.settled().await;
    let metrics = proxy.metrics_text();
    assert!(metrics.contains("model=\"m\"") && !metrics.contains("gpt-4o"), "{metrics}");
    let explained = post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#);
    let explained = explained.replacen("host:", "x-inferno-explain: 1\r\nhost:", 1);
    assert_eq!(answer(&proxy, &explained).await.json()["model"], "m");
}

#[tokio::test]
async fn aliases_are_listed_while_their_model_is_there() {
    let (proxy, _backend) = start(aliases(&["gpt-4o=m", "ghost=none"])).await;
    let list = answer(&proxy, &get("/v1/models")).await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["m", "gpt-4o"]);
    let one = answer(&proxy, &get("/v1/models/gpt-4o")).await.json();
    let model = answer(&proxy, &get("/v1/models/m")).await.json();
    assert_eq!((&one["root"], &one["created"]), (&"m".into(), &model["created"]));
    assert!(model.get("root").is_none(), "{model}");
    assert_eq!(answer(&proxy, &get("/v1/models/ghost")).await.status(), 404);
    let ghost = answer(&proxy, &post("/v1/completions", r#"{"model":"ghost"}"#)).await;
    assert_eq!((ghost.status(), ghost.code().as_str()), (404, "model_not_found"));
    let text = String::from_utf8(ghost.body).unwrap();
    assert!(text.contains("'ghost'") && !text.contains("none"), "{text}");
}

#[tokio::test]
async fn an_alias_hides_the_model_whose_name_it_has() {
    let (proxy, backend) = start(aliases(&["m=n"])).await;
    assert_eq!(answer(&proxy, &chat("")).await.code(), "model_not_found");
    assert_eq!(answer(&proxy, &get("/v1/models")).await.json()["data"], serde_json::json!([]));
    let mut both = (*backend.node).clone();
    both.models.push(ModelRef { id: "n".into(), sha256: None });
    proxy.members.set(vec![Arc::new(both)]);
    assert_eq!(sent(&proxy, &backend, &chat("")).await.json()["model"], "n");
    let list = answer(&proxy, &get("/v1/models")).await.json();
    assert_eq!((&list["data"][0]["id"], &list["data"][1]["id"]), (&"n".into(), &"m".into()));
    assert_eq!(list["data"][1]["root"], "n");
}

/// Keys in a file of their own, made as `new` says.
fn keys<const N: usize>(folder: &Path, new: [NewKey; N]) -> (ProxyConfig, [ApiKey; N]) {
    let path = folder.join("keys.toml");
    let keys = new.map(|new| create(&path, new, Timestamp::now()).unwrap().key);
    (ProxyConfig { keys_file: Some(path), ..ProxyConfig::default() }, keys)
}

fn named(name: &str, models: &[&str]) -> NewKey {
    let models = models.iter().map(|&model| model.to_owned()).collect();
    NewKey { name: name.into(), models: Some(models), ..NewKey::default() }
}

#[tokio::test]
async fn a_key_lists_the_name_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (config, [alias, model]) =
        keys(folder.path(), [named("alias", &["gpt-4o"]), named("model", &["m"])]);
    let routing =
        RoutingConfig { default_model: Some("gpt-4o".into()), ..RoutingConfig::default() };
    let config = ProxyConfig { aliases: parsed(&["gpt-4o=m"]), routing, ..config };
    let (proxy, backend) = start(config).await;
    let by_alias = post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#);
    for (key, allowed, refused, id) in
        [(&alias, &by_alias, &chat(""), "gpt-4o"), (&model, &chat(""), &by_alias, "m")]
    {
        let received = sent(&proxy, &backend, &bearer(allowed, key)).await;
        assert_eq!(received.json()["model"], "m");
        let refused = answer(&proxy, &bearer(refused, key)).await;
        assert_eq!((refused.status(), refused.code().as_str()), (404, "model_not_found"));
        let list = answer(&proxy, &bearer(&get("/v1/models"), key)).await.json();
        assert_eq!(
            (&list["data"][0]["id"], list["data"].as_array().unwrap().len()),
            (&id.into(), 1)
        );
    }
    // The default is asked for by its name too, here an alias.
    sent(&proxy, &backend, &bearer(&get("/v1/files"), &alias)).await;
    let refused = answer(&proxy, &bearer(&get("/v1/files"), &model)).await;
    assert_eq!((refused.status(), refused.code().as_str()), (404, "model_not_found"));
}

/// An audio file and the name of a model, as OpenAI's clients send them.
fn form(model: &str) -> String {
    let body = format!(
        "--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\nRIFF\u{1}\r\n--x\r\n\r\n--x y\r\n\
         Content-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--x y--\r\n"
    );
    post("/v1/audio/transcriptions", &body)
        .replace("application/json", "multipart/form-data; boundary=\"x y\"")
}

#[tokio::test]
async fn a_form_goes_to_its_models_backends_and_an_alias_in_it_is_the_model() {
    let (proxy, backend) = start(aliases(&["whisper-1=m"])).await;
    for model in ["m", "whisper-1"] {
        let received = sent(&proxy, &backend, &form(model)).await;
        let expected = form("m").split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(String::from_utf8(received.body).unwrap(), expected);
        assert_eq!(received.headers["content-type"], "multipart/form-data; boundary=\"x y\"");
    }
    assert_eq!(answer(&proxy, &form("other")).await.code(), "model_not_found");
    let explained = form("m").replacen("host:", "x-inferno-explain: 1\r\nhost:", 1);
    let explained = answer(&proxy, &explained).await.json();
    assert_eq!(explained["prompt_tokens_estimated"], 0, "a file is no prompt: {explained}");
    let nameless = answer(&proxy, &form("m").replace("name=\"model\"", "name=\"modes\"")).await;
    assert_eq!(nameless.code(), "missing_required_parameter");
    let cut = answer(&proxy, &form("m").replace("--x y--", "--x yy-")).await;
    assert_eq!((cut.status(), cut.code().as_str()), (400, "malformed_form"));
}

#[tokio::test]
async fn header_fields_are_set_added_and_removed_in_both_directions() {
    let headers = ProxyHeaders {
        request_set: parsed(&["x-team: search"]),
        request_add: parsed(&["x-tag: two", "accept: */*"]),
        request_remove: vec!["User-Agent".into()],
        response_set: parsed(&["x-served-by: inferno"]),
        response_add: parsed(&["vary: origin"]),
        response_remove: vec!["server".into()],
    };
    let (proxy, backend) = start(ProxyConfig { headers, ..ProxyConfig::default() }).await;
    let fields = "X-Team: evil\r\nx-team: twice\r\nx-tag: one\r\nuser-agent: curl\r\nhost:";
    let mut client = proxy.send(chat("").replacen("host:", fields, 1).as_bytes()).await;
    let mut upstream = backend.accept().await;
    let request = String::from_utf8(upstream.rest_or_head().await).unwrap();
    for (line, count) in [
        ("x-team: ", 1),
        ("x-team: search\r\n", 1),
        ("x-tag: ", 2),
        ("user-agent", 0),
        ("accept: */*", 1),
    ] {
        assert_eq!(request.matches(line).count(), count, "{line} in {request}");
    }
    upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: b\r\nx-served-by: b\r\nvary: accept\r\n\r\n{}").await;
    let head = String::from_utf8(client.rest_or_head().await).unwrap().to_lowercase();
    for (line, count) in
        [("x-served-by: ", 1), ("x-served-by: inferno\r\n", 1), ("vary: ", 2), ("server", 0)]
    {
        assert_eq!(head.matches(line).count(), count, "{line} in {head}");
    }
    // In what the proxy says itself, too.
    for request in [get("/v1/models"), get("/nowhere")] {
        let answer = answer(&proxy, &request).await;
        assert_eq!(answer.headers["x-served-by"], "inferno");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn what_caches_are_told_of_origins_is_not_taken_back() {
    let headers =
        ProxyHeaders { response_set: parsed(&["vary: accept"]), ..ProxyHeaders::default() };
    let allow_origins = vec!["https://app.example".into()];
    let cors = ProxyCors { allow_origins, ..ProxyCors::default() };
    let proxy = Proxy::start(ProxyConfig { headers, cors, ..ProxyConfig::default() });
    let mut client = proxy.send(get("/v1/models").as_bytes()).await;
    let head = String::from_utf8(client.rest_or_head().await).unwrap().to_lowercase();
    assert!(head.contains("vary: accept\r\n") && head.contains("vary: origin\r\n"), "{head}");
}

#[tokio::test]
async fn another_base_path_is_taken_for_the_apis() {
    let rewrites = parsed(&["/openai/v1/ => /v1/", "/t => /tokenize"]);
    let (proxy, backend) = start(ProxyConfig { rewrites, ..ProxyConfig::default() }).await;
    for (path, target) in [
        ("/openai/v1/chat/completions?a=%2F", "/v1/chat/completions?a=%2F"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/t", "/tokenize"),
    ] {
        let received = sent(&proxy, &backend, &post(path, r#"{"model":"m"}"#)).await;
        assert_eq!(received.line, format!("POST {target} HTTP/1.1"));
    }
    assert_eq!(answer(&proxy, &get("/openai/v1/models/m")).await.json()["id"], "m");
    assert_eq!(answer(&proxy, &get("/openai/models")).await.code(), "unknown_url");
    proxy.settled().await;
    assert!(proxy.metrics_text().contains("route=\"chat_completions\""));
}

#[tokio::test]
async fn http2_clients_have_their_paths_and_fields_changed_too() {
    let rewrites = parsed(&["/openai/v1/ => /v1/"]);
    let headers =
        ProxyHeaders { response_set: parsed(&["x-served-by: inferno"]), ..ProxyHeaders::default() };
    let routing = RoutingConfig { default_model: Some("m".into()), ..RoutingConfig::default() };
    let (proxy, backend) =
        start(ProxyConfig { rewrites, headers, routing, ..ProxyConfig::default() }).await;
    let mut client = http2::connect(&proxy).await;
    let head = Request::head("http://proxy/openai/v1/files/f?x=1");
    let answer = client.send_request(head.body(Full::default()).unwrap());
    let (answer, ()) = tokio::join!(answer, async {
        let (mut upstream, received) = backend.receive().await;
        assert_eq!(received.line, "HEAD /v1/files/f?x=1 HTTP/1.1");
        upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    });
    let answer = answer.unwrap();
    assert_eq!(
        (&answer.headers()["x-served-by"], &answer.headers()["content-length"]),
        (&"inferno".parse().unwrap(), &"9".parse().unwrap())
    );
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_keys_defaults_are_added_where_a_completion_does_not_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut defaults = Defaults::default();
    for pair in ["max_tokens=256", "temperature=0.25", "effort=low"] {
        defaults.add_pair(pair).unwrap();
    }
    let new = NewKey { name: "k".into(), defaults, ..NewKey::default() };
    let (config, [key, plain]) =
        keys(folder.path(), [new, NewKey { name: "plain".into(), ..NewKey::default() }]);
    let (proxy, backend) = start(ProxyConfig { aliases: parsed(&["a=m"]), ..config }).await;
    let all = r#""max_tokens":256,"temperature":0.25,"effort":"low","#;
    for (path, before, after) in [
        ("/v1/chat/completions", r#"{"model":"m"}"#, format!(r#"{{{all}"model":"m"}}"#)),
        ("/v1/completions", r#" { "model":"a" }"#, format!(r#" {{{all} "model":"m" }}"#)),
        (
            "/v1/chat/completions",
            r#"{"model":"m","max_completion_tokens":1,"temp\u0065rature":null}"#,
            r#"{"effort":"low","model":"m","max_completion_tokens":1,"temp\u0065rature":null}"#
                .into(),
        ),
        ("/v1/embeddings", r#"{"model":"m"}"#, r#"{"model":"m"}"#.into()),
        ("/v1/responses", r#"{"model":"m"}"#, r#"{"model":"m"}"#.into()),
    ] {
        let received = sent(&proxy, &backend, &bearer(&post(path, before), &key)).await;
        assert_eq!(String::from_utf8(received.body).unwrap(), after, "{path}");
        assert_eq!(received.headers["content-length"], after.len().to_string());
    }
    let received = sent(&proxy, &backend, &bearer(&chat(""), &plain)).await;
    assert_eq!(received.body, br#"{"model":"m"}"#);
}

#[tokio::test]
async fn what_makes_no_sense_keeps_the_proxy_from_starting() {
    let members = Arc::<super::support::Members>::default();
    let headers = ProxyHeaders { request_set: parsed(&["host: x"]), ..ProxyHeaders::default() };
    for (config, why) in [
        (aliases(&["a=b", "b=m"]), "proxy.aliases: `a` stands for `b`"),
        (
            ProxyConfig { rewrites: parsed(&["/v1/ => /v1/x/"]), ..ProxyConfig::default() },
            "proxy.rewrites: `/v1/ => /v1/x/` would take away",
        ),
        (
            ProxyConfig { headers, ..ProxyConfig::default() },
            "proxy.headers.request_set: `host` may not be changed",
        ),
    ] {
        let config = ProxyConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let fleet = Arc::clone(&members);
        let error = TrafficServer::start(&config, fleet, &MetricsCollector::new()).unwrap_err();
        assert!(error.to_string().starts_with(why), "{error}");
        let config = Config { proxy: config, ..Config::default() };
        let [error] = &inferno_proxy::check(&config)[..] else { panic!("one error: {why}") };
        assert!(error.to_string().starts_with(why), "{error}");
    }
}

const PAGE: &str = include_str!("../../../../docs/transformation.md");

/// What stands on the page between ```kind and ```.
fn block(kind: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{kind}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_pages_configuration_does_what_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inferno.toml");
    std::fs::write(&path, block("toml")).unwrap();
    let args = ConfigArgs { config: Some(path), set: Vec::new() };
    let config = Config::from_sources(&args, []).unwrap();
    let (proxy, mut backend) = (Proxy::start(config.proxy.clone()), Backend::start("b").await);
    let mut node = (*backend.node).clone();
    node.models = vec![ModelRef { id: "smollm2-135m-instruct".into(), sha256: None }];
    backend.node = Arc::new(node);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let asked = post("/openai/v1/chat/completions", r#"{"model":"gpt-4o"}"#);
    let asked = asked.replacen("host:", "user-agent: curl\r\nhost:", 1);
    let received = sent(&proxy, &backend, &asked).await;
    assert_eq!(received.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(received.body, br#"{"model":"smollm2-135m-instruct"}"#);
    assert_eq!(received.headers["x-served-for"], "inferno");
    assert!(!received.headers.contains_key("user-agent"));
    let list = answer(&proxy, &get("/v1/models")).await;
    assert!(list.headers["strict-transport-security"].ends_with("includeSubDomains"));
    assert_eq!(list.json()["data"].as_array().unwrap().len(), 3);
    sent(&proxy, &backend, &get("/v1/files")).await;
    // The same aliases by a variable, and a value with a comma by a flag.
    let console = block("console");
    let quoted = |before: &str| {
        let (_, rest) = console.split_once(&format!("{before}'")).unwrap();
        rest.split_once('\'').unwrap().0.to_owned()
    };
    let variables = [("INFERNO_PROXY__ALIASES".into(), quoted("INFERNO_PROXY__ALIASES=").into())];
    let args = ConfigArgs { config: Some("/dev/null".into()), set: vec![quoted("--set ")] };
    let said = Config::from_sources(&args, variables).unwrap();
    assert_eq!(said.proxy.aliases, config.proxy.aliases);
    assert_eq!(said.proxy.headers.response_set, parsed(&["cache-control: no-store, private"]));
}
