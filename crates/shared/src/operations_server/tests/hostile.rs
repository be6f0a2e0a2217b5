//! Clients that are slow, broken or rude: each loses its own connection, and nobody else anything.
//!
//! The limits are short here, and waited for: no test sleeps.

use super::*;
use crate::operations_server::serve::HEADER_BYTES_MAX;

fn with(limits: Limits) -> impl FnOnce(OperationsServer) -> OperationsServer {
    move |mut server| {
        server.limits = limits;
        server
    }
}

fn soon() -> Duration {
    Duration::from_millis(50)
}

async fn connect(server: &OperationsServer) -> TcpStream {
    TcpStream::connect(server.bind_addr()).await.expect("connects")
}

/// Sends `text` on a new connection and gives what comes back until the server closes it.
async fn send(server: &OperationsServer, text: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(text.as_bytes()).await.expect("sent");
    rest(stream).await
}

async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an orderly end");
    String::from_utf8(answer).expect("text")
}

/// Asks `/health` on a connection that stays open.
async fn ask_health(stream: &mut TcpStream) {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    read_until(stream, "\r\n\r\nhealthy").await;
}

/// Reads what comes up to `end`, which must be its end.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        assert_ne!(stream.read_buf(&mut answer).await.expect("open"), 0, "closed before {end:?}");
    }
    String::from_utf8(answer).expect("text")
}

/// Longer than any of this takes: a server without a free place would let us wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

async fn is_healthy(server: &OperationsServer) -> bool {
    let asked = ask(server, Method::GET, "/health", &[], "");
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    answered.expect("a place on the server").0 == StatusCode::OK
}

#[tokio::test]
async fn half_a_header_is_waited_for_so_long_and_no_longer() {
    let limits = Limits { header: soon(), ..Limits::default() };
    let server = started(ServiceState::Ready, with(limits)).await;
    for text in ["", "GET", "GET /health HTTP/1.1\r\nhost: x\r\n"] {
        assert_eq!(send(&server, text).await, "", "{text:?} is no request to answer");
    }
    assert!(is_healthy(&server).await);
}

#[tokio::test]
async fn a_header_in_pieces_is_one_request() {
    let server = started(ServiceState::Ready, |s| s).await;
    let mut stream = connect(&server).await;
    for piece in "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n".as_bytes().chunks(3) {
        stream.write_all(piece).await.expect("sent");
        stream.flush().await.expect("sent");
        assert!(is_healthy(&server).await);
    }
    assert!(rest(stream).await.ends_with("healthy"));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = Limits { header: soon(), ..Limits::default() };
    let server = started(ServiceState::Ready, with(limits)).await;
    let mut stream = connect(&server).await;
    ask_health(&mut stream).await;
    ask_health(&mut stream).await;
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn half_a_body_is_refused_with_a_reason() {
    let limits = Limits { body: soon(), ..Limits::default() };
    let server = started(ServiceState::Ready, |s| with(limits)(proxy_like(s))).await;
    let request = "POST /registration HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"id\":";
    let mut stream = connect(&server).await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(answer.contains("did not arrive within 50ms"), "{answer}");
}

#[tokio::test]
async fn a_body_that_ends_too_early_or_is_no_chunk_harms_nobody() {
    let server = started(ServiceState::Ready, proxy_like).await;
    let mut stream = connect(&server).await;
    let request = "POST /registration HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("half closed");
    rest(stream).await;
    let chunked =
        "POST /registration HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let answer = send(&server, chunked).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(is_healthy(&server).await);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_its_place_is_free_again() {
    let limits = Limits { write: soon(), connections: 1, ..Limits::default() };
    let server = started(ServiceState::Ready, with(limits)).await;
    let mut deaf = connect(&server).await;
    let requests = "GET /telemetry HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    // Answers fill the buffers of both sides; then the server reads no more, and then it hangs up.
    while deaf.write_all(requests.as_bytes()).await.is_ok() {}
    assert!(is_healthy(&server).await);
}

#[tokio::test]
async fn a_reset_in_the_middle_gives_the_place_back() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let server = started(ServiceState::Ready, |s| with(limits)(proxy_like(s))).await;
    for text in [
        "GET /heal",
        "GET /telemetry HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /registration HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(text.as_bytes()).await.expect("sent");
        stream.set_zero_linger().expect("set");
        drop(stream);
        assert!(is_healthy(&server).await, "after {text:?}");
    }
}

#[tokio::test]
async fn a_header_too_large_is_431() {
    let server = started(ServiceState::Ready, |s| s).await;
    let fits = format!(
        "GET /health HTTP/1.1\r\nconnection: close\r\nx: {}\r\n\r\n",
        "x".repeat(HEADER_BYTES_MAX / 2)
    );
    assert!(send(&server, &fits).await.starts_with("HTTP/1.1 200"));
    let endless = format!("GET /health HTTP/1.1\r\nx: {}", "x".repeat(HEADER_BYTES_MAX));
    let answer = send(&server, &endless).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(is_healthy(&server).await);
}

#[tokio::test]
async fn a_body_too_large_is_refused_and_its_sender_told() {
    let server = started(ServiceState::Ready, proxy_like).await;
    for length in [crate::registration::wire::BODY_BYTES_MAX + 1, 1 << 20] {
        let head =
            format!("POST /registration HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        let (mut from, mut to) = connect(&server).await.into_split();
        let sending = tokio::spawn(async move {
            to.write_all(head.as_bytes()).await?;
            to.write_all(&vec![b' '; length]).await
        });
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = from.read_buf(&mut answer).await.expect("an answer before the end");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("larger than"), "{answer}");
        drop(sending.await.expect("no panic"));
    }
}

#[tokio::test]
async fn who_asks_first_is_told_to_send_its_body() {
    let server = started(ServiceState::Ready, proxy_like).await;
    let mut stream = connect(&server).await;
    let head = "POST /registration HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
        connection: close\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.expect("sent");
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("missing field"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let server = started(ServiceState::Ready, |s| s).await;
    let requests = "GET /health HTTP/1.1\r\n\r\n\
        GET /nothing HTTP/1.1\r\n\r\n\
        GET /health/live HTTP/1.1\r\nconnection: close\r\n\r\n";
    let answers = send(&server, requests).await;
    let positions = ["healthy", "not found", "alive"].map(|body| answers.find(body));
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 3, "{answers}");
}

#[tokio::test]
async fn who_finds_no_place_waits_and_is_served_when_one_is_free() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let server = started(ServiceState::Ready, with(limits)).await;
    let (mut first, mut second) = (connect(&server).await, connect(&server).await);
    ask_health(&mut first).await;
    ask_health(&mut second).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut third = connect(&server).await;
        third.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.expect("queued");
        waiting.push(third);
    }
    // The server had every occasion to take them in.
    for _ in 0..50 {
        ask_health(&mut first).await;
    }
    for third in &waiting {
        let error = third.try_read(&mut [0]).expect_err("nothing to read");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    drop(second);
    for third in waiting {
        assert!(rest(third).await.ends_with("healthy"));
    }
}

#[tokio::test]
async fn http_1_0_ends_with_its_answer_unless_asked_to_stay() {
    let server = started(ServiceState::Ready, |s| s).await;
    let answer = send(&server, "GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("healthy"), "{answer}");
    let mut stream = connect(&server).await;
    for _ in 0..2 {
        let request = b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        stream.write_all(request).await.expect("still open");
        let answer = read_until(&mut stream, "healthy").await;
        assert!(answer.contains("connection: keep-alive"), "{answer}");
    }
}

#[tokio::test]
async fn a_full_server_can_be_shut_down() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let server = started(ServiceState::Ready, with(limits)).await;
    let mut only = connect(&server).await;
    ask_health(&mut only).await;
    server.shutdown();
    assert_eq!(rest(only).await, "");
}

#[tokio::test]
async fn what_was_no_request_is_not_counted() {
    let server = started(ServiceState::Ready, |s| s).await;
    send(&server, "\x16\x03\x01 not http\r\n\r\n").await;
    drop(connect(&server).await);
    assert!(is_healthy(&server).await);
    let text = server.metrics.prometheus_text(&server.metrics.vitals());
    let counted: Vec<&str> =
        text.lines().filter(|line| line.starts_with("inferno_operations_requests_total")).collect();
    assert_eq!(counted, [r#"inferno_operations_requests_total{route="health",status="200"} 1"#]);
}
