//! What can go wrong with one request, and what the client is told about it.
//!
//! Two audiences, two texts. The client sees [`RequestError::body`]: OpenAI's error object with a
//! sentence that says what to change, never an address or an inner error. The operator's log has
//! the [`std::fmt::Display`] text, which names the cause. A `code` is part of the API: clients
//! branch on it, so codes are added and never reworded.

use crate::{
    admission::{Limited, Remaining},
    headers::EXPLAIN,
    keys::Refusal,
    strict::{self, Fault},
    upstream::UpstreamError,
};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// How long a client should wait where capacity is missing: about the time in which a backend
/// registers and is proved.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that gets an error for an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("malformed request header")]
    MalformedHeader,
    #[error("a header that can be read in two ways: {0}")]
    AmbiguousHeader(&'static str),
    #[error("malformed chunk in the request body")]
    MalformedChunk,
    #[error(
        "request header over {} bytes or {} fields",
        strict::HEADER_BYTES_MAX,
        strict::FIELDS_MAX
    )]
    HeaderTooLarge,
    #[error("request target over {} bytes", strict::TARGET_BYTES_MAX)]
    TargetTooLong,
    #[error("no API key")]
    MissingKey,
    #[error("API key refused: {}", refusal(.0))]
    Key(Refusal),
    #[error("the API key may not use this model")]
    ModelNotAllowed { model: String },
    #[error("the request was not received in time")]
    ReadTimeout,
    #[error("an upgrade to another protocol was requested")]
    UpgradeRequested,
    #[error("the client sent an internal header")]
    InternalHeader { name: String },
    #[error("routing may not be explained to this client")]
    ExplanationRefused,
    #[error("no such path")]
    UnknownPath,
    #[error("method not allowed, only {allow}")]
    MethodNotAllowed { allow: &'static str },
    #[error("request body over {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("request bodies together over {limit} bytes")]
    BodiesExhausted { limit: u64 },
    #[error("{limit} requests are in progress (proxy.limits.requests_max)")]
    RequestsExhausted { limit: usize },
    #[error("over the limit of the key, or of those without one: {0}")]
    Limited(#[from] Limited),
    #[error("{limit} requests wait for a backend (proxy.limits.queue_max)")]
    QueueFull { limit: usize },
    #[error(
        "no backend was free within {after:?} (proxy.limits.queue_timeout_ms, proxy.timeouts.total_ms)"
    )]
    QueueTimeout { after: Duration },
    #[error("request body is not JSON: {detail}")]
    MalformedJson { detail: String },
    #[error("request body is not a form: {detail}")]
    MalformedForm { detail: &'static str },
    #[error("required parameter {param} is missing")]
    MissingParameter { param: &'static str },
    #[error("parameter {param} is not {expected}")]
    WrongType { param: &'static str, expected: &'static str },
    #[error("unknown model")]
    UnknownModel { model: String },
    #[error("no backend is registered")]
    NoBackends,
    #[error("no backend of the model takes requests now")]
    ModelUnavailable { model: String },
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
    #[error("upstream: {0}; nobody else was asked, proxy.retry.budget is spent")]
    BudgetSpent(#[source] UpstreamError),
}

/// OpenAI's error object.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

impl RequestError {
    /// The answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::MalformedHeader
            | Self::AmbiguousHeader(_)
            | Self::MalformedChunk
            | Self::InternalHeader { .. }
            | Self::MalformedJson { .. }
            | Self::MalformedForm { .. }
            | Self::MissingParameter { .. }
            | Self::WrongType { .. } => StatusCode::BAD_REQUEST,
            Self::ExplanationRefused => StatusCode::FORBIDDEN,
            Self::MissingKey | Self::Key(_) => StatusCode::UNAUTHORIZED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ReadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UpgradeRequested => StatusCode::NOT_IMPLEMENTED,
            Self::UnknownPath | Self::UnknownModel { .. } | Self::ModelNotAllowed { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::BodiesExhausted { .. }
            | Self::RequestsExhausted { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::NoBackends
            | Self::ModelUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            // Nobody has seen the request: what is missing is capacity, and a retry is safe.
            Self::Upstream(error) | Self::BudgetSpent(error) => match error {
                UpstreamError::ConnectRefused
                | UpstreamError::ConnectTimeout
                | UpstreamError::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
                UpstreamError::FirstByteTimeout | UpstreamError::IdleTimeout => {
                    StatusCode::GATEWAY_TIMEOUT
                }
                _ => StatusCode::BAD_GATEWAY,
            },
        }
    }

    /// The stable name that clients branch on.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::MalformedHeader | Self::AmbiguousHeader(_) | Self::MalformedChunk => {
                "malformed_request"
            }
            Self::HeaderTooLarge => "header_too_large",
            Self::TargetTooLong => "url_too_long",
            Self::MissingKey => "missing_api_key",
            Self::Key(_) => "invalid_api_key",
            Self::ReadTimeout => "request_timeout",
            Self::UpgradeRequested => "upgrade_not_supported",
            Self::InternalHeader { .. } => "internal_header",
            Self::ExplanationRefused => "explanation_refused",
            Self::UnknownPath => "unknown_url",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::BodyTooLarge { .. } => "request_too_large",
            Self::BodiesExhausted { .. } | Self::RequestsExhausted { .. } => "overloaded",
            Self::Limited(limited) => limited.code(),
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::MalformedJson { .. } => "malformed_json",
            Self::MalformedForm { .. } => "malformed_form",
            Self::MissingParameter { .. } => "missing_required_parameter",
            Self::WrongType { .. } => "invalid_type",
            Self::UnknownModel { .. } | Self::ModelNotAllowed { .. } => "model_not_found",
            Self::NoBackends => "no_backends",
            Self::ModelUnavailable { .. } => "model_unavailable",
            Self::Upstream(error) | Self::BudgetSpent(error) => error.code(),
        }
    }

    /// The request's field that is at fault.
    fn param(&self) -> Option<&'static str> {
        match self {
            Self::MissingParameter { param } | Self::WrongType { param, .. } => Some(param),
            Self::UnknownModel { .. }
            | Self::ModelNotAllowed { .. }
            | Self::ModelUnavailable { .. } => Some("model"),
            _ => None,
        }
    }

    /// The sentence for the client.
    fn message(&self) -> String {
        match self {
            Self::MalformedHeader => "The request header is not valid HTTP.".into(),
            Self::AmbiguousHeader(why) => {
                format!("The request header could be read in two ways: {why}.")
            }
            Self::MalformedChunk => "The request body is not in valid chunks.".into(),
            Self::HeaderTooLarge => format!(
                "The request header is larger than {} bytes or has more than {} fields.",
                strict::HEADER_BYTES_MAX,
                strict::FIELDS_MAX
            ),
            Self::TargetTooLong => {
                format!("The URL is longer than {} bytes.", strict::TARGET_BYTES_MAX)
            }
            Self::MissingKey => {
                "An API key is required, in the header 'Authorization: Bearer KEY'.".into()
            }
            Self::Key(Refusal::Unknown) => "The API key is not valid.".into(),
            Self::Key(Refusal::Expired(_)) => "The API key has expired.".into(),
            Self::Key(Refusal::Revoked(_)) => "The API key has been revoked.".into(),
            Self::ReadTimeout => "The request was not received in time.".into(),
            Self::UpgradeRequested => "Protocol upgrades are not supported here.".into(),
            Self::InternalHeader { name } if EXPLAIN == *name.as_str() => {
                format!("The header {name} takes 1 and nothing else.")
            }
            Self::InternalHeader { name } => format!("The header {name} is reserved."),
            Self::ExplanationRefused => {
                "Routing is explained to API keys made with --explain, and to anyone only where the proxy listens \
                 on loopback and asks for no keys."
                    .into()
            }
            Self::UnknownPath => "There is nothing at this URL; the API lives under /v1.".into(),
            Self::MethodNotAllowed { allow } => format!("This URL takes only {allow}."),
            Self::BodyTooLarge { limit } => {
                format!("The request body is larger than {limit} bytes, the most accepted here.")
            }
            Self::BodiesExhausted { .. } => {
                "Too many large requests are being processed; try again shortly.".into()
            }
            Self::RequestsExhausted { .. } => {
                "Too many requests are being processed; try again shortly.".into()
            }
            Self::Limited(limited) => limited.message(),
            Self::QueueFull { .. } => "Too many requests wait already; try again shortly.".into(),
            Self::QueueTimeout { .. } => {
                "No backend was free for the request in time; try again shortly.".into()
            }
            Self::MalformedJson { detail } => {
                format!("The request body is not a valid JSON object: {detail}.")
            }
            Self::MalformedForm { detail } => {
                format!("The request body is not a valid form: {detail}.")
            }
            Self::MissingParameter { param } => format!("The parameter '{param}' is required."),
            Self::WrongType { param, expected } => {
                format!("The parameter '{param}' must be {expected}.")
            }
            // One text: which models there are for others is nobody's business.
            Self::UnknownModel { model } | Self::ModelNotAllowed { model } => {
                format!(
                    "The model '{model}' does not exist here; GET /v1/models lists those that do."
                )
            }
            Self::NoBackends => "No backend is available yet; try again shortly.".into(),
            Self::ModelUnavailable { model } => {
                format!("The model '{model}' takes no requests at the moment; try again shortly.")
            }
            Self::Upstream(error) | Self::BudgetSpent(error) => error.message().into(),
        }
    }

    /// Whose doing it is, in OpenAI's words.
    fn kind(&self) -> &'static str {
        match self {
            Self::Limited(limited) => limited.kind(),
            _ if self.status().is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// For the headers `retry-after` and `retry-after-ms`, where capacity is what is missing, or time.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited(limited) => limited.retry_after(),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER),
        }
    }

    /// For the headers `x-ratelimit-*`.
    pub(crate) fn remaining(&self) -> Remaining {
        match self {
            Self::Limited(limited) => limited.remaining,
            _ => Remaining::default(),
        }
    }

    /// For the `x-should-retry` header, which OpenAI's clients obey: a fleet that fails is not helped by being asked
    /// again, and a request over a minute's limit fits into no minute.
    pub(crate) fn should_retry(&self) -> Option<&'static str> {
        let is_futile = match self {
            Self::Limited(limited) => limited.retry_after().is_none(),
            _ => matches!(self, Self::BudgetSpent(_)),
        };
        is_futile.then_some("false")
    }

    /// For the `www-authenticate` header (RFC 6750 §3).
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::MissingKey => Some(r#"Bearer realm="inferno""#),
            Self::Key(_) => Some(r#"Bearer realm="inferno", error="invalid_token""#),
            _ => None,
        }
    }

    /// Where the request ends is not known, and so neither where the next one begins: its connection ends.
    pub(crate) fn is_about_framing(&self) -> bool {
        matches!(
            self,
            Self::MalformedHeader
                | Self::AmbiguousHeader(_)
                | Self::MalformedChunk
                | Self::HeaderTooLarge
                | Self::TargetTooLong
        )
    }

    /// The id of the key that was refused, where it was shown whole.
    pub(crate) fn key_id(&self) -> Option<Arc<str>> {
        match self {
            Self::Key(Refusal::Expired(holder) | Refusal::Revoked(holder)) => {
                Some(Arc::clone(&holder.id))
            }
            _ => None,
        }
    }

    /// For the `allow` header.
    pub(crate) fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// `{"error":{"message","type","param","code"}}`.
    pub(crate) fn body(&self) -> Bytes {
        let error = ErrorObject {
            message: &self.message(),
            r#type: self.kind(),
            param: self.param(),
            code: self.code(),
        };
        // Four strings: the serialiser has nothing to fail on.
        serde_json::to_vec(&ErrorBody { error }).unwrap_or_default().into()
    }

    /// The same object as a server-sent event, for a stream whose status is already out.
    pub(crate) fn event(&self) -> Bytes {
        [b"data: ".as_slice(), &self.body(), b"\n\n"].concat().into()
    }
}

impl From<Fault> for RequestError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::MalformedHeader,
            Fault::Ambiguous(why) => Self::AmbiguousHeader(why),
            Fault::TooLarge => Self::HeaderTooLarge,
            Fault::TargetTooLong => Self::TargetTooLong,
        }
    }
}

/// For the log.
fn refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown => "unknown",
        Refusal::Expired(_) => "expired",
        Refusal::Revoked(_) => "revoked",
    }
}

/// Why a request's journey ended before its answer was complete.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// An answer is due: the client is there and has seen nothing yet.
    Refused(RequestError),
    /// The client went away.
    ClientGone,
    /// The backend was lost after its header had gone to the client: only closing the connection
    /// can still say so.
    Truncated(RequestError),
    /// The same, and an event of the stream has told the client.
    Told(RequestError),
}

impl<E: Into<RequestError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Limit, Wait};

    #[test]
    fn errors_have_openais_shape() {
        let body = RequestError::UnknownModel { model: "a\"b".into() }.body();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "model_not_found");
        assert_eq!(body["error"]["param"], "model");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(body["error"]["message"].as_str().expect("text").contains("a\"b"));
    }

    fn limited(limit: Limit) -> RequestError {
        let (wait, remaining) = (Wait::Forever, Remaining::default());
        Limited { limit, most: 1, wait, remaining }.into()
    }

    /// One of each, but for the keys', which have one code.
    fn every() -> Vec<RequestError> {
        let (model, limit) = (String::from("m"), 1);
        let io = || std::io::Error::other("lost");
        let upstream = [
            UpstreamError::ConnectRefused,
            UpstreamError::ConnectTimeout,
            UpstreamError::Connect(io()),
            UpstreamError::FirstByteTimeout,
            UpstreamError::IdleTimeout,
        ];
        let own = [
            RequestError::MalformedHeader,
            RequestError::AmbiguousHeader(""),
            RequestError::MalformedChunk,
            RequestError::HeaderTooLarge,
            RequestError::TargetTooLong,
            RequestError::MissingKey,
            RequestError::Key(Refusal::Unknown),
            RequestError::ModelNotAllowed { model: model.clone() },
            RequestError::ReadTimeout,
            RequestError::UpgradeRequested,
            RequestError::InternalHeader { name: String::new() },
            RequestError::ExplanationRefused,
            RequestError::UnknownPath,
            RequestError::MethodNotAllowed { allow: "POST" },
            RequestError::BodyTooLarge { limit },
            RequestError::BodiesExhausted { limit },
            RequestError::RequestsExhausted { limit: 1 },
            RequestError::QueueFull { limit: 1 },
            RequestError::QueueTimeout { after: Duration::ZERO },
            limited(Limit::Concurrency),
            limited(Limit::Requests),
            limited(Limit::Tokens { needed: 1 }),
            RequestError::MalformedJson { detail: String::new() },
            RequestError::MalformedForm { detail: "" },
            RequestError::MissingParameter { param: "model" },
            RequestError::WrongType { param: "model", expected: "a string" },
            RequestError::UnknownModel { model: model.clone() },
            RequestError::NoBackends,
            RequestError::ModelUnavailable { model },
        ];
        let spent = RequestError::BudgetSpent(UpstreamError::Lost(io()));
        own.into_iter().chain(upstream.map(RequestError::from)).chain([spent]).collect()
    }

    #[test]
    fn every_code_is_documented_under_its_status() {
        let page = include_str!("../../backend/src/openai/reference.md");
        for error in every() {
            let row = format!("| {}", error.status().as_u16());
            let rows = page.lines().filter(|line| line.starts_with(&row));
            let code = format!("`{}`", error.code());
            assert!(rows.clone().any(|row| row.contains(&code)), "{code} under {row}");
        }
    }

    #[test]
    fn only_missing_capacity_asks_to_wait() {
        assert!(RequestError::NoBackends.retry_after().is_some());
        assert!(RequestError::UnknownPath.retry_after().is_none());
        assert!(RequestError::from(UpstreamError::FirstByteTimeout).retry_after().is_none());
    }

    #[test]
    fn an_inner_error_is_not_shown_to_the_client() {
        let inner = std::io::Error::other("10.1.2.3:9999 exploded");
        let error = RequestError::from(UpstreamError::Connect(inner));
        assert!(error.to_string().contains("10.1.2.3"), "the log has it");
        let body = String::from_utf8(error.body().to_vec()).expect("UTF-8");
        assert!(!body.contains("10.1.2.3"), "the client has not: {body}");
    }
}
