use super::*;
use crate::{MetricsCollector, OperationsServer};
use std::{
    io::{Read, Write},
    net::TcpListener,
};

/// Answers each connection's first request with `answer`, and closes it.
fn scripted(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Whatever it asks.
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn client() -> OperationsClient {
    OperationsClient::new(Duration::from_secs(5))
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_when_its_server_closed_it() {
    let server = OperationsServer::new(MetricsCollector::new(), ([127, 0, 0, 1], 0).into());
    let server = server.start().await.expect("starts");
    let client = client();
    let endpoint = Endpoint::plain(server.bind_addr());
    client.live(endpoint.clone()).await.expect("alive");
    let kept = client.pool.take(&endpoint);
    assert!(kept.is_some(), "kept");
    // It announces another answer than it gives time for: the kept connection is dead when used.
    let closing = scripted("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nalive");
    for _ in 0..3 {
        client.live(closing).await.expect("asked anew");
    }
}

#[tokio::test]
async fn answers_that_are_not_ours_are_told_apart() {
    let odd = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    let error = client().vitals(odd).await.expect_err("no vitals");
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
    let down = scripted("HTTP/1.1 503 No\r\ncontent-length: 8\r\n\r\nsomewhat");
    let error = client().live(down).await.expect_err("unhealthy").to_string();
    assert!(error.contains("503") && error.contains("somewhat"), "{error}");
    let short = scripted("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi");
    assert!(matches!(client().live(short).await, Err(ClientError::Connection(_))));
    let noise = scripted("SSH-2.0-OpenSSH_9.2\r\n");
    let error = client().live(noise).await.expect_err("no HTTP").to_string();
    assert!(error.contains("https://"), "{error}");
}

#[tokio::test]
async fn who_refuses_and_who_is_silent_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let impatient = OperationsClient::new(Duration::from_millis(50));
    assert!(matches!(impatient.live(address).await, Err(ClientError::Timeout(_))));
    drop(listener);
    assert!(matches!(client().live(address).await, Err(ClientError::Refused)));
}
