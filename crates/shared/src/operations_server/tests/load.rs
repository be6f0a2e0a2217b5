//! Many requests at once: none is lost, and each is counted once.

use super::*;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 20_000;

/// Method, path, body; what comes back, and what it is counted as.
type Question = (Method, &'static str, &'static str, u16, &'static str);

const QUESTIONS: [Question; 8] = [
    (Method::GET, "/health", "", 200, r#"route="health",status="200""#),
    (Method::GET, "/metrics", "", 200, r#"route="metrics",status="200""#),
    (Method::GET, "/health/live", "", 200, r#"route="health_live",status="200""#),
    (Method::GET, "/telemetry", "", 200, r#"route="telemetry",status="200""#),
    (Method::GET, "/peers", "", 200, r#"route="peers",status="200""#),
    (Method::POST, "/registration", "{", 400, r#"route="registration",status="400""#),
    (Method::DELETE, "/registration/nobody", "", 404, r#"route="registration",status="404""#),
    (Method::PUT, "/elsewhere/%2e", "x", 404, r#"route="unknown",status="404""#),
];

async fn open(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("connects");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    sender
}

/// Asks questions `first`, `first + CONNECTIONS` and so on, one after the other.
async fn ask_a_share(address: SocketAddr, first: usize) {
    let mut sender = open(address).await;
    for number in (first..REQUESTS).step_by(CONNECTIONS) {
        let (method, path, body, status, _) = &QUESTIONS[number % QUESTIONS.len()];
        let request = Request::builder().method(method).uri(*path).header("host", "x");
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes())));
        sender.ready().await.expect("the connection is kept");
        let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), *status, "{method} {path}");
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        assert!(!body.is_empty(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_20_000_requests_over_64_connections_none_is_lost_and_each_counts() {
    let server = started(ServiceState::Ready, proxy_like).await;
    let address = server.bind_addr();
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|first| tokio::spawn(ask_a_share(address, first))).collect();
    for client in clients {
        client.await.expect("every answer was right");
    }
    let text = server.metrics.prometheus_text(&server.metrics.vitals());
    let counted: BTreeMap<&str, usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix("inferno_operations_requests_total{"))
        .filter_map(|line| line.split_once("} "))
        .map(|(labels, count)| (labels, count.parse().expect("a number")))
        .collect();
    let each = REQUESTS / QUESTIONS.len();
    let expected = QUESTIONS.iter().map(|(.., labels)| (*labels, each)).collect();
    assert_eq!(counted, expected);
    let timed: usize = text
        .lines()
        .filter(|line| line.starts_with("inferno_operations_request_duration_seconds_count"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(timed, REQUESTS);
}
