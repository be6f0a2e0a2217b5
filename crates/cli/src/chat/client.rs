//! Requests to the API and its answers, event by event.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::sse::Decoder;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is not a stream.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How much of an answer that is not ours is shown.
const EXCERPT_CHARS: usize = 200;

/// Why there is no answer, for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Not an address we can use.
    #[error("{url} is not an address like http://127.0.0.1:8080")]
    BadUrl { url: String },
    /// Nobody there.
    #[error("nothing answers at {url} ({reason}): is it running? `inferno up` starts it")]
    Unreachable { url: String, reason: String },
    /// The server refused, and said why.
    #[error("{message}")]
    Refused { message: String },
    /// The answer broke off.
    #[error("the answer broke off: {reason}")]
    Broken { reason: String },
    /// The terminal or file we write to.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

/// The API behind one base address.
pub(crate) struct ChatClient {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer as it comes.
pub(super) struct Answer {
    body: Incoming,
    decoder: Decoder,
    waiting: VecDeque<String>,
}

/// One event of a streamed chat completion.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    pub(super) delta: Delta,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta {
    #[serde(default)]
    pub(super) content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Usage {
    pub(super) completion_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    message: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

impl ChatClient {
    /// A client of the API at `http://host:port`, with or without `/v1`.
    pub(crate) fn new(url: &str) -> Result<Self, ApiError> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let address: Option<Uri> = base.parse().ok();
        if !address.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some()) {
            return Err(ApiError::BadUrl { url: url.to_owned() });
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Ok(Self { base, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// The ids of the models that can be asked now.
    pub(crate) async fn models(&self) -> Result<Vec<String>, ApiError> {
        let answer = self.send(Method::GET, "/v1/models", Bytes::new()).await?;
        let body = read(answer.into_body()).await?;
        let models: Models = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        Ok(models.data.into_iter().map(|model| model.id).collect())
    }

    /// Asks for a streamed chat completion.
    pub(super) async fn stream(&self, request: &serde_json::Value) -> Result<Answer, ApiError> {
        let answer =
            self.send(Method::POST, "/v1/chat/completions", request.to_string().into()).await?;
        Ok(Answer {
            body: answer.into_body(),
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
        })
    }

    /// Sends a request; an answer other than 200 is an error with the server's own words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        let url = format!("{}{path}", self.base);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| ApiError::BadUrl { url })?;
        let answer =
            self.client.request(request).await.map_err(|error| self.unreachable(&error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let body = read(answer.into_body()).await?;
        Err(ApiError::Refused { message: message(status, &body) })
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> ApiError {
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        ApiError::Unreachable { url: self.base.clone(), reason: reason.to_string() }
    }
}

impl Answer {
    /// The next event; `None` after the last. Dropping the answer before ends the connection, and
    /// with it the generation.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, ApiError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return parse(&event);
            }
            match self.body.frame().await {
                None => return Err(broken(&"the server ended it without [DONE]")),
                Some(frame) => {
                    let bytes =
                        frame.map_err(|error| broken(&error))?.into_data().unwrap_or_default();
                    self.waiting.extend(self.decoder.push(&bytes).map_err(|error| broken(&error))?);
                }
            }
        }
    }
}

fn parse(event: &str) -> Result<Option<Chunk>, ApiError> {
    if event == "[DONE]" {
        return Ok(None);
    }
    let chunk: Chunk = serde_json::from_str(event).map_err(|error| broken(&error))?;
    match chunk.error {
        Some(error) => Err(ApiError::Refused { message: error.message }),
        None => Ok(Some(chunk)),
    }
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| broken(&error))?.to_bytes())
}

/// What the server says went wrong: the API's error object, else the beginning of whatever it is.
fn message(status: StatusCode, body: &[u8]) -> String {
    if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(body) {
        return answer.error.message;
    }
    let text: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS).collect();
    format!("the server answered {status}: {}", text.trim())
}

fn broken(reason: &dyn std::fmt::Display) -> ApiError {
    ApiError::Broken { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_the_servers_words() {
        let body = br#"{"error":{"message":"no model `x`","type":"t","param":null,"code":"c"}}"#;
        assert_eq!(message(StatusCode::NOT_FOUND, body), "no model `x`");
        assert_eq!(
            message(StatusCode::BAD_GATEWAY, b"<html>"),
            "the server answered 502 Bad Gateway: <html>"
        );
    }

    #[test]
    fn an_error_inside_a_stream_is_an_error() {
        let event = r#"{"error":{"message":"backend lost","code":"backend_lost"}}"#;
        assert!(
            matches!(parse(event), Err(ApiError::Refused { message }) if message == "backend lost")
        );
        assert!(matches!(parse("[DONE]"), Ok(None)));
        assert!(matches!(parse("{"), Err(ApiError::Broken { .. })));
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        assert!(
            ChatClient::new("http://127.0.0.1:8080/v1/")
                .is_ok_and(|c| c.base == "http://127.0.0.1:8080")
        );
        for url in ["127.0.0.1:8080", "https://host", "", "/v1"] {
            assert!(matches!(ChatClient::new(url), Err(ApiError::BadUrl { .. })), "{url}");
        }
    }
}
