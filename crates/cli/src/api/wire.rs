//! The API's JSON, as far as a client reads it. One shape serves streamed and whole answers, chat and
//! text completions: what one of them lacks is absent.

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ApiError;

/// How much of an answer that is not the API's is shown.
const EXCERPT_CHARS: usize = 200;

/// One event of a streamed answer, or a whole one.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Chunk {
    #[serde(default)]
    pub(crate) choices: Vec<Choice>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

/// One alternative of an answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Choice {
    /// Of a streamed chat completion.
    #[serde(default)]
    pub(crate) delta: Delta,
    /// Of a text completion.
    #[serde(default)]
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) finish_reason: Option<String>,
}

/// What an event adds to a message.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Delta {
    #[serde(default)]
    pub(crate) content: Option<String>,
    /// The thoughts of a reasoning model, by the two names servers use.
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// Tokens, as the server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub(crate) prompt_tokens: u64,
    #[serde(default)]
    pub(crate) completion_tokens: u64,
}

/// Most servers send an object; some a bare sentence.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Object { message: String },
    Text(String),
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

/// The answer of `GET /v1/models`.
#[derive(Deserialize)]
pub(super) struct Models {
    pub(super) data: Vec<Model>,
}

#[derive(Deserialize)]
pub(super) struct Model {
    pub(super) id: String,
}

impl ErrorBody {
    fn message(self) -> String {
        match self {
            Self::Object { message } | Self::Text(message) => message,
        }
    }
}

impl Chunk {
    /// An event's data or a whole body; an error inside is an error.
    pub(super) fn parse(json: &[u8]) -> Result<Self, ApiError> {
        let chunk: Self = serde_json::from_slice(json)
            .map_err(|error| ApiError::Malformed { reason: error.to_string() })?;
        match chunk.error {
            Some(error) => Err(ApiError::ErrorEvent { message: error.message() }),
            None => Ok(chunk),
        }
    }

    /// Whether it carries something that a model generated: text, thoughts or a tool call. The first
    /// event of a chat names the role, the last gives the usage; they carry nothing.
    pub(crate) fn has_content(&self) -> bool {
        let is_text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        self.choices.iter().any(|Choice { delta, text, .. }| {
            [text, &delta.content, &delta.reasoning_content, &delta.reasoning]
                .into_iter()
                .any(is_text)
                || delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
        })
    }
}

/// What the server says went wrong: the API's error object, else the beginning of whatever it is.
pub(crate) fn message(status: StatusCode, body: &[u8]) -> String {
    if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(body) {
        return answer.error.message();
    }
    let text: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS).collect();
    format!("the server answered {status}: {}", text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_the_servers_words() {
        let body = br#"{"error":{"message":"no model `x`","type":"t","param":null,"code":"c"}}"#;
        assert_eq!(message(StatusCode::NOT_FOUND, body), "no model `x`");
        assert_eq!(
            message(StatusCode::NOT_FOUND, br#"{"error":"no such model"}"#),
            "no such model"
        );
        assert_eq!(
            message(StatusCode::BAD_GATEWAY, b"<html>"),
            "the server answered 502 Bad Gateway: <html>"
        );
    }

    #[test]
    fn an_error_inside_a_stream_is_an_error() {
        let event = br#"{"error":{"message":"backend lost","code":"backend_lost"}}"#;
        let error = Chunk::parse(event).expect_err("an error");
        assert!(matches!(error, ApiError::ErrorEvent { message } if message == "backend lost"));
        assert!(matches!(Chunk::parse(b"{"), Err(ApiError::Malformed { .. })));
    }

    #[test]
    fn content_is_what_the_model_made() {
        let chunk = |json: &str| Chunk::parse(json.as_bytes()).expect("an event");
        for with in [
            r#"{"choices":[{"delta":{"content":"x"}}]}"#,
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"x"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"x"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"text":"x","finish_reason":null}]}"#,
        ] {
            assert!(chunk(with).has_content(), "{with}");
        }
        for without in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":null,"tool_calls":[]}}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ] {
            assert!(!chunk(without).has_content(), "{without}");
        }
    }
}
