//! Why a request failed, in kinds that a reader acts upon differently.

use serde::Serialize;

use crate::api::ApiError;

/// The kinds, by the names they have in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorKind {
    /// No connection was made: nobody listens, no such host, a TLS handshake that failed.
    Connect,
    /// No whole answer within `--timeout`.
    Timeout,
    /// 429.
    Http429,
    /// 400–499, less 429.
    Http4xx,
    /// 500–599.
    Http5xx,
    /// Neither 200 nor an error: a redirection, say.
    HttpOther,
    /// The connection broke before the answer or within it.
    Broken,
    /// An error event inside a stream that began with 200.
    ErrorEvent,
    /// A stream that ended in good order, but without `[DONE]`.
    NoDone,
    /// Not the API's JSON.
    Malformed,
    /// A line, event or answer over the limits of this client.
    TooLarge,
}

impl ErrorKind {
    /// As in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Http429 => "http_429",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::HttpOther => "http_other",
            Self::Broken => "broken",
            Self::ErrorEvent => "error_event",
            Self::NoDone => "no_done",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// The HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn timeout(after: std::time::Duration) -> Self {
        let message = format!("no whole answer within {} s", after.as_secs_f64());
        Self { kind: ErrorKind::Timeout, status: None, message }
    }

    /// Whether the next attempt would only fail as fast: nobody is there to be loaded.
    pub(super) fn is_unreachable(&self) -> bool {
        self.kind == ErrorKind::Connect
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let (kind, status) = match &error {
            ApiError::Refused { status, .. } => (of_status(status.as_u16()), Some(status.as_u16())),
            ApiError::Broken { .. } => (ErrorKind::Broken, None),
            ApiError::ErrorEvent { .. } => (ErrorKind::ErrorEvent, Some(200)),
            ApiError::NoDone => (ErrorKind::NoDone, Some(200)),
            ApiError::Malformed { .. } => (ErrorKind::Malformed, Some(200)),
            ApiError::TooLarge { .. } => (ErrorKind::TooLarge, Some(200)),
            ApiError::Absent { .. }
            | ApiError::Unreachable { .. }
            | ApiError::BadUrl { .. }
            | ApiError::BadKey
            | ApiError::NoCertificates { .. } => (ErrorKind::Connect, None),
        };
        Self { kind, status, message: error.to_string() }
    }
}

fn of_status(status: u16) -> ErrorKind {
    match status {
        429 => ErrorKind::Http429,
        400..500 => ErrorKind::Http4xx,
        500..600 => ErrorKind::Http5xx,
        _ => ErrorKind::HttpOther,
    }
}
