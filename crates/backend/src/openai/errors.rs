//! Errors as OpenAI's clients read them: `{"error":{message,type,param,code}}`.

use bytes::Bytes;
use http::StatusCode;
use inferno_engine::{GenerationError, PromptError, SubmitError};
use serde_json::json;

/// An error that a client sees. Its message never holds prompt or answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// OpenAI's `type`: whose fault it is.
    pub kind: &'static str,
    /// A stable word for programs.
    pub code: &'static str,
    /// The field of the request at fault.
    pub param: Option<String>,
    /// For people.
    pub message: String,
}

impl ApiError {
    /// 400: the request is at fault.
    pub fn invalid(
        code: &'static str,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code,
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// The request is at fault as a whole.
    pub fn request(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind: "invalid_request_error", code, param: None, message: message.into() }
    }

    /// 503: not now. Carries `Retry-After`.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "server_error",
            code,
            param: None,
            message: message.into(),
        }
    }

    /// It took too long, by a limit that the client has set or exceeded.
    fn timeout(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { kind: "timeout_error", ..Self::request(status, code, message) }
    }

    /// 500: our fault; the reason is in the log.
    pub fn internal() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            code: "internal_error",
            param: None,
            message: "the request failed inside the server; its log has the reason".into(),
        }
    }

    /// The model asked for is not served here.
    pub fn model_not_found(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            param: Some("model".into()),
            ..Self::request(
                StatusCode::NOT_FOUND,
                "model_not_found",
                format!("the model `{model}` does not exist; GET /v1/models lists what does"),
            )
        }
    }

    /// The body, also the payload of an error event inside a stream.
    pub fn body(&self) -> Bytes {
        let error = json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code });
        json!({ "error": error }).to_string().into()
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::invalid("invalid_prompt", "messages", error.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::ContextLength { .. } => {
                Self::invalid("context_length_exceeded", "messages", message)
            }
            SubmitError::Parameter { parameter, .. } => {
                Self::invalid("invalid_value", parameter, message)
            }
            SubmitError::QueueFull { .. } | SubmitError::QueueTokens { .. } => {
                Self::unavailable("queue_full", message)
            }
            SubmitError::Stopped => Self::unavailable("engine_stopped", message),
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        match error {
            // The engine has logged what it was.
            GenerationError::Request(_) => Self::internal(),
            GenerationError::DeadlineExceeded => {
                Self::timeout(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
            }
            GenerationError::SlowReader(_) => {
                Self::timeout(StatusCode::REQUEST_TIMEOUT, "client_too_slow", message)
            }
            GenerationError::Stopped => Self::unavailable("engine_stopped", "the engine stopped"),
        }
    }
}
