//! A whole proxy: both ports, and what each answers.

use super::support::{Backend, Wire, chat, ok, post, within};
use inferno_shared::{
    Config, MetricsCollector, OperationsServer, identity::NodeIdentity, vitals::ServiceState,
};
use std::sync::Arc;
use tokio::net::TcpStream;

fn config() -> Config {
    let mut config = Config::default();
    config.proxy.listen = ([127, 0, 0, 1], 0).into();
    config.operations.addr = ([127, 0, 0, 1], 0).into();
    config
}

async fn ask(address: std::net::SocketAddr, request: &str) -> super::support::Message {
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    wire.say(request).await;
    wire.message().await
}

#[tokio::test]
async fn a_proxy_without_backends_is_healthy_and_keeps_its_ports_apart() {
    let proxy = inferno_proxy::start(&config()).await.unwrap();
    let (traffic, operations) = (proxy.traffic, proxy.operations);
    assert_eq!(ask(operations, "GET /health HTTP/1.1\r\nhost: o\r\n\r\n").await.body, b"healthy");
    assert_eq!(ask(traffic, "GET /health HTTP/1.1\r\nhost: o\r\n\r\n").await.status(), 404);
    assert_eq!(ask(operations, &chat("")).await.status(), 404);
    assert_eq!(ask(traffic, &chat("")).await.code(), "no_backends");
    let counted =
        r#"inferno_proxy_requests_total{model="",route="chat_completions",status="503"} 1"#;
    // It is counted when it is over, which is shortly after its client had the answer.
    within("the request to be counted", async {
        loop {
            let text = ask(operations, "GET /telemetry HTTP/1.1\r\nhost: o\r\n\r\n").await;
            if String::from_utf8(text.body).unwrap().contains(counted) {
                break;
            }
        }
    })
    .await;
    let vitals = ask(operations, "GET /metrics HTTP/1.1\r\nhost: o\r\n\r\n").await.json();
    assert_eq!(
        (vitals["service"].as_str(), vitals["backoff_requests"].as_u64()),
        (Some("inferno-proxy"), Some(1))
    );
    within("the drain", proxy.drain()).await;
    assert!(TcpStream::connect(traffic).await.is_err());
}

#[tokio::test]
async fn a_backend_that_registers_takes_traffic_until_nobody_listens_there() {
    let proxy = inferno_proxy::start(&config()).await.unwrap();
    let backend = Backend::start("unused").await;
    let mut named = config();
    named.node.id = Some("node-1".into());
    let identity = Arc::new(NodeIdentity::new(&named));
    let metrics = MetricsCollector::new();
    metrics.set_state(ServiceState::Ready);
    let operations = OperationsServer::new(metrics, named.operations.addr)
        .with_identity(Arc::clone(&identity))
        .start()
        .await
        .unwrap();
    let registration = serde_json::json!({
        "id": identity.id,
        "address": backend.node.address,
        "metrics_port": operations.bind_addr().port(),
        "generation": identity.generation(),
        "nonce": identity.nonce,
        "models": [{"id": "m"}],
    });
    let registered = ask(proxy.operations, &post("/registration", &registration.to_string())).await;
    assert_eq!(registered.json()["status"], "registered");
    let models = "GET /v1/models/m HTTP/1.1\r\nhost: p\r\n\r\n";
    within("its proof", async { while ask(proxy.traffic, models).await.status() != 200 {} }).await;
    let mut client = Wire::new(TcpStream::connect(proxy.traffic).await.unwrap());
    client.say(chat("")).await;
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(client.message().await.status(), 200);
    // It dies. One request finds out, and the next is told to wait without anyone being asked.
    drop((upstream, backend));
    assert_eq!(ask(proxy.traffic, &chat("")).await.code(), "backend_unreachable");
    assert_eq!(ask(proxy.traffic, &chat("")).await.code(), "no_backends");
    within("the drain", proxy.drain()).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config();
    config.proxy.listen = taken.local_addr().unwrap();
    let error = inferno_proxy::start(&config).await.unwrap_err().to_string();
    assert!(error.contains("proxy.listen") && error.contains("INFERNO_PROXY__LISTEN"), "{error}");
}
