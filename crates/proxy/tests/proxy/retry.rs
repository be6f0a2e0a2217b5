//! When another backend is asked, and when not.

use super::support::{Backend, END, EVENTS, Message, Proxy, Wire, chat, node, ok, post, within};
use inferno_shared::{
    config::{ProxyConfig, ProxyRetry, ProxyTimeouts, RoutingConfig, RoutingPolicy},
    membership::{NodeState, NodeView},
};
use std::{sync::Arc, task::Poll, time::Duration};
use tokio::net::TcpListener;

/// Round robin over `nodes`, so that the test knows who is asked first.
fn in_turn(nodes: Vec<Arc<NodeView>>) -> Proxy {
    in_turn_with(ProxyRetry::default(), nodes)
}

fn in_turn_with(retry: ProxyRetry, nodes: Vec<Arc<NodeView>>) -> Proxy {
    let routing = RoutingConfig { policy: RoutingPolicy::RoundRobin, ..RoutingConfig::default() };
    let proxy = Proxy::start(ProxyConfig { routing, retry, ..ProxyConfig::default() });
    proxy.members.set(nodes);
    proxy
}

/// A node at an address where nobody listens any more.
async fn absent(id: &str) -> Arc<NodeView> {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    node(id, address, NodeState::Ready)
}

#[tokio::test]
async fn a_refused_connection_is_reported_and_another_backend_asked() {
    let (gone, backend) = (absent("gone").await, Backend::start("b").await);
    let proxy = in_turn(vec![Arc::clone(&gone), Arc::clone(&backend.node)]);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    proxy.settled().await;
    assert_eq!(proxy.members.refused(), ["gone"]);
    assert_eq!((gone.load.in_flight(), backend.in_flight()), (0, 0));
    assert!(proxy.metrics_text().contains("inferno_proxy_retries_total 1"));
}

#[tokio::test]
async fn nobody_is_asked_twice() {
    let nodes = vec![absent("x").await, absent("y").await];
    let proxy = in_turn(nodes);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "backend_unreachable"));
    let mut refused = proxy.members.refused();
    refused.sort();
    assert_eq!(refused, ["x", "y"]);
}

#[tokio::test]
async fn no_more_backends_are_asked_than_the_configuration_allows() {
    let nodes = vec![absent("x").await, absent("y").await, absent("z").await];
    for attempts_max in [1, 2] {
        let retry = ProxyRetry { attempts_max, ..ProxyRetry::default() };
        let proxy = in_turn_with(retry, nodes.clone());
        let mut client = proxy.send(chat("").as_bytes()).await;
        assert_eq!(client.message().await.code(), "backend_unreachable");
        assert_eq!(proxy.members.refused().len(), attempts_max);
    }
}

#[tokio::test]
async fn a_backend_that_dies_unanswering_is_replaced_as_often_as_the_configuration_says() {
    for replays_max in [0, 2] {
        let backends =
            [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
        let retry = ProxyRetry { replays_max, ..ProxyRetry::default() };
        let nodes = backends.iter().map(|backend| Arc::clone(&backend.node)).collect();
        let proxy = in_turn_with(retry, nodes);
        let mut client = proxy.send(chat("").as_bytes()).await;
        for _ in 0..=replays_max {
            tokio::select! {
                died = backends[0].receive() => drop(died),
                died = backends[1].receive() => drop(died),
                died = backends[2].receive() => drop(died),
            }
        }
        assert_eq!(client.message().await.code(), "backend_lost");
        let retries = format!("inferno_proxy_retries_total {replays_max}\n");
        assert!(proxy.metrics_text().contains(&retries), "{replays_max}");
    }
}

#[tokio::test]
async fn a_backend_that_dies_unanswering_is_replaced_once() {
    let backends =
        [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let proxy = in_turn(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    let mut client = proxy.send(chat("").as_bytes()).await;
    drop(backends[0].receive().await);
    tokio::select! {
        died = backends[1].receive() => drop(died),
        died = backends[2].receive() => drop(died),
    }
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (502, "backend_lost"));
    proxy.settled().await;
    assert!(backends.iter().all(|backend| backend.in_flight() == 0));
}

#[tokio::test]
async fn a_request_that_kills_backends_does_not_go_round_the_fleet() {
    let backends =
        [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let proxy = in_turn(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    // Each keeps a connection for this client, so that its death looks like a stale connection at first.
    let (mut client, mut kept) = (proxy.connect().await, Vec::new());
    for backend in backends {
        client.say(chat("")).await;
        let (mut wire, _) = backend.receive().await;
        wire.say(ok("{}")).await;
        client.message().await;
        proxy.settled().await;
        kept.push((backend, wire));
    }
    client.say(chat(r#","poison":1"#)).await;
    for _ in 0..2 {
        let (bitten, _) = within("a victim", next_of(&mut kept)).await;
        kept.remove(bitten);
    }
    assert_eq!(client.message().await.code(), "backend_lost");
    drop(proxy);
    let (_, survivor) = &mut kept[0];
    assert_eq!(survivor.rest().await, b"", "it never saw the request");
}

/// The next request on any of the kept connections, and whose it is.
async fn next_of(kept: &mut [(Backend, Wire)]) -> (usize, Message) {
    let mut waiting: Vec<_> = kept.iter_mut().map(|(_, wire)| Box::pin(wire.message())).collect();
    std::future::poll_fn(|context| {
        let ready = waiting.iter_mut().enumerate().find_map(|(index, message)| {
            match message.as_mut().poll(context) {
                Poll::Ready(message) => Some((index, message)),
                Poll::Pending => None,
            }
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[tokio::test]
async fn an_endpoint_we_do_not_know_is_never_replayed() {
    let backends = [Backend::start("a").await, Backend::start("b").await];
    let proxy = in_turn(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    let mut client = proxy.send(post("/v1/fine_tuning/jobs", r#"{"model":"m"}"#).as_bytes()).await;
    drop(backends[0].receive().await);
    assert_eq!(client.message().await.code(), "backend_lost");
}

#[tokio::test]
async fn whoever_answered_a_byte_is_not_overtaken() {
    let backends = [Backend::start("a").await, Backend::start("b").await];
    let proxy = in_turn(backends.iter().map(|backend| Arc::clone(&backend.node)).collect());
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backends[0].receive().await;
    upstream.say("HTTP/1.1 2").await;
    drop(upstream);
    assert_eq!(client.message().await.code(), "backend_lost");
    assert!(proxy.metrics_text().contains("inferno_proxy_retries_total 0"));
}

#[tokio::test]
async fn connections_are_reused_and_stale_ones_replaced_unseen() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.connect().await;
    client.say(chat("")).await;
    let (mut upstream, _) = backend.receive().await;
    for _ in 0..5 {
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
        client.say(chat("")).await;
        upstream.message().await;
    }
    upstream.say(ok("{}")).await;
    client.message().await;
    // Dies while idle: the next request goes on a new connection, and nothing failed.
    drop(upstream);
    client.say(chat("")).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    // Dies on the next request: from here that is a stale connection too, and tried again.
    client.say(chat("")).await;
    upstream.message().await;
    drop(upstream);
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    assert!(proxy.metrics_text().contains("inferno_proxy_retries_total 0"));
}

#[tokio::test]
async fn what_a_backend_says_unasked_answers_nobody() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut idle, _) = backend.receive().await;
    idle.say(ok("1")).await;
    client.message().await;
    proxy.settled().await;
    idle.say(ok("stray")).await;
    client.say(chat("")).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("2")).await;
    assert_eq!(client.message().await.body, b"2");
}

#[tokio::test]
async fn a_restarted_backend_gets_no_connection_of_its_former_self() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut former, _) = backend.receive().await;
    former.say(ok("{}")).await;
    client.message().await;
    proxy.settled().await;
    let mut restarted = (*backend.node).clone();
    restarted.generation = restarted.generation.next();
    proxy.members.set(vec![Arc::new(restarted)]);
    client.say(chat("")).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    assert_eq!(former.rest().await, b"", "its connection was closed unused");
}

#[tokio::test]
async fn a_backend_may_refuse_before_it_has_read_everything() {
    let (proxy, backend) = Proxy::with_backend().await;
    let big = format!(r#","x":"{}""#, "y".repeat(8 << 20));
    let mut client = proxy.connect().await;
    let answered = tokio::spawn(async move {
        client.say(chat(&big)).await;
        client.message().await
    });
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream
        .say("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\n{}")
        .await;
    drop(upstream);
    let answer = answered.await.unwrap();
    assert_eq!((answer.status(), answer.headers["retry-after"].as_str()), (429, "7"));
}

/// `requests` one after another; who answers with `answer` is `good`, `bad` takes them and dies. How often each was asked.
async fn asked(proxy: &Proxy, bad: &Backend, good: &Backend, requests: usize) -> [usize; 2] {
    let mut asked = [0; 2];
    let mut clients = Vec::new();
    for _ in 0..requests {
        let mut client = proxy.send(chat("").as_bytes()).await;
        loop {
            tokio::select! {
                died = bad.receive() => {
                    drop(died);
                    asked[0] += 1;
                }
                (mut upstream, _) = good.receive() => {
                    asked[1] += 1;
                    upstream.say(ok("{}").replace("content-type", "connection: close\r\ncontent-type")).await;
                    break;
                }
            }
        }
        assert_eq!(client.message().await.status(), 200);
        proxy.settled().await;
        clients.push(client);
    }
    asked
}

/// Who could be asked, the best first, and whether it is left alone.
async fn explained(proxy: &Proxy) -> Vec<(String, bool)> {
    let request = chat("").replacen("host:", "x-inferno-explain: 1\r\nhost:", 1);
    let explanation = proxy.send(request.as_bytes()).await.message().await.json();
    let candidates = explanation["candidates"].as_array().unwrap().iter();
    let told = |one: &serde_json::Value| {
        (one["id"].as_str().unwrap().to_owned(), one["ejected"].as_bool().unwrap())
    };
    candidates.map(told).collect()
}

#[tokio::test]
async fn a_backend_that_fails_requests_in_a_row_is_left_alone() {
    let (bad, good) = (Backend::start("bad").await, Backend::start("good").await);
    let retry = ProxyRetry { ejection_ms: 60_000, ..ProxyRetry::default() };
    let proxy = in_turn_with(retry, vec![Arc::clone(&bad.node), Arc::clone(&good.node)]);
    assert_eq!(asked(&proxy, &bad, &good, 20).await, [3, 20], "three failures, and no more");
    let text = proxy.metrics_text();
    assert!(text.contains("inferno_proxy_ejections_total 1\n"), "{text}");
    assert!(text.contains("inferno_proxy_attempts_total 23\n"), "{text}");
    assert_eq!(explained(&proxy).await, [("good".into(), false), ("bad".into(), true)]);
    // Better one that failed than nobody.
    proxy.members.set(vec![Arc::clone(&bad.node), absent("gone").await]);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = bad.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn a_backend_that_was_left_alone_is_tried_again_and_trusted_when_it_answers() {
    let (bad, good) = (Backend::start("bad").await, Backend::start("good").await);
    let retry = ProxyRetry { ejection_ms: 50, ..ProxyRetry::default() };
    let proxy = in_turn_with(retry, vec![Arc::clone(&bad.node), Arc::clone(&good.node)]);
    assert_eq!(asked(&proxy, &bad, &good, 3).await, [3, 3]);
    let is_ejected = || async { explained(&proxy).await.contains(&("bad".into(), true)) };
    within("its return", async { while is_ejected().await {} }).await;
    // Now it answers, and it is its turn.
    assert_eq!(asked(&proxy, &good, &bad, 1).await, [0, 1]);
    let text = proxy.metrics_text();
    assert!(text.contains("inferno_proxy_ejections_total 1\n"), "{text}");
    // All is forgiven: one more failure is not the fourth. The first of the three begins with the other.
    assert_eq!(asked(&proxy, &bad, &good, 3).await, [2, 3]);
}

/// Complaint 4 about others: 4xx, 429 and 503 opened the breaker (sglang#25811).
#[tokio::test]
async fn a_refusal_breaks_nobody() {
    let (busy, other) = (Backend::start("busy").await, Backend::start("other").await);
    let proxy = in_turn(vec![Arc::clone(&busy.node), Arc::clone(&other.node)]);
    for status in
        ["429 Too Many Requests", "503 Service Unavailable", "400 Bad Request", "500 Oops"]
    {
        let mut by_busy = 0;
        for _ in 0..8 {
            let mut client = proxy.send(chat("").as_bytes()).await;
            let (mut upstream, is_busy) = tokio::select! {
                (upstream, _) = busy.receive() => (upstream, true),
                (upstream, _) = other.receive() => (upstream, false),
            };
            let answer = ok("{}").replace("content-type", "connection: close\r\ncontent-type");
            upstream.say(if is_busy { answer.replace("200 OK", status) } else { answer }).await;
            client.message().await;
            proxy.settled().await;
            by_busy += usize::from(is_busy);
        }
        assert_eq!(by_busy, 4, "it is asked in its turn after {status}");
    }
    let text = proxy.metrics_text();
    assert!(text.contains("inferno_proxy_ejections_total 0\n"), "{text}");
    assert!(text.contains("inferno_proxy_retries_total 0\n"), "{text}");
}

/// Complaint 10 about others: retries multiply (litellm#19985).
#[tokio::test]
async fn retries_end_with_their_budget_and_the_client_is_told_not_to_ask_again() {
    assert!(refused_without_budget(0.0).await > 0);
    assert_eq!(refused_without_budget(1.0).await, 0, "each request has earned one");
}

/// Of 200 requests to a backend that is there and one that is not, how many were refused for want of a retry.
async fn refused_without_budget(budget: f64) -> usize {
    let (gone, backend) = (absent("gone").await, Backend::start("b").await);
    let retry = ProxyRetry { budget, ..ProxyRetry::default() };
    let proxy = in_turn_with(retry, vec![gone, Arc::clone(&backend.node)]);
    let began = std::time::Instant::now();
    let serving = tokio::spawn(async move {
        loop {
            let (mut upstream, _) = backend.receive().await;
            upstream
                .say(ok("{}").replace("content-type", "connection: close\r\ncontent-type"))
                .await;
        }
    });
    let mut told = 0;
    for _ in 0..200 {
        let answer = proxy.send(chat("").as_bytes()).await.message().await;
        let should_retry = answer.headers.get("x-should-retry").map(String::as_str);
        match answer.status() {
            200 => assert_eq!(should_retry, None),
            503 => {
                assert_eq!(
                    (should_retry, answer.code().as_str()),
                    (Some("false"), "backend_unreachable")
                );
                told += 1;
            }
            status => panic!("{status}"),
        }
    }
    serving.abort();
    let text = proxy.metrics_text();
    let value = |series: &str| -> usize {
        let line = text.lines().find(|line| line.starts_with(series)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let retries = value("inferno_proxy_retries_total");
    let refused = value("inferno_proxy_upstream_errors_total{kind=\"connect_refused\"}");
    assert_eq!((told, told + retries), (value("inferno_proxy_retry_budget_spent_total"), refused));
    if budget == 0.0 {
        // Ten are there at first, and ten a second.
        let free = 10 + (10.0 * began.elapsed().as_secs_f64()) as usize + 1;
        assert!((10..=free).contains(&retries), "{retries} retries, {free} free");
    }
    told
}

#[tokio::test]
async fn a_request_that_is_sent_once_takes_only_a_connection_that_is_sure() {
    let (proxy, backend) = Proxy::with_backend().await;
    let once = post("/v1/audio/speech", r#"{"model":"m"}"#);
    let mut client = proxy.connect().await;
    client.say(&once).await;
    let (mut upstream, _) = backend.receive().await;
    // Used a moment ago: used again.
    for _ in 0..3 {
        upstream.say(ok("{}")).await;
        assert_eq!(client.message().await.status(), 200);
        client.say(&once).await;
        upstream.message().await;
    }
    upstream.say(ok("{}")).await;
    client.message().await;
    // Closed meanwhile: seen before anything is sent on it.
    drop(upstream);
    client.say(&once).await;
    let (upstream, _) = backend.receive().await;
    // Dies with the request: neither this one is asked again nor another.
    drop(upstream);
    assert_eq!(client.message().await.code(), "backend_lost");
}

fn state(node: &Arc<NodeView>, state: NodeState) -> Arc<NodeView> {
    Arc::new(NodeView { state, ..(**node).clone() })
}

#[tokio::test]
async fn a_backend_that_hangs_and_is_lost_to_the_membership_is_not_waited_for() {
    let (hangs, lives) = (Backend::start("a").await, Backend::start("b").await);
    let proxy = in_turn(vec![Arc::clone(&hangs.node), Arc::clone(&lives.node)]);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (_hung, _) = hangs.receive().await;
    proxy.members.set(vec![state(&hangs.node, NodeState::Suspect), Arc::clone(&lives.node)]);
    proxy.members.set(vec![state(&hangs.node, NodeState::Gone), Arc::clone(&lives.node)]);
    let (mut upstream, _) = lives.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    proxy.settled().await;
    assert_eq!((hangs.in_flight(), lives.in_flight()), (0, 0));
    let counted = "inferno_proxy_upstream_errors_total{kind=\"gone\"} 1";
    assert!(proxy.metrics_text().contains(counted), "the first attempt is seen");
}

#[tokio::test]
async fn a_stream_whose_backend_hangs_and_is_lost_ends_with_an_error() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: 1\n\n").await;
    client.head().await;
    client.event().await;
    proxy.members.set(vec![state(&backend.node, NodeState::Gone)]);
    let event = client.event().await;
    assert!(
        event.contains("backend_lost") && event.contains("before the answer was complete"),
        "{event}"
    );
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn whoever_streams_on_is_not_cut_for_being_lost_to_the_membership() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    proxy.members.set(vec![state(&backend.node, NodeState::Gone)]);
    upstream.say(EVENTS).await;
    client.head().await;
    // Longer than it is asked about the membership, and never silent for so long.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        upstream.say_chunk("data: 1\n\n").await;
        assert_eq!(client.event().await, "data: 1\n\n");
    }
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn all_of_a_request_has_a_time_limit() {
    let timeouts = ProxyTimeouts { total_ms: Some(300), ..ProxyTimeouts::default() };
    let proxy = Proxy::start(ProxyConfig { timeouts, ..ProxyConfig::default() });
    let backend = Backend::start("b").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (_upstream, _) = backend.receive().await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (504, "backend_timeout"));
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    // However busily it streams.
    let chunks = "9\r\ndata: 1\n\n\r\n".repeat(1_000);
    tokio::spawn(async move { while upstream.try_say(&chunks).await {} });
    within("the end of its time", async {
        while !client.event().await.contains("backend_timeout") {}
    })
    .await;
    assert_eq!(client.chunk().await, None);
}
