//! What owning the loop means for HTTP/1 clients.

use super::support::{END, EVENTS, Proxy, chat, ok};

#[tokio::test]
async fn what_a_backend_gets_and_what_it_does_not() {
    let (proxy, backend) = Proxy::with_backend().await;
    let head = "authorization: Bearer sk-secret\r\nx-request-id: trace-1\r\n\
                connection: keep-alive, x-private\r\nx-private: 1\r\nhost:";
    let mut client = proxy
        .send(
            chat("").replace("host:", head).replace("completions ", "completions?a=b ").as_bytes(),
        )
        .await;
    let (mut upstream, received) = backend.receive().await;
    assert_eq!(received.line, "POST /v1/chat/completions?a=b HTTP/1.1");
    assert_eq!(received.headers["x-request-id"], "trace-1");
    assert_eq!(received.headers["x-inferno-token"], "lease-token");
    assert_eq!(received.headers["host"], backend.node.address.to_string());
    for absent in ["authorization", "connection", "x-private"] {
        assert!(!received.headers.contains_key(absent), "{absent}");
    }
    upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-inferno-step: 1\r\nx-request-id: theirs\r\nconnection: keep-alive\r\nserver: b\r\n\r\n{}").await;
    let answer = client.message().await;
    assert_eq!(answer.headers["x-request-id"], "trace-1");
    assert_eq!(answer.headers["server"], "b");
    assert!(!answer.headers.contains_key("x-inferno-step"));
}

/// What a backend is told of the trace, by a client that sent these header lines.
async fn trace_of(header: &str) -> (String, Option<String>) {
    let (proxy, backend) = Proxy::with_backend().await;
    let _client = proxy.send(chat("").replace("host:", &format!("{header}host:")).as_bytes()).await;
    let (_upstream, mut received) = backend.receive().await;
    let parent = received.headers.remove("traceparent").expect("there always is one");
    (parent, received.headers.remove("tracestate"))
}

#[tokio::test]
async fn a_backend_is_told_of_the_trace_under_a_span_of_the_proxy() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
    let (parent, state) =
        trace_of(&format!("{header}tracestate: a=1\r\ntracestate: b=2\r\n")).await;
    assert!(parent.starts_with(&format!("00-{trace}-")) && parent.ends_with("-01"), "{parent}");
    assert!(!parent.contains("b7ad6b7169203331"), "another span: {parent}");
    assert_eq!(state.as_deref(), Some("a=1,b=2"));
    for malformed in ["", "traceparent: 00-ab\r\n", &format!("{header}{header}")] {
        let (parent, state) = trace_of(&format!("{malformed}tracestate: a=1\r\n")).await;
        assert_eq!(parent.len(), 55, "a new one: {parent}");
        assert!(!parent.contains(trace) && parent.ends_with("-00"), "{parent}");
        assert_eq!(state, None, "nothing of a trace that was not taken up");
    }
}

#[tokio::test]
async fn a_request_without_a_sane_id_gets_one() {
    let (proxy, _backend) = Proxy::with_backend().await;
    let request = "GET /v1/models HTTP/1.1\r\nhost: p\r\nx-request-id: a b\r\n\r\n";
    let mut client = proxy.connect().await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        client.say(request).await;
        ids.insert(client.message().await.headers["x-request-id"].clone());
    }
    assert_eq!(ids.len(), 3);
    assert!(!ids.contains("a b"));
}

#[tokio::test]
async fn a_client_that_waits_to_be_invited_is_invited() {
    let (proxy, backend) = Proxy::with_backend().await;
    let request = chat("").replace("host:", "expect: 100-continue\r\nhost:");
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let mut client = proxy.send(head.as_bytes()).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 100 Continue");
    client.say(body).await;
    let (mut upstream, received) = backend.receive().await;
    assert!(!received.headers.contains_key("expect"));
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn a_pipelined_request_does_not_disturb_the_running_stream() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    client.say("GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\nGET /v1/models/m HTTP/1.1\r\nhost: p\r\n\r\n").await;
    for index in 0..20 {
        let event = format!("data: {index}\n\n");
        upstream.say_chunk(&event).await;
        assert_eq!(client.event().await, event);
    }
    upstream.say(END).await;
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.message().await.json()["object"], "list");
    assert_eq!(client.message().await.json()["id"], "m");
}

#[tokio::test]
async fn requests_sent_in_one_go_are_answered_in_order() {
    let (proxy, backend) = Proxy::with_backend().await;
    let both =
        chat(r#","n":1"#) + &chat(r#","n":2"#) + "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
    let mut client = proxy.send(both.as_bytes()).await;
    let mut upstream = backend.accept().await;
    for n in ["1", "2"] {
        let request = upstream.message().await;
        assert_eq!(request.json()["n"].to_string(), n);
        upstream.say(ok(n)).await;
        assert_eq!(client.message().await.body, n.as_bytes());
    }
    assert_eq!(client.message().await.json()["object"], "list");
}

#[tokio::test]
async fn a_head_request_has_the_length_and_no_body() {
    let (proxy, _backend) = Proxy::with_backend().await;
    let mut client = proxy.send(b"HEAD /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.headers["content-length"].parse::<usize>().unwrap() > 10);
    // Were there a body, it would be taken for the next answer's first line.
    client.say("GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!(client.message().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_stream_that_ends_with_the_connection() {
    let (proxy, backend) = Proxy::with_backend().await;
    let request = chat("")
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("host:", "connection: keep-alive\r\nhost:");
    let mut client = proxy.send(request.as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: 1\n\n").await;
    upstream.say(END).await;
    let head = client.head().await;
    assert!(!head.headers.contains_key("transfer-encoding"));
    assert_eq!(head.headers["connection"], "close");
    assert_eq!(client.rest().await, b"data: 1\n\n");
}

#[tokio::test]
async fn a_client_that_wants_the_connection_closed_gets_it_closed() {
    let (proxy, _backend) = Proxy::with_backend().await;
    let mut client =
        proxy.send(b"GET /v1/models HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n").await;
    assert_eq!(client.message().await.headers["connection"], "close");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_request_shorter_than_the_http2_preface_is_answered() {
    let (proxy, _backend) = Proxy::with_backend().await;
    let mut client = proxy.send(b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 404);
}
