mod hostile;
mod load;

use super::*;
use crate::{
    config::Config,
    membership::NodeState,
    operations_client::OperationsClient,
    registration::{lease, wire::Peers},
    tls::ClientTls,
    vitals::ServiceState,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A started server of a process that has reached `state`.
async fn started(
    state: ServiceState,
    configure: impl FnOnce(OperationsServer) -> OperationsServer,
) -> OperationsServer {
    let metrics = MetricsCollector::new();
    metrics.set_state(state);
    configure(OperationsServer::new(metrics, local()).with_service("inferno-test", "9.9"))
        .start()
        .await
        .expect("starts")
}

fn proxy_like(server: OperationsServer) -> OperationsServer {
    let own = NodeIdentity::new(&Config::default());
    let (introductions, _) = lease::introductions();
    let connected = server.connected_peers();
    let trust = ClientTls::default();
    let registry = Registry::new(&Config::default(), &own, trust, introductions, connected);
    server.with_registrations(Registrations::Taken(registry))
}

async fn ask(
    server: &OperationsServer,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, String, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request =
        Request::builder().method(method).uri(format!("http://{}{path}", server.bind_addr()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let answer = client.request(request).await.expect("an answer");
    let status = answer.status();
    let content_type =
        answer.headers().get("content-type").map(|v| v.to_str().expect("ascii").to_owned());
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, content_type.unwrap_or_default(), String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn metrics_are_vitals_by_default_and_prometheus_when_preferred() {
    let server = started(ServiceState::Ready, |s| s).await;
    let (status, content_type, body) = ask(&server, Method::GET, "/metrics", &[], "").await;
    assert_eq!((status, content_type.as_str()), (StatusCode::OK, "application/json"));
    let vitals: crate::NodeVitals = serde_json::from_str(&body).expect("vitals");
    assert!(vitals.ready && vitals.service == "inferno-test" && vitals.version == "9.9");
    let (_, content_type, body) =
        ask(&server, Method::GET, "/metrics", &[("accept", "text/plain")], "").await;
    assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    assert!(body.contains("inferno_node_ready 1"), "{body}");
}

#[tokio::test]
async fn telemetry_is_always_prometheus_text() {
    let server = started(ServiceState::Ready, |s| s).await;
    let (status, content_type, body) =
        ask(&server, Method::GET, "/telemetry", &[("accept", "application/json")], "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        content_type.starts_with("text/plain; version=0.0.4")
            && body.contains("inferno_node_uptime_seconds")
    );
}

#[tokio::test]
async fn health_says_one_word_for_each_state() {
    for (state, status, word) in [
        (ServiceState::Ready, 200, "healthy"),
        (ServiceState::Loading, 503, "loading"),
        (ServiceState::Draining, 503, "draining"),
    ] {
        let server = started(state, |s| s).await;
        let (got, _, body) = ask(&server, Method::GET, "/health", &[], "").await;
        assert_eq!((got.as_u16(), body.as_str()), (status, word));
        let (live, _, _) = ask(&server, Method::GET, "/health/live", &[], "").await;
        assert_eq!(live, StatusCode::OK, "{state:?} must not restart anything");
    }
}

#[tokio::test]
async fn only_a_stalled_process_is_not_alive() {
    let metrics = MetricsCollector::new();
    metrics.set_state(ServiceState::Ready);
    metrics.set_stall_probe(|| true);
    let server = OperationsServer::new(metrics, local()).start().await.expect("starts");
    for path in ["/health", "/health/live"] {
        let (status, _, body) = ask(&server, Method::GET, path, &[], "").await;
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "stalled"));
    }
}

#[tokio::test]
async fn a_node_registers_is_proved_and_leaves() {
    let node = OperationsServer::new(MetricsCollector::new(), local());
    let identity = Arc::new(crate::identity::NodeIdentity::new(&Config::default()));
    node.metrics.set_state(ServiceState::Ready);
    let node = node.with_identity(Arc::clone(&identity)).start().await.expect("starts");
    let proxy = started(ServiceState::Ready, proxy_like).await;
    let registration = format!(
        r#"{{"id":"{}","address":"127.0.0.1:9","metrics_port":{},"generation":{},"nonce":"{}"}}"#,
        identity.id,
        node.bind_addr().port(),
        identity.generation(),
        identity.nonce
    );
    let (status, _, body) = ask(&proxy, Method::POST, "/registration", &[], &registration).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.starts_with(r#"{"status":"registered""#), "{body}");
    wait_for(&proxy, NodeState::Ready).await;
    let (_, _, body) = ask(&proxy, Method::POST, "/registration", &[], &registration).await;
    assert!(body.starts_with(r#"{"status":"updated""#), "{body}");
    let path = format!("/registration/{}?generation={}", identity.id, identity.generation());
    assert_eq!(ask(&proxy, Method::DELETE, &path, &[], "").await.0, StatusCode::OK);
    wait_for(&proxy, NodeState::Gone).await;
}

/// Asks `/peers` until its only node is in `state`; the test runner's patience is the limit.
async fn wait_for(proxy: &OperationsServer, state: NodeState) {
    let client = OperationsClient::new(Duration::from_secs(1));
    loop {
        let Peers { peers, .. } = client.peers(proxy.bind_addr(), None).await.expect("peers");
        if peers.iter().any(|peer| peer.state == state) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bad_registrations_are_refused_with_a_reason() {
    let proxy = started(ServiceState::Ready, proxy_like).await;
    for (body, status, reason) in [
        ("{", 400, "registration"),
        (r#"{"id":"a"}"#, 400, "address"),
        (r#"{"id":"a","address":"nonsense","metrics_port":1}"#, 400, "nonsense"),
        (r#"{"id":"a","address":"127.0.0.1:0","metrics_port":1}"#, 403, "port 0"),
        (r#"{"id":"a","address":"10.0.0.1:80","metrics_port":1}"#, 403, "loopback"),
        (r#"{"id":"a","address":"169.254.169.254:80","metrics_port":1}"#, 403, "metadata"),
    ] {
        let (got, _, text) = ask(&proxy, Method::POST, "/registration", &[], body).await;
        assert_eq!(got.as_u16(), status, "{body}: {text}");
        assert!(text.contains(r#""status":"error""#) && text.contains(reason), "{text}");
    }
    let huge = format!(r#"{{"id":"{}"}}"#, "x".repeat(40_000));
    assert_eq!(
        ask(&proxy, Method::POST, "/registration", &[], &huge).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(
        ask(&proxy, Method::DELETE, "/registration/nobody", &[], "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(&proxy, Method::DELETE, "/registration/nobody?generation=x", &[], "").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_secret_guards_registration_and_peers() {
    let proxy = started(ServiceState::Ready, |s| {
        proxy_like(s).with_secrets(Secrets::from_values(["s3cret"]), false)
    })
    .await;
    let body = r#"{"id":"a","address":"127.0.0.1:9","metrics_port":1}"#;
    for (headers, expected) in [
        (&[][..], StatusCode::UNAUTHORIZED),
        (&[("authorization", "Bearer wrong")][..], StatusCode::UNAUTHORIZED),
        (&[("authorization", "Bearer s3cret")][..], StatusCode::OK),
    ] {
        assert_eq!(ask(&proxy, Method::POST, "/registration", headers, body).await.0, expected);
        assert_eq!(ask(&proxy, Method::GET, "/peers", headers, "").await.0, expected);
    }
}

#[tokio::test]
async fn a_backend_takes_introductions_of_proxies_and_sends_backends_to_them() {
    let identity = NodeIdentity::new(&Config::default());
    let (introductions, introduced) = lease::introductions();
    let elsewhere = Elsewhere::new(&Config::default().registration, &identity, introductions);
    let backend =
        started(ServiceState::Ready, |s| s.with_registrations(Registrations::Elsewhere(elsewhere)))
            .await;
    let body = r#"{"id":"a","address":"127.0.0.1:9","metrics_port":1}"#;
    let (status, _, text) = ask(&backend, Method::POST, "/registration", &[], body).await;
    assert_eq!(status, StatusCode::CONFLICT, "{text}");
    let proxy = |address: &str| {
        format!(r#"{{"id":"p","node_type":"proxy","address":"{address}","metrics_port":6101}}"#)
    };
    let (status, _, text) =
        ask(&backend, Method::POST, "/registration", &[], &proxy("10.0.0.1:80")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "without a secret only loopback: {text}");
    let (status, _, text) =
        ask(&backend, Method::POST, "/registration", &[], &proxy("127.0.0.1:80")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains(r#""status":"registered""#), "{text}");
    drop(introduced);
}

#[tokio::test]
async fn metrics_can_be_switched_off_and_nothing_else_with_them() {
    let server = started(ServiceState::Ready, |s| s.with_metrics_enabled(false)).await;
    for (path, expected) in [
        ("/metrics", 404),
        ("/telemetry", 404),
        ("/health", 200),
        ("/peers", 200),
        ("/nothing", 404),
    ] {
        assert_eq!(ask(&server, Method::GET, path, &[], "").await.0.as_u16(), expected, "{path}");
    }
}

#[tokio::test]
async fn each_route_says_which_methods_it_has() {
    let server = started(ServiceState::Ready, |s| s).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for (path, allowed) in [
        ("/metrics", "GET, HEAD"),
        ("/telemetry", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/peers", "GET, HEAD"),
        ("/registration", "POST"),
        ("/registration/a-node", "DELETE"),
    ] {
        let request = Request::put(format!("http://{}{path}", server.bind_addr()));
        let request = request.body(Full::default()).expect("a request");
        let answer = client.request(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers()["allow"], allowed, "{path}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = started(ServiceState::Ready, |s| s).await;
    for path in ["/health", "/metrics", "/telemetry", "/peers"] {
        let (status, content_type, body) = ask(&server, Method::HEAD, path, &[], "").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""), "{path}");
        let (_, same, body) = ask(&server, Method::GET, path, &[], "").await;
        assert!(content_type == same && !body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn two_servers_cannot_count_in_one_collector() {
    let first = started(ServiceState::Ready, |s| s).await;
    let error = OperationsServer::new(Arc::clone(&first.metrics), local()).start().await;
    let error = error.expect_err("refused").to_string();
    assert!(
        error.starts_with("operations server: ") && error.contains("is registered already"),
        "{error}"
    );
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_key() {
    let first = started(ServiceState::Ready, |s| s).await;
    let second = OperationsServer::new(MetricsCollector::new(), first.bind_addr()).start().await;
    let error = second.expect_err("it is taken").to_string();
    assert!(error.contains("operations.addr"), "{error}");
}

#[tokio::test]
async fn off_loopback_an_open_registration_refuses_to_start() {
    let everywhere: SocketAddr = ([0, 0, 0, 0], 0).into();
    let open = proxy_like(OperationsServer::new(MetricsCollector::new(), everywhere)).start().await;
    let error = open.expect_err("refused").to_string();
    assert!(error.contains("set registration.secret_file, or"), "{error}");
    let meant = proxy_like(OperationsServer::new(MetricsCollector::new(), everywhere))
        .with_secrets(Secrets::default(), true)
        .start()
        .await;
    assert!(meant.is_ok());
}

#[tokio::test]
async fn shutdown_frees_the_port() {
    let server = started(ServiceState::Ready, |s| s).await;
    let address = server.bind_addr();
    server.shutdown();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    crate::listener::bind(address, "operations.addr").expect("free again");
}

#[test]
fn the_old_name_still_works() {
    let _: MetricsServer = OperationsServer::new(MetricsCollector::new(), local());
}
