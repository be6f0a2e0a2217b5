//! When another backend is asked, and when not.

use super::support::{Backend, Message, Proxy, Wire, chat, node, ok, post, within};
use inferno_shared::{
    config::{ProxyConfig, ProxyRetry, RoutingConfig, RoutingPolicy},
    membership::NodeState,
};
use std::{sync::Arc, task::Poll};
use tokio::net::TcpListener;

/// Round robin over `nodes`, so that the test knows who is asked first.
fn in_turn(nodes: Vec<Arc<inferno_shared::membership::NodeView>>) -> Proxy {
    in_turn_with(ProxyRetry::default(), nodes)
}

fn in_turn_with(retry: ProxyRetry, nodes: Vec<Arc<inferno_shared::membership::NodeView>>) -> Proxy {
    let routing = RoutingConfig { policy: RoutingPolicy::RoundRobin, ..RoutingConfig::default() };
    let proxy = Proxy::start(ProxyConfig { routing, retry, ..ProxyConfig::default() });
    proxy.members.set(nodes);
    proxy
}

/// A node at an address where nobody listens any more.
async fn absent(id: &str) -> Arc<inferno_shared::membership::NodeView> {
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
    // Each keeps a connection, so that its death looks like a stale connection at first.
    let mut kept = Vec::new();
    for backend in backends {
        let mut client = proxy.send(chat("").as_bytes()).await;
        let (mut wire, _) = backend.receive().await;
        wire.say(ok("{}")).await;
        client.message().await;
        proxy.settled().await;
        kept.push((backend, wire));
    }
    let mut client = proxy.send(chat(r#","poison":1"#).as_bytes()).await;
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
