//! A client that can wait for each event of a stream, and go away in the middle of one.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Legacy, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::net::SocketAddr;

/// Talks HTTP/1.1 to one process or another.
#[derive(Clone)]
pub struct Client(Legacy<HttpConnector, Full<Bytes>>);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// Its body as JSON, after checking the status.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.json()
    }

    /// OpenAI's error object, after checking the status.
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.json()["error"].clone()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client without open connections.
    pub fn new() -> Self {
        Self(Legacy::builder(TokioExecutor::new()).build_http())
    }

    /// `GET`.
    pub async fn get(&self, server: SocketAddr, path: &str) -> Answer {
        whole(self.send(Method::GET, server, path, &[], Bytes::new()).await).await
    }

    /// `GET`, with headers.
    pub async fn get_with(
        &self,
        server: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        whole(self.send(Method::GET, server, path, headers, Bytes::new()).await).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, server: SocketAddr, path: &str, body: impl Into<Bytes>) -> Answer {
        self.post_with(server, path, &[], body).await
    }

    /// `POST` of JSON, with headers.
    pub async fn post_with(
        &self,
        server: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        whole(self.send(Method::POST, server, path, headers, body.into()).await).await
    }

    /// `POST` of JSON whose answer is read event by event.
    pub async fn stream(&self, server: SocketAddr, path: &str, body: &Value) -> Events {
        let response = self.send(Method::POST, server, path, &[], body.to_string().into()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .expect("ascii")
                .starts_with("text/event-stream")
        );
        Events { body: response.into_body(), buffer: String::new() }
    }

    async fn send(
        &self,
        method: Method,
        server: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{server}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("content-type", "application/json").body(Full::new(body));
        let sent = self.0.request(request.expect("a request"));
        let response = tokio::time::timeout(crate::PATIENCE, sent).await.expect("in time");
        response.unwrap_or_else(|error| panic!("{server}{path}: {error:?}"))
    }
}

async fn whole(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(crate::PATIENCE, body.collect()).await.expect("in time");
    let body = body.expect("a whole body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A stream of server-sent events. Dropping it closes the connection.
pub struct Events {
    body: Incoming,
    buffer: String,
}

impl Events {
    /// The data of the next event; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let data = event.strip_prefix("data: ").expect("an event").to_owned();
                self.buffer = rest.to_owned();
                return Some(data);
            }
            let frame =
                tokio::time::timeout(crate::PATIENCE, self.body.frame()).await.expect("in time")?;
            let data = frame.expect("an unbroken stream").into_data().unwrap_or_default();
            self.buffer.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// All events left, as JSON, up to `[DONE]`, which must come.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(data) = self.next().await {
            if data == "[DONE]" {
                assert_eq!(self.next().await, None, "nothing follows [DONE]");
                return events;
            }
            events.push(serde_json::from_str(&data).expect("JSON"));
        }
        panic!("no [DONE] after {events:?}");
    }
}
