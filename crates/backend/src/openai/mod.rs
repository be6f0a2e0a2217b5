//! OpenAI's API: what it looks like on the wire, and nothing of how it is computed.
//!
//! A request is read field by field ([`fields`]): what is not understood is refused, never ignored.
//! Chat and text completions share their parameters ([`params`], [`structure`]), how their generations run
//! side by side ([`choices`]), and the way an answer is written, whole ([`answer`]) or as events ([`events`]).
//! [`reference`] is the page that lists every field of every route.

pub mod answer;
pub mod chat;
pub mod choices;
pub mod completions;
pub mod embeddings;
pub mod errors;
pub mod events;
pub mod fields;
pub mod params;
pub mod reference;
pub mod structure;
pub mod tokenize;

use errors::ApiError;
use inferno_engine::{Finish, FinishReason, ModelInfo};
use serde_json::{Value, json};

/// `GET /v1/models`.
pub fn models(info: &ModelInfo, created: u64) -> Value {
    json!({ "object": "list", "data": [model(info, created)] })
}

/// `GET /v1/models/{id}`.
pub fn model(info: &ModelInfo, created: u64) -> Value {
    json!({
        "id": info.id,
        "object": "model",
        "created": created,
        "owned_by": "inferno",
        "max_model_len": info.context_length,
    })
}

/// The one model that is served here, or 404.
pub fn require_model(info: &ModelInfo, model: &str) -> Result<(), ApiError> {
    if info.id == model { Ok(()) } else { Err(ApiError::model_not_found(model)) }
}

pub(crate) fn finish_reason(finish: &Finish) -> &'static str {
    match finish.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(finish: &Finish) -> Value {
    json!({
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": finish.cached_tokens },
    })
}
