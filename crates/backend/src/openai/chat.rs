//! `POST /v1/chat/completions`.

use super::{
    answer::{Answer, Delta, Logprobs, Prompt, Shape},
    errors::ApiError,
    fields::Fields,
    params::{self, Params},
};
use inferno_engine::{Chat, Engine, Finish, Message, TokenChance, TokenLogprob};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most messages in one conversation.
pub(super) const MESSAGES_MAX: usize = 2_048;
/// Most alternatives per token.
pub(super) const TOP_LOGPROBS_MAX: usize = 20;

/// One message as clients write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `role` and `content`")]
pub(super) struct WireMessage {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    name: Option<String>,
    // What OpenAI's own answers carry, and clients therefore send back.
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
    #[serde(default)]
    function_call: Option<Value>,
    #[serde(default)]
    annotations: Option<Vec<Value>>,
    #[serde(default)]
    audio: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or an array of text parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    /// What parts of other types hold; in a text part it would be ignored.
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// A chat request, as it was read.
pub(super) struct ChatRequest {
    params: Params,
    messages: Vec<WireMessage>,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
}

/// Reads all fields of a chat request.
pub(super) fn read(fields: &mut Fields) -> Result<ChatRequest, ApiError> {
    let request = ChatRequest {
        params: Params::take(fields)?,
        messages: fields.require("messages")?,
        max_tokens: max_tokens(fields)?,
        logprobs: logprobs(fields)?,
    };
    params::refuse_unsupported(fields)?;
    fields.finish()?;
    Ok(request)
}

/// Understands a chat request.
pub fn prepare(engine: &Engine, fields: &mut Fields, created: u64) -> Result<Answer, ApiError> {
    let ChatRequest { params, messages, max_tokens, logprobs } = read(fields)?;
    super::require_model(engine.info(), &params.model)?;
    let request = params.request(engine, max_tokens, logprobs)?;
    let prompt = Prompt { ids: render(engine, messages, true, created)?, echo: None };
    Ok(Answer::new(&ChatShape, params, vec![prompt], request, created))
}

/// The tokens of a conversation, ready for the assistant's turn if `add_generation_prompt` says so.
pub(super) fn render(
    engine: &Engine,
    messages: Vec<WireMessage>,
    add_generation_prompt: bool,
    created_unix_s: u64,
) -> Result<Vec<u32>, ApiError> {
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        let message = format!("`messages` must hold 1 to {MESSAGES_MAX} messages");
        return Err(ApiError::invalid("invalid_value", "messages", message));
    }
    let messages = messages.into_iter().enumerate().map(read_message).collect::<Result<_, _>>()?;
    Ok(engine.render_chat(&Chat { messages, add_generation_prompt, created_unix_s })?)
}

/// `max_completion_tokens`, or its old name.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let new = params::take_count(fields, "max_completion_tokens")?;
    let old = params::take_count(fields, "max_tokens")?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => Err(ApiError::invalid(
            "invalid_value",
            "max_tokens",
            "`max_tokens` and `max_completion_tokens` differ; send one",
        )),
        (new, old) => Ok(new.or(old)),
    }
}

/// `logprobs: true` with `top_logprobs: 0..=20`.
fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.take::<bool>("logprobs")?.unwrap_or(false);
    let top = fields.take::<usize>("top_logprobs")?;
    match (wanted, top) {
        (false, Some(_)) => Err(ApiError::invalid(
            "invalid_value",
            "top_logprobs",
            "`top_logprobs` needs `logprobs`: true",
        )),
        (_, Some(top)) if top > TOP_LOGPROBS_MAX => {
            let message = format!("`top_logprobs` must be at most {TOP_LOGPROBS_MAX}");
            Err(ApiError::invalid("invalid_value", "top_logprobs", message))
        }
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None) => Ok(None),
    }
}

fn read_message((index, message): (usize, WireMessage)) -> Result<Message, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let unsupported = |field: &str, what: &str| {
        Err(ApiError::invalid(
            "unsupported_parameter",
            at(field),
            format!("{what} are not supported here"),
        ))
    };
    let role = match message.role.as_str() {
        // What newer clients call the system's words.
        "developer" => "system",
        role @ ("system" | "user" | "assistant") => role,
        "tool" | "function" => return unsupported("role", "tool messages"),
        _ => {
            let expected = "`role` must be system, developer, user or assistant";
            return Err(ApiError::invalid("invalid_value", at("role"), expected));
        }
    };
    if message.tool_calls.is_some_and(|calls| !calls.is_empty()) || message.function_call.is_some()
    {
        return unsupported("tool_calls", "tool calls");
    }
    if message.audio.is_some() {
        return unsupported("audio", "audio messages");
    }
    if message.refusal.is_some() || message.annotations.is_some_and(|notes| !notes.is_empty()) {
        return unsupported("refusal", "refusals and annotations");
    }
    let content = match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => join_parts(parts, &at("content"))?,
        None if role == "assistant" => String::new(),
        None => {
            let needed = format!("missing required parameter: `{}`", at("content"));
            return Err(ApiError::invalid("missing_required_parameter", at("content"), needed));
        }
    };
    Ok(Message { role: role.into(), content, name: message.name })
}

/// Text parts follow one another without a separator.
fn join_parts(parts: Vec<Part>, at: &str) -> Result<String, ApiError> {
    parts
        .into_iter()
        .map(|part| match part {
            Part { kind, text: Some(text), rest } if kind == "text" && rest.is_empty() => Ok(text),
            Part { kind, .. } => {
                let message = format!(
                    "content parts of type `{kind}` are not supported; this model reads text"
                );
                Err(ApiError::invalid("unsupported_parameter", at, message))
            }
        })
        .collect()
}

/// A conversation on the wire.
#[derive(Debug)]
struct ChatShape;

impl Shape for ChatShape {
    fn id_prefix(&self) -> &'static str {
        "chatcmpl"
    }

    fn objects(&self) -> (&'static str, &'static str) {
        ("chat.completion", "chat.completion.chunk")
    }

    fn prompt_field(&self) -> &'static str {
        "messages"
    }

    fn has_opening(&self) -> bool {
        true
    }

    fn choice(&self, text: &str, logprobs: Option<&Logprobs<'_>>, finish: &Finish) -> Value {
        json!({
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": logprobs.map(|logprobs| logprobs_json(logprobs.tokens)),
            "finish_reason": super::finish_reason(finish),
        })
    }

    fn delta(&self, delta: &Delta<'_>) -> Value {
        let (content, logprobs, finish) = match delta {
            Delta::Opening => (json!({ "role": "assistant", "content": "" }), None, None),
            Delta::Text { text, logprobs } => {
                let logprobs = logprobs.map(|logprobs| logprobs_json(logprobs.tokens));
                (json!({ "content": text }), logprobs, None)
            }
            Delta::End(finish) => (json!({}), None, Some(super::finish_reason(finish))),
        };
        json!({ "delta": content, "logprobs": logprobs, "finish_reason": finish })
    }
}

fn logprobs_json(logprobs: &[TokenLogprob]) -> Value {
    let chance = |chance: &TokenChance| {
        json!({
            "token": String::from_utf8_lossy(&chance.bytes),
            "logprob": chance.logprob,
            "bytes": chance.bytes,
        })
    };
    let content = logprobs.iter().map(|entry| {
        let mut token = chance(&entry.token);
        token["top_logprobs"] = entry.top.iter().map(chance).collect();
        token
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}
