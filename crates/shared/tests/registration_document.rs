//! The examples in `docs/registration.md`, run in their order against a real proxy's operations server.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use inferno_shared::{
    Config, MetricsCollector, OperationsServer,
    identity::NodeIdentity,
    operations_server::Registrations,
    registration::{lease::introductions, registry::Registry, secrets::Secrets},
    tls::ClientTls,
};
use serde_json::Value;
use std::net::SocketAddr;

const DOCUMENT: &str = include_str!("../../../docs/registration.md");

/// One example: what is asked, and what is answered.
#[derive(Debug)]
struct Example {
    method: Method,
    path: String,
    authorization: Option<String>,
    body: String,
    status: u16,
    answer: Value,
}

impl Example {
    fn parse(block: &str) -> Self {
        let (request, answer) = block.split_once("HTTP/1.1 ").expect("an answer");
        let (head, body) = request.split_once("\n\n").expect("a header");
        let mut lines = head.trim().lines();
        let (method, path) =
            lines.next().and_then(|line| line.split_once(' ')).expect("a request line");
        let authorization = lines.find_map(|line| line.strip_prefix("Authorization: "));
        let (status, answer) = answer.split_once('\n').expect("a status");
        Self {
            method: method.parse().expect("a method"),
            path: path.into(),
            authorization: authorization.map(String::from),
            body: body.trim().into(),
            status: status.trim().parse().expect("a number"),
            answer: serde_json::from_str(answer)
                .unwrap_or_else(|error| panic!("{error}: {answer}")),
        }
    }

    fn all() -> Vec<Self> {
        let blocks = DOCUMENT.split("```http\n").skip(1);
        blocks.map(|rest| Self::parse(rest.split("```").next().unwrap_or_default())).collect()
    }

    async fn run(&self, server: SocketAddr) {
        let mut request =
            Request::builder().method(&self.method).uri(format!("http://{server}{}", self.path));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(Bytes::from(self.body.clone()))).expect("a request");
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, self.status, "{self:?}: {body}");
        assert!(shows(&body, &self.answer), "the document says {}, the proxy {body}", self.answer);
    }
}

/// Whether `actual` has all that is `written`; `…` stands for anything.
fn shows(actual: &Value, written: &Value) -> bool {
    match (actual, written) {
        (_, Value::String(text)) if text == "…" => true,
        (Value::Object(actual), Value::Object(written)) => written
            .iter()
            .all(|(name, written)| actual.get(name).is_some_and(|actual| shows(actual, written))),
        (Value::Array(actual), Value::Array(written)) => {
            actual.len() == written.len()
                && actual.iter().zip(written).all(|(actual, written)| shows(actual, written))
        }
        (actual, written) => actual == written,
    }
}

#[tokio::test]
async fn the_examples_are_true() {
    let config = Config::default();
    let identity = NodeIdentity::new(&config);
    let server = OperationsServer::new(MetricsCollector::new(), ([127, 0, 0, 1], 0).into());
    let (introductions, _) = introductions();
    let connected = server.connected_peers();
    let trust = ClientTls::default();
    let registry = Registry::new(&config, &identity, trust, introductions, connected);
    let server = server
        .with_registrations(Registrations::Taken(registry))
        .with_secrets(Secrets::from_values(["SECRET"]), false)
        .start()
        .await
        .expect("starts");
    let examples = Example::all();
    assert!(examples.len() >= 10, "only {} examples were found", examples.len());
    for example in examples {
        example.run(server.bind_addr()).await;
    }
}
