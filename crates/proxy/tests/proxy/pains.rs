//! What users of other gateways complained about, where no other test here shows that it does not happen.
//! `docs/pains.md` lists them all with the tests that do; the last test here holds that page to the code.

use super::support::{Backend, EVENTS, Proxy, chat, node, ok, post, within};
use inferno_shared::{
    config::{ProxyConfig, ProxyRetry, ProxyTimeouts, RoutingConfig, RoutingPolicy},
    membership::{ModelRef, NodeState, NodeView},
};
use std::{path::Path, sync::Arc};
use tokio::net::TcpListener;

/// A node at an address where nobody listens.
async fn absent(id: &str, state: NodeState) -> Arc<NodeView> {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    node(id, address, state)
}

/// Complaint 5 (production-stack#749, sglang#7028): whoever is bound to a backend that hangs is bound for ever.
#[tokio::test]
async fn a_session_leaves_a_backend_that_hangs() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let proxy = Proxy::start(ProxyConfig {
        routing: RoutingConfig { policy: RoutingPolicy::Session, ..RoutingConfig::default() },
        timeouts: ProxyTimeouts { first_byte_ms: 400, ..ProxyTimeouts::default() },
        retry: ProxyRetry { eject_after: 2, ejection_ms: 60_000, ..ProxyRetry::default() },
        ..ProxyConfig::default()
    });
    proxy.members.set(vec![Arc::clone(&a.node), Arc::clone(&b.node)]);
    let request = chat("").replace("host:", "x-session-id: s\r\nhost:");
    let mut hung = Vec::new();
    let mut first = None;
    for _ in 0..2 {
        let mut client = proxy.send(request.as_bytes()).await;
        let (upstream, whose) = within("either", async {
            tokio::select! {
                (upstream, _) = a.receive() => (upstream, "a"),
                (upstream, _) = b.receive() => (upstream, "b"),
            }
        })
        .await;
        hung.push(upstream);
        assert_eq!(*first.get_or_insert(whose), whose, "a session stays where it is");
        assert_eq!(client.message().await.status(), 504);
    }
    let other = if first == Some("a") { &b } else { &a };
    let mut client = proxy.send(request.as_bytes()).await;
    let (mut upstream, _) = other.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}

/// Complaint 6 (production-stack#601): backends that drain get requests, and lose streams.
#[tokio::test]
async fn a_backend_that_drains_gets_nothing_new_and_ends_its_stream() {
    let (leaving, staying) = (Backend::start("leaving").await, Backend::start("staying").await);
    let proxy = Proxy::start(ProxyConfig::default());
    proxy.members.set(vec![Arc::clone(&leaving.node)]);
    let mut streaming = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut stream, _) = leaving.receive().await;
    stream.say(EVENTS).await;
    streaming.head().await;
    let mut draining = (*leaving.node).clone();
    draining.state = NodeState::Draining;
    proxy.members.set(vec![Arc::new(draining), Arc::clone(&staying.node)]);
    let mut client = proxy.connect().await;
    let mut upstream = None;
    for round in 0..10 {
        client.say(chat("")).await;
        let upstream = match &mut upstream {
            None => upstream.insert(staying.accept().await),
            Some(upstream) => upstream,
        };
        upstream.message().await;
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
        let event = format!("data: {round}\n\n");
        stream.say_chunk(&event).await;
        assert_eq!(streaming.event().await, event);
    }
    stream.say("0\r\n\r\n").await;
    assert_eq!(streaming.chunk().await, None, "to its end");
}

/// Complaint 7 (sglang#3802): nothing starts, or lists models, while any worker is down.
#[tokio::test]
async fn models_are_listed_whoever_is_down() {
    let proxy = Proxy::start(ProxyConfig::default());
    let list = "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
    let mut client = proxy.connect().await;
    let mut ids = async || {
        client.say(list).await;
        let answer = client.message().await;
        assert_eq!(answer.status(), 200);
        let models = answer.json()["data"].as_array().unwrap().clone();
        let ids = models.iter().map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert!(ids().await.is_empty(), "without any backend too");
    let up = Backend::start("up").await;
    let mut down = (*absent("down", NodeState::Suspect).await).clone();
    down.models = vec![ModelRef { id: "n".into(), sha256: None }];
    let unreachable = absent("unreachable", NodeState::Ready).await;
    proxy.members.set(vec![Arc::clone(&up.node), Arc::new(down), unreachable]);
    assert_eq!(ids().await, ["m", "n"]);
}

/// Complaint 8 (sglang#14532): requests that come together all go where the first one's prompt is cached.
#[tokio::test]
async fn a_burst_of_one_prompt_is_counted_at_selection_and_spread() {
    const BURST: u32 = 40;
    let mut backends = Vec::new();
    for id in ["a", "b", "c", "d"] {
        backends.push(Backend::start(id).await);
    }
    let proxy = Proxy::start(ProxyConfig::default());
    proxy.members.set(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    // As long as a system prompt that everyone has.
    let request =
        chat(&format!(r#","messages":[{{"role":"user","content":"{}"}}]"#, "x".repeat(8_000)));
    let mut clients = Vec::new();
    for _ in 0..BURST {
        clients.push(proxy.send(request.as_bytes()).await);
    }
    let loads = || backends.iter().map(Backend::in_flight).collect::<Vec<_>>();
    // Nobody has answered anything: what is known is what was chosen.
    within("all to be chosen for", async {
        while loads().iter().sum::<u32>() < BURST {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (loads, mean) = (loads(), BURST / 4);
    // The policy's own bound: half more than the mean, and eight.
    let most = mean * 3 / 2 + 8 + 1;
    assert!(loads.iter().all(|&load| load <= most), "{loads:?}");
    assert!(loads.iter().filter(|&&load| load > 0).count() > 1, "{loads:?}");
    drop(clients);
    proxy.settled().await;
    assert!(backends.iter().all(|backend| backend.in_flight() == 0));
}

/// The series of a scrape, without their values.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Complaint 13 (litellm#35666): labels from what clients send, and gauges of what is long gone.
#[tokio::test]
async fn what_clients_send_makes_no_series_and_what_is_gone_leaves_none() {
    let (proxy, backend) = Proxy::with_backend().await;
    let known = Arc::clone(&backend.node);
    let odd = async |mark: &str| {
        for request in [
            post("/v1/completions", &format!(r#"{{"model":"{mark}"}}"#)),
            post(&format!("/v1/{mark}"), &format!(r#"{{"model":"{mark}","user":"{mark}"}}"#)),
            post(&format!("/{mark}?{mark}"), "{}"),
            format!("{} /v1/models HTTP/1.1\r\nhost: {mark}\r\n\r\n", mark.to_uppercase()),
            format!("GET /v1/models/{mark} HTTP/1.1\r\nhost: p\r\nuser-agent: {mark}\r\n\r\n"),
            format!(
                "GET /v1/models HTTP/1.1\r\nhost: p\r\nx-session-id: {mark}\r\nx-request-id: {mark}\r\n\r\n"
            ),
            format!("{mark}\r\n\r\n"),
        ] {
            proxy.send(request.as_bytes()).await.message().await;
        }
        proxy.settled().await;
        proxy.metrics_text()
    };
    let before = odd("qfirst").await;
    assert!(before.contains(r#"inferno_proxy_backend_in_flight{backend="b"} 0"#), "{before}");
    let mut after = String::new();
    for round in 0..20 {
        after = odd(&format!("qother{round}x")).await;
    }
    assert_eq!(series(&before), series(&after));
    assert!(!after.to_lowercase().contains("qother") && !after.contains("qfirst"), "{after}");
    proxy.members.set(Vec::new());
    let gone = proxy.metrics_text();
    assert!(!gone.contains(r#"backend="b""#), "{gone}");
    drop(known);
}

/// The tests that a text names, as `path/of/file.rs::test`.
fn named(text: &str) -> Vec<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once(".rs::")).collect()
}

#[test]
fn the_page_of_complaints_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/pains.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    for number in 1..=15 {
        let row = rows.iter().find(|row| row.starts_with(&format!("| {number} |")));
        let row = row.unwrap_or_else(|| panic!("complaint {number} is missing"));
        assert!(!named(row).is_empty(), "complaint {number} names no test");
    }
    for (path, test) in named(&page) {
        let file = root.join(format!("{path}.rs"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|why| panic!("{path}.rs: {why}"));
        let at =
            text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("no {test} in {path}.rs"));
        let before = text[..at].rsplit("\n\n").next().unwrap_or_default();
        let is_test = before.contains("#[test]") || before.contains("#[tokio::test");
        assert!(is_test, "{path}.rs::{test} is no test");
    }
}
