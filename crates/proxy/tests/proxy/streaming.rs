//! Event streams: each event when it is there, and the truth when it will not come.

use super::support::{END, EVENTS, Proxy, chat};

#[tokio::test]
async fn the_client_has_an_event_before_the_backend_says_the_next() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    let head = client.head().await;
    assert_eq!(head.headers["content-type"], "text/event-stream");
    for index in 0..20 {
        let event = format!("data: {{\"n\":{index}}}\n\n");
        upstream.say_chunk(&event).await;
        assert_eq!(client.event().await, event);
    }
    upstream.say_chunk("data: [DONE]\n\n").await;
    assert_eq!(client.event().await, "data: [DONE]\n\n");
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn events_flow_whatever_delimits_the_backends_body() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 22\r\n\r\n",
    ] {
        let (proxy, backend) = Proxy::with_backend().await;
        let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
        let (mut upstream, _) = backend.receive().await;
        upstream.say(head).await;
        client.head().await;
        upstream.say("data: one\n\n").await;
        assert_eq!(client.event().await, "data: one\n\n");
        upstream.say("data: two\n\n").await;
        drop(upstream);
        assert_eq!(client.event().await, "data: two\n\n");
        assert_eq!(client.chunk().await, None);
    }
}

#[tokio::test]
async fn a_lost_backend_is_told_in_an_event_and_the_torn_event_is_not() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    upstream.say_chunk("data: whole\n\n").await;
    upstream.say_chunk("data: {\"to").await;
    drop(upstream);
    assert_eq!(client.event().await, "data: whole\n\n");
    let event = client.event().await;
    let error: serde_json::Value =
        serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "backend_lost");
    assert_eq!(client.chunk().await, None, "and that is the end, without [DONE]");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
    assert_eq!(proxy.metrics.vitals().failed_responses, 1);
    assert!(proxy.metrics_text().contains(r#"inferno_proxy_upstream_errors_total{kind="lost"} 1"#));
}

#[tokio::test]
async fn a_lost_backend_breaks_an_answer_that_is_no_stream() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    drop(upstream);
    assert_eq!(client.head().await.headers["content-length"], "100");
    let rest = client.rest().await;
    assert!(rest.len() < 100, "the client sees a broken answer");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

/// What `text` has for the series that begins so.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("{series} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn first_tokens_and_the_time_between_events_are_measured() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    let (first, between) = (
        r#"inferno_proxy_time_to_first_token_seconds_count{model="m"}"#,
        r#"inferno_proxy_inter_token_seconds_count{model="m"}"#,
    );
    // The role; the first token; two more.
    for (event, seen) in [(1, (0.0, 0.0)), (2, (1.0, 0.0)), (3, (1.0, 1.0)), (4, (1.0, 2.0))] {
        upstream.say_chunk("data: {}\n\n").await;
        client.event().await;
        let text = proxy.metrics_text();
        assert_eq!((value(&text, first), value(&text, between)), seen, "after event {event}");
    }
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
    proxy.settled().await;
    let text = proxy.metrics_text();
    assert_eq!((value(&text, first), value(&text, between)), (1.0, 2.0), "the end is no event");
    let own = r#"inferno_proxy_own_seconds_sum{route="chat_completions"}"#;
    assert!((1e-7..1.0).contains(&value(&text, own)), "{}", value(&text, own));
    assert_eq!(value(&text, "inferno_proxy_attempts_total"), 1.0);
}

#[tokio::test]
async fn a_completions_first_event_has_a_token() {
    let (proxy, backend) = Proxy::with_backend().await;
    let request = super::support::post("/v1/completions", r#"{"model":"m","stream":true}"#);
    let mut client = proxy.send(request.as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: {}\n\n").await;
    client.head().await;
    client.event().await;
    let first = r#"inferno_proxy_time_to_first_token_seconds_count{model="m"}"#;
    assert_eq!(value(&proxy.metrics_text(), first), 1.0);
}
