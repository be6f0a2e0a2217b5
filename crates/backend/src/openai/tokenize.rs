//! `POST /tokenize` and `POST /detokenize`, in vLLM's shapes: what a prompt is to the model, without running it.

use super::{
    chat::{self, WireMessage},
    errors::ApiError,
    fields::Fields,
};
use inferno_engine::Engine;
use serde_json::{Value, json};

/// Most token ids that are turned into text at once.
pub(super) const TOKENS_MAX: usize = 1 << 20;

/// A request for tokens, as it was read.
pub(super) struct TokenizeRequest {
    model: String,
    prompt: Option<String>,
    messages: Option<Vec<WireMessage>>,
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    return_token_strs: bool,
}

/// Reads all fields of a request for tokens.
pub(super) fn read(fields: &mut Fields) -> Result<TokenizeRequest, ApiError> {
    let request = TokenizeRequest {
        model: fields.require("model")?,
        prompt: fields.take("prompt")?,
        messages: fields.take("messages")?,
        add_special_tokens: fields.take("add_special_tokens")?,
        add_generation_prompt: fields.take("add_generation_prompt")?,
        return_token_strs: fields.take("return_token_strs")?.unwrap_or(false),
    };
    fields.finish()?;
    Ok(request)
}

/// Reads all fields of a request for the text of tokens: the model and the tokens.
pub(super) fn read_tokens(fields: &mut Fields) -> Result<(String, Vec<u32>), ApiError> {
    let request = (fields.require("model")?, fields.require("tokens")?);
    fields.finish()?;
    Ok(request)
}

/// The token ids of `prompt`, or of `messages` in the model's template.
pub fn tokenize(engine: &Engine, fields: &mut Fields, created: u64) -> Result<Value, ApiError> {
    let request = read(fields)?;
    super::require_model(engine.info(), &request.model)?;
    let return_token_strs = request.return_token_strs;
    let tokens = tokens(engine, request, created)?;
    let strings = |ids: &[u32]| -> Vec<String> {
        let bytes = ids.iter().map(|id| engine.token_bytes(*id));
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    Ok(json!({
        "count": tokens.len(),
        "max_model_len": engine.info().context_length,
        "token_strs": return_token_strs.then(|| strings(&tokens)),
        "tokens": tokens,
    }))
}

fn tokens(engine: &Engine, request: TokenizeRequest, created: u64) -> Result<Vec<u32>, ApiError> {
    let TokenizeRequest { add_special_tokens, add_generation_prompt, .. } = request;
    match (request.prompt, request.messages) {
        (Some(_), Some(_)) => {
            let message = "`prompt` and `messages` exclude each other";
            return Err(ApiError::invalid("invalid_value", "messages", message));
        }
        (None, None) => {
            let message = "missing required parameter: `prompt`, or `messages`";
            return Err(ApiError::invalid("missing_required_parameter", "prompt", message));
        }
        (Some(prompt), None) => {
            only_with("add_generation_prompt", "messages", add_generation_prompt.is_some())?;
            text(engine, &prompt, add_special_tokens.unwrap_or(true))
        }
        (None, Some(messages)) => {
            only_with("add_special_tokens", "prompt", add_special_tokens == Some(true))?;
            chat::render(engine, messages, add_generation_prompt.unwrap_or(true), created)
        }
    }
}

/// The text of `tokens`, special ones spelled out.
pub fn detokenize(engine: &Engine, fields: &mut Fields, _created: u64) -> Result<Value, ApiError> {
    let (model, tokens) = read_tokens(fields)?;
    super::require_model(engine.info(), &model)?;
    let vocab = engine.info().vocab_size;
    if tokens.len() > TOKENS_MAX || tokens.iter().any(|id| *id as usize >= vocab) {
        let message = format!("`tokens` holds at most {TOKENS_MAX} ids, each below {vocab}");
        return Err(ApiError::invalid("invalid_value", "tokens", message));
    }
    Ok(json!({ "prompt": engine.decode(&tokens) }))
}

fn text(engine: &Engine, prompt: &str, add_special: bool) -> Result<Vec<u32>, ApiError> {
    let encoded = engine.encode(prompt);
    let mut ids = encoded
        .map_err(|error| ApiError::invalid("invalid_prompt", "prompt", error.to_string()))?;
    let is_added = |id: u32| !prompt.as_bytes().starts_with(engine.token_bytes(id));
    // What the tokenizer puts in front is one token, the beginning of the sequence.
    if !add_special
        && ids.first().is_some_and(|first| Some(*first) == engine.bos() && is_added(*first))
    {
        ids.remove(0);
    }
    Ok(ids)
}

fn only_with(field: &'static str, with: &str, is_there: bool) -> Result<(), ApiError> {
    if !is_there {
        return Ok(());
    }
    let message = format!("`{field}` goes with `{with}`");
    Err(ApiError::invalid("invalid_value", field, message))
}
