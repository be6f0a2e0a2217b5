//! Bodies of any size arrive whole, in both directions.

use super::support::{Proxy, Wire, ok};

/// A request body of exactly `length` bytes whose model stands at its end, where it hurts most.
fn body_of(length: usize) -> String {
    let (open, close) = (r#"{"x":""#, r#"","model":"m"}"#);
    let filler: String = (0u8..)
        .map(|byte| char::from(b'a' + byte % 26))
        .take(length - open.len() - close.len())
        .collect();
    format!("{open}{filler}{close}")
}

const SIZES: [usize; 5] = [1_024, 65_535, 65_536, 65_537, 2 << 20];

async fn round_trip(
    request_head: &str,
    request_body: Vec<u8>,
    expected: &str,
    chunked_answer: bool,
) {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.connect().await;
    let (read, mut write) = client.stream.into_split();
    let head = request_head.to_owned();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&request_body).await.unwrap();
        write
    });
    let (mut upstream, received) = backend.receive().await;
    assert_eq!(received.body, expected.as_bytes());
    assert_eq!(received.headers["content-length"], expected.len().to_string());
    client = Wire::new(read.reunite(sending.await.unwrap()).unwrap());
    let answer = if chunked_answer {
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{expected}\r\n0\r\n\r\n",
            expected.len()
        )
    } else {
        ok(expected)
    };
    let answering = tokio::spawn(async move { upstream.say(answer).await });
    let answer = client.message().await;
    answering.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body, expected.as_bytes());
    proxy.settled().await;
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn bodies_with_a_length_arrive_whole() {
    for size in SIZES {
        let body = body_of(size);
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {size}\r\n\r\n");
        round_trip(&head, body.clone().into_bytes(), &body, false).await;
    }
}

#[tokio::test]
async fn chunked_bodies_arrive_whole() {
    for size in SIZES {
        let body = body_of(size);
        let mut chunks = Vec::new();
        for chunk in body.as_bytes().chunks(50_021) {
            chunks.extend(
                format!("{:x}\r\n", chunk.len())
                    .bytes()
                    .chain(chunk.iter().copied())
                    .chain(*b"\r\n"),
            );
        }
        chunks.extend(*b"0\r\n\r\n");
        let head = "POST /v1/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n";
        round_trip(head, chunks, &body, true).await;
    }
}

#[tokio::test]
async fn an_answer_delimited_by_the_connections_end_arrives_whole() {
    let (proxy, backend) = Proxy::with_backend().await;
    let mut client = proxy.send(super::support::chat("").as_bytes()).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\"").await;
    upstream.say(":1}").await;
    drop(upstream);
    assert_eq!(client.message().await.body, br#"{"a":1}"#);
}
