//! Limits of keys, and the queue in front of the backends.

use super::support::{Backend, END, EVENTS, Message, Proxy, Wire, chat, node, ok, post, within};
use inferno_proxy::keys::{NewKey, Timestamp, create};
use inferno_shared::{
    config::{KeyLimits, ProxyConfig, ProxyLimits},
    membership::{NodeState, NodeType, NodeView},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, sync::Semaphore};

/// A backend that answers as soon as it is allowed to, and remembers who asked.
struct Gated {
    node: Arc<NodeView>,
    asked: Arc<Mutex<Vec<String>>>,
    allowed: Arc<Semaphore>,
}

impl Gated {
    async fn start(id: &str, max_concurrency: Option<u32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = node(id, listener.local_addr().unwrap(), NodeState::Ready);
        let node = Arc::new(NodeView { max_concurrency, ..NodeView::clone(&plain) });
        let (asked, allowed) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Semaphore::new(0)));
        let (seen, gate) = (Arc::clone(&asked), Arc::clone(&allowed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Wire::new(stream), Arc::clone(&seen), Arc::clone(&gate)));
            }
        });
        Self { node, asked, allowed }
    }

    /// Waits until `count` requests have come; whose they were.
    async fn asked(&self, count: usize) -> Vec<String> {
        within("requests at the backend", async {
            while self.asked.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut wire: Wire, asked: Arc<Mutex<Vec<String>>>, allowed: Arc<Semaphore>) {
    while let Some(request) = wire.next_message().await {
        let tenant = request.headers.get("x-inferno-tenant").cloned().unwrap_or_default();
        asked.lock().unwrap().push(tenant);
        allowed.acquire().await.unwrap().forget();
        wire.say(ok(r#"{"usage":{"total_tokens":10}}"#)).await;
    }
}

/// A proxy with keys, and the way to send with each.
struct Scene {
    proxy: Proxy,
    _folder: tempfile::TempDir,
    keys: Vec<(String, String)>,
}

impl Scene {
    fn new(keys: &[(&str, KeyLimits)], limits: ProxyLimits) -> Self {
        Self::with(keys, |config| config.limits = limits)
    }

    fn with(keys: &[(&str, KeyLimits)], change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let make = |(name, limits): &(&str, KeyLimits)| {
            let new = NewKey { name: (*name).into(), limits: limits.clone(), ..NewKey::default() };
            let created = create(&path, new, Timestamp::now()).unwrap();
            (created.entry.id.as_str().to_owned(), created.key.expose().to_owned())
        };
        let keys = keys.iter().map(make).collect();
        let keys_file = Some(path.clone());
        let mut config = ProxyConfig { keys_file, ..ProxyConfig::default() };
        change(&mut config);
        Self { proxy: Proxy::start(config), _folder: folder, keys }
    }

    fn id(&self, key: usize) -> &str {
        &self.keys[key].0
    }

    async fn send(&self, key: usize, request: &str) -> Wire {
        let field = format!("authorization: Bearer {}\r\nhost:", self.keys[key].1);
        self.proxy.send(request.replacen("host:", &field, 1).as_bytes()).await
    }

    async fn answer(&self, key: usize, request: &str) -> Message {
        self.send(key, request).await.message().await
    }

    /// Waits until so many wait for a backend.
    async fn waiting(&self, count: u64) {
        within("requests in the queue", async {
            while self.proxy.metrics.vitals().queue_depth != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn refusal(answer: &Message) -> (u16, String) {
    (answer.status(), answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

const NONE: KeyLimits =
    KeyLimits { concurrency_max: None, requests_per_minute: None, tokens_per_minute: None };

fn tokens(limit: u64) -> KeyLimits {
    KeyLimits { tokens_per_minute: Some(limit), ..NONE }
}

/// Many connections at once.
fn make_room_for_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[tokio::test]
async fn a_thousand_waiting_requests_of_one_key_do_not_delay_another_key() {
    make_room_for_files();
    let scene = Scene::new(&[("many", NONE), ("few", NONE)], ProxyLimits::default());
    let backend = Gated::start("b", Some(2)).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut clients = Vec::new();
    for _ in 0..1_002 {
        clients.push(scene.send(0, &chat("")).await);
    }
    scene.waiting(1_000).await;
    assert_eq!(backend.asked(2).await, [scene.id(0), scene.id(0)], "two places");
    for turn in 0..3 {
        let (waiting, asked) = (1_000 - 2 * turn, 2 + 3 * turn as usize);
        let mut client = scene.send(1, &chat("")).await;
        scene.waiting(waiting + 1).await;
        backend.allowed.add_permits(1);
        let order = backend.asked(asked + 1).await;
        assert_eq!(order.last().unwrap(), scene.id(1), "the next place is the other key's");
        // The older of both ends, and then this one.
        backend.allowed.add_permits(2);
        backend.asked(asked + 3).await;
        assert_eq!(client.message().await.status(), 200);
        scene.waiting(waiting - 2).await;
    }
    let text = scene.proxy.metrics_text();
    assert!(text.contains("inferno_proxy_queue_waiting{model=\"m\"} 994"), "{text}");
    drop(clients);
    scene.waiting(0).await;
    scene.proxy.settled().await;
    assert_eq!(backend.node.load.in_flight(), 0);
    assert!(scene.proxy.metrics_text().contains("inferno_proxy_queue_waiting{model=\"m\"} 0"));
}

#[tokio::test]
async fn concurrency_does_not_bypass_a_limit() {
    let scene = Scene::new(&[("k", tokens(1_000))], ProxyLimits::default());
    let backend = Gated::start("b", None).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    // Each reserves a hundred, though none will use more than ten.
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(scene.send(0, &chat(r#","max_tokens":100"#)).await);
    }
    let mut limited = 0;
    // All are judged before the first is over.
    within("refusals", async {
        while !scene.proxy.metrics_text().contains("limited_total{reason=\"tokens\"} 30") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    backend.asked(10).await;
    backend.allowed.add_permits(40);
    for mut client in clients {
        let answer = client.message().await;
        match answer.status() {
            200 => {}
            _ => {
                assert_eq!(refusal(&answer), refused(429, "rate_limit_exceeded"));
                assert_eq!(answer.json()["error"]["type"], "tokens");
                limited += 1;
            }
        }
    }
    let served = backend.asked.lock().unwrap().len();
    assert_eq!((served, limited), (10, 30));
    scene.proxy.settled().await;
    let answer = scene.answer(0, &chat(r#","max_tokens":100"#)).await;
    assert_eq!(answer.status(), 200, "what was not used came back");
    let left: usize = answer.headers["x-ratelimit-remaining-tokens"].parse().unwrap();
    assert_eq!(left, 1_000 - 10 * served - 100, "ten for each, and what this one reserved");
}

#[tokio::test]
async fn requests_a_minute_are_counted_and_told() {
    let limits = KeyLimits { requests_per_minute: Some(2), ..NONE };
    let scene = Scene::new(&[("a", limits), ("b", NONE)], ProxyLimits::default());
    let backend = Gated::start("b", None).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    backend.allowed.add_permits(9);
    for left in ["1", "0"] {
        let answer = scene.answer(0, &chat("")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], "2");
        assert_eq!(answer.headers["x-ratelimit-remaining-requests"], left);
        assert!(answer.headers["x-ratelimit-reset-requests"].ends_with('s'));
        assert!(!answer.headers.contains_key("x-ratelimit-limit-tokens"), "not limited");
    }
    let answer = scene.answer(0, &chat("")).await;
    assert_eq!(refusal(&answer), refused(429, "rate_limit_exceeded"));
    assert_eq!(answer.json()["error"]["type"], "requests");
    let after: u64 = answer.headers["retry-after"].parse().unwrap();
    let after_ms: u64 = answer.headers["retry-after-ms"].parse().unwrap();
    assert!((58..=61).contains(&after) && after == after_ms.div_ceil(1_000), "{after} {after_ms}");
    assert_eq!(answer.headers["x-ratelimit-remaining-requests"], "0");
    assert_eq!(scene.answer(1, &chat("")).await.status(), 200, "another key");
    let models = "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
    assert_eq!(scene.answer(0, models).await.status(), 200, "it takes nothing from anyone");
    assert!(scene.proxy.metrics_text().contains("limited_total{reason=\"requests\"} 1"));
}

#[tokio::test]
async fn a_stream_counts_until_it_ends() {
    let limits = KeyLimits { concurrency_max: Some(1), ..NONE };
    let scene = Scene::new(&[("k", limits)], ProxyLimits::default());
    let backend = Backend::start("b").await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut client = scene.send(0, &chat(r#","stream":true"#)).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: 1\n\n").await;
    client.head().await;
    client.event().await;
    let answer = scene.answer(0, &chat("")).await;
    assert_eq!(refusal(&answer), refused(429, "concurrency_limit_exceeded"));
    assert_eq!(answer.headers["retry-after"], "1");
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
    scene.proxy.settled().await;
    let mut client = scene.send(0, &chat("")).await;
    let mut upstream = backend.next(upstream).await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn what_a_stream_took_is_settled_by_what_it_tells() {
    let scene = Scene::new(&[("k", tokens(1_000))], ProxyLimits::default());
    let backend = Backend::start("b").await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut client = scene.send(0, &chat(r#","stream":true,"max_tokens":900"#)).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: {\"usage\":null}\n\n").await;
    upstream.say_chunk("data: {\"usage\":{\"total_tokens\":300}}\n\n").await;
    upstream.say(END).await;
    client.message().await;
    scene.proxy.settled().await;
    let answer = scene.answer(0, &chat(r#","max_tokens":800"#)).await;
    assert_eq!(refusal(&answer), refused(429, "rate_limit_exceeded"), "300 are gone");
    assert_eq!(answer.headers["x-ratelimit-remaining-tokens"], "700");
    assert!(!answer.headers.contains_key("x-should-retry"));
    let answer = scene.answer(0, &chat(r#","max_tokens":2000"#)).await;
    assert_eq!(refusal(&answer), refused(429, "rate_limit_exceeded"));
    assert_eq!(answer.headers["x-should-retry"], "false", "no minute has so many");
    assert!(!answer.headers.contains_key("retry-after"));
    let mut client = scene.send(0, &chat("")).await;
    let mut upstream = backend.next(upstream).await;
    upstream.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!(
        answer.headers["x-ratelimit-remaining-tokens"], "188",
        "512 for an answer of unknown length"
    );
    scene.proxy.settled().await;
    let answer = scene.answer(0, &chat(r#","max_tokens":2000"#)).await;
    assert_eq!(answer.headers["x-ratelimit-remaining-tokens"], "700", "a refusal took none");
}

/// Another proxy, as it is known to ours.
fn other_proxy(id: &str, state: NodeState) -> Arc<NodeView> {
    let other = node(id, "127.0.0.1:9".parse().unwrap(), state);
    Arc::new(NodeView { node_type: NodeType::Proxy, models: Vec::new(), ..NodeView::clone(&other) })
}

#[tokio::test]
async fn limits_are_divided_among_the_proxies_that_serve() {
    let limits = KeyLimits { requests_per_minute: Some(6), ..NONE };
    let scene = Scene::new(&[("k", limits)], ProxyLimits::default());
    let backend = Gated::start("b", None).await;
    backend.allowed.add_permits(9);
    let told = async |others: Vec<Arc<NodeView>>, limit: &str| {
        scene.proxy.members.set([vec![Arc::clone(&backend.node)], others].concat());
        within("the new limit", async {
            loop {
                let answer = scene.answer(0, &chat("")).await;
                if answer.headers["x-ratelimit-limit-requests"] == limit {
                    break;
                }
            }
        })
        .await;
    };
    told(vec![], "6").await;
    told(vec![other_proxy("p1", NodeState::Ready), other_proxy("p2", NodeState::Suspect)], "2")
        .await;
    told(vec![other_proxy("p1", NodeState::Ready), other_proxy("p2", NodeState::Draining)], "3")
        .await;
}

#[tokio::test]
async fn without_keys_all_share_the_limits_of_those_that_have_none_of_their_own() {
    let key_limits = KeyLimits { requests_per_minute: Some(2), ..NONE };
    let proxy = Proxy::start(ProxyConfig { key_limits, ..ProxyConfig::default() });
    let backend = Gated::start("b", None).await;
    backend.allowed.add_permits(9);
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let answer = async || proxy.send(chat("").as_bytes()).await.message().await;
    for left in ["1", "0"] {
        assert_eq!(answer().await.headers["x-ratelimit-remaining-requests"], left);
    }
    let refused_one = answer().await;
    assert_eq!(refusal(&refused_one), refused(429, "rate_limit_exceeded"));
    let message = refused_one.json()["error"]["message"].to_string();
    assert!(!message.contains("key"), "there is none: {message}");
}

#[tokio::test]
async fn a_key_without_limits_of_its_own_has_those_of_the_configuration() {
    let own = KeyLimits { requests_per_minute: Some(9), ..NONE };
    let all = KeyLimits { requests_per_minute: Some(3), concurrency_max: Some(7), ..NONE };
    assert_eq!(own.over(&all), KeyLimits { requests_per_minute: Some(9), ..all.clone() });
    let scene = Scene::with(&[("own", own), ("none", NONE)], |config| config.key_limits = all);
    let backend = Gated::start("b", None).await;
    backend.allowed.add_permits(9);
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    for (key, limit) in [(0, "9"), (1, "3")] {
        let answer = scene.answer(key, &chat("")).await;
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], limit);
    }
}

#[tokio::test]
async fn all_models_together_have_a_limit_of_their_own() {
    let limits = ProxyLimits { concurrency_max: Some(1), queue: false, ..ProxyLimits::default() };
    let scene = Scene::new(&[("k", NONE)], limits);
    let backend = Gated::start("b", Some(8)).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut first = scene.send(0, &chat("")).await;
    backend.asked(1).await;
    let mut second = scene.send(0, &chat("")).await;
    scene.waiting(1).await;
    backend.allowed.add_permits(1);
    assert_eq!(first.message().await.status(), 200);
    backend.asked(2).await;
    backend.allowed.add_permits(1);
    assert_eq!(second.message().await.status(), 200);
}

#[tokio::test]
async fn without_a_queue_a_backend_gets_more_than_it_has_places_for() {
    let limits = ProxyLimits { queue: false, ..ProxyLimits::default() };
    let scene = Scene::new(&[("k", NONE)], limits);
    let backend = Gated::start("b", Some(1)).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut both = [scene.send(0, &chat("")).await, scene.send(0, &chat("")).await];
    backend.asked(2).await;
    backend.allowed.add_permits(2);
    for client in &mut both {
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test]
async fn limits_stay_whole_where_the_configuration_says_so() {
    let limits = KeyLimits { requests_per_minute: Some(6), ..NONE };
    let whole = ProxyLimits { divide_among_proxies: false, ..ProxyLimits::default() };
    let scene = Scene::new(&[("k", limits)], whole);
    let backend = Gated::start("b", None).await;
    backend.allowed.add_permits(9);
    scene.proxy.members.set(vec![Arc::clone(&backend.node), other_proxy("p", NodeState::Ready)]);
    let answer = scene.answer(0, &chat("")).await;
    assert_eq!(answer.headers["x-ratelimit-limit-requests"], "6");
}

#[tokio::test]
async fn a_queue_that_is_full_or_takes_too_long_says_so() {
    let limits = ProxyLimits { queue_max: 1, queue_timeout_ms: 50, ..ProxyLimits::default() };
    let scene = Scene::new(&[("a", NONE), ("b", NONE)], limits);
    let backend = Gated::start("b", Some(1)).await;
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let _running = scene.send(0, &chat("")).await;
    backend.asked(1).await;
    let answer = scene.answer(0, &chat("")).await;
    assert_eq!(refusal(&answer), refused(503, "queue_timeout"));
    assert_eq!(answer.headers["retry-after"], "1");

    let limits = ProxyLimits { queue_max: 1, ..ProxyLimits::default() };
    let scene = Scene::new(&[("a", NONE)], limits);
    scene.proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut running = scene.send(0, &chat("")).await;
    backend.asked(2).await;
    let mut waiting = scene.send(0, &chat("")).await;
    scene.waiting(1).await;
    assert_eq!(refusal(&scene.answer(0, &chat("")).await), refused(503, "queue_full"));
    let tokenize = post("/v1/tokenize", r#"{"model":"m"}"#);
    backend.allowed.add_permits(4);
    assert_eq!(scene.answer(0, &tokenize).await.status(), 200, "it takes no place");
    assert_eq!(running.message().await.status(), 200);
    assert_eq!(waiting.message().await.status(), 200);
    assert!(scene.proxy.metrics_text().contains("limited_total{reason=\"queue_full\"} 1"));
}

#[tokio::test]
async fn whoever_waits_is_called_when_a_backend_comes_and_forgotten_when_it_leaves() {
    let scene = Scene::new(&[("k", NONE)], ProxyLimits::default());
    let (first, second) = (Gated::start("b1", Some(1)).await, Gated::start("b2", Some(1)).await);
    scene.proxy.members.set(vec![Arc::clone(&first.node)]);
    let _running = scene.send(0, &chat("")).await;
    first.asked(1).await;
    let gone = scene.send(0, &chat("")).await;
    scene.waiting(1).await;
    drop(gone);
    scene.waiting(0).await;
    let mut waits = scene.send(0, &chat("")).await;
    scene.waiting(1).await;
    scene.proxy.members.set(vec![Arc::clone(&first.node), Arc::clone(&second.node)]);
    second.asked(1).await;
    second.allowed.add_permits(1);
    assert_eq!(waits.message().await.status(), 200);
    let mut last = scene.send(0, &chat("")).await;
    second.asked(2).await;
    let mut waits = scene.send(0, &chat("")).await;
    scene.waiting(1).await;
    scene.proxy.members.set(Vec::new());
    let answer = waits.message().await;
    assert_eq!(
        refusal(&answer),
        refused(503, "no_backends"),
        "at once, and not when its time is up"
    );
    second.allowed.add_permits(1);
    assert_eq!(last.message().await.status(), 200);
}
