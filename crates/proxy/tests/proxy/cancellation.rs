//! A client that goes takes its request with it; a backend learns it from its connection's end.

use super::support::{EVENTS, Proxy, chat, within};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_client_that_leaves_while_waiting_frees_the_backend() {
    let (proxy, backend) = Proxy::with_backend().await;
    let client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    assert_eq!(backend.in_flight(), 1);
    assert!(proxy.metrics_text().contains(r#"inferno_proxy_backend_in_flight{backend="b"} 1"#));
    drop(client);
    assert_eq!(upstream.rest().await, b"", "the backend sees its connection end");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
    let text = proxy.metrics_text();
    assert!(text.contains(
        r#"inferno_proxy_requests_total{model="m",route="chat_completions",status="499"} 1"#
    ));
    assert!(text.contains(r#"inferno_proxy_backend_in_flight{backend="b"} 0"#));
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_frees_the_backend_that_says_nothing_more() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: 1\n\n").await;
    client.head().await;
    client.event().await;
    drop(client);
    assert_eq!(upstream.rest().await, b"");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_answer_frees_the_backend() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    client.head().await;
    client.event().await;
    drop(client);
    assert_eq!(upstream.rest().await, b"");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_sending_costs_no_backend_anything() {
    let (proxy, backend) = Proxy::with_backend().await;
    let request = chat(r#","x":"yyyyyyyyyy""#);
    let client = proxy.send(&request.as_bytes()[..request.len() - 5]).await;
    drop(client);
    // The proxy answers the next one, and the backend saw nothing of the former.
    let mut client = proxy.send(chat("").as_bytes()).await;
    let (mut upstream, received) = backend.receive().await;
    assert_eq!(received.body, br#"{"model":"m"}"#);
    upstream.say(super::support::ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    proxy.settled().await;
}

#[tokio::test]
async fn a_client_that_half_closed_gets_its_stream_to_the_end() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(chat(r#","stream":true"#).as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(EVENTS).await;
    client.head().await;
    client.stream.shutdown().await.unwrap();
    // The comment shows that the proxy has seen the FIN.
    assert_eq!(client.event().await, ":\n\n");
    for index in 0..3 {
        let event = format!("data: {index}\n\n");
        upstream.say_chunk(&event).await;
        let got = within("the event among comments", async {
            loop {
                let got = client.event().await;
                if got != ":\n\n" {
                    return got;
                }
            }
        });
        assert_eq!(got.await, event);
    }
    upstream.say("0\r\n\r\n").await;
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}
