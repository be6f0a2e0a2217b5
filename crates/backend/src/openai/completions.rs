//! `POST /v1/completions`: text in, text out, without a template.

use super::{
    answer::{Answer, Delta, Shape},
    errors::ApiError,
    fields::Fields,
    params::{self, Params},
};
use inferno_engine::{Engine, Finish, TokenLogprob};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// As OpenAI has it.
const MAX_TOKENS_DEFAULT: usize = 16;
/// Most alternatives per token, as OpenAI has it.
const LOGPROBS_MAX: usize = 5;

/// `"text"`, `["text"]`, `[1,2]` or `[[1,2]]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, an array of token ids, or an array with one of these")]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

/// Reads a completion request.
pub fn prepare(engine: &Engine, mut fields: Fields, created: u64) -> Result<Answer, ApiError> {
    let params = Params::take(&mut fields)?;
    let prompt: Prompt = fields.require("prompt")?;
    let max_tokens = params::take_count(&mut fields, "max_tokens")?.unwrap_or(MAX_TOKENS_DEFAULT);
    let logprobs = fields.take::<usize>("logprobs")?;
    if logprobs.is_some_and(|top| top > LOGPROBS_MAX) {
        let message = format!("`logprobs` must be at most {LOGPROBS_MAX}");
        return Err(ApiError::invalid("invalid_value", "logprobs", message));
    }
    fields.refuse_unless("best_of", |n| n == 1)?;
    fields.refuse_unless("echo", |echo| echo == false)?;
    fields.refuse_unless("suffix", |suffix| suffix == "")?;
    params::refuse_unsupported(&mut fields)?;
    fields.finish()?;
    super::require_model(engine.info(), &params.model)?;
    let prompt = read_prompt(engine, prompt)?;
    let request = params.request(prompt, Some(max_tokens), logprobs);
    Ok(Answer::new(&TextShape, params, request, created))
}

fn read_prompt(engine: &Engine, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    let encode = |text: &str| {
        engine
            .encode(text)
            .map_err(|error| ApiError::invalid("invalid_prompt", "prompt", error.to_string()))
    };
    let only_one = || {
        Err(ApiError::invalid(
            "unsupported_parameter",
            "prompt",
            "one prompt a request is supported here",
        ))
    };
    match prompt {
        Prompt::Text(text) => encode(&text),
        Prompt::Ids(ids) => Ok(ids),
        Prompt::Texts(texts) => match texts.as_slice() {
            [text] => encode(text),
            _ => only_one(),
        },
        Prompt::Lists(mut lists) => match (lists.pop(), lists.is_empty()) {
            (Some(ids), true) => Ok(ids),
            _ => only_one(),
        },
    }
}

/// Plain text on the wire.
#[derive(Debug)]
struct TextShape;

impl Shape for TextShape {
    fn id_prefix(&self) -> &'static str {
        "cmpl"
    }

    fn objects(&self) -> (&'static str, &'static str) {
        ("text_completion", "text_completion")
    }

    fn prompt_field(&self) -> &'static str {
        "prompt"
    }

    fn has_opening(&self) -> bool {
        false
    }

    fn choice(&self, text: &str, logprobs: Option<&[TokenLogprob]>, finish: &Finish) -> Value {
        json!({
            "index": 0,
            "text": text,
            "logprobs": logprobs.map(|logprobs| logprobs_json(logprobs, 0)),
            "finish_reason": super::finish_reason(finish),
        })
    }

    fn delta(&self, delta: &Delta<'_>) -> Value {
        let (text, logprobs, finish) = match delta {
            Delta::Opening => ("", None, None),
            Delta::Text { text, logprobs, offset } => {
                (*text, logprobs.map(|l| logprobs_json(l, *offset)), None)
            }
            Delta::End(finish) => ("", None, Some(super::finish_reason(finish))),
        };
        json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish })
    }
}

/// OpenAI's older form: parallel arrays; `offset` is where the first token's text begins, in characters.
fn logprobs_json(logprobs: &[TokenLogprob], mut offset: usize) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut offsets = Vec::with_capacity(logprobs.len());
    for entry in logprobs {
        offsets.push(offset);
        offset += text(&entry.token.bytes).chars().count();
    }
    let tops = logprobs.iter().map(|entry| -> Map<String, Value> {
        entry.top.iter().map(|chance| (text(&chance.bytes), chance.logprob.into())).collect()
    });
    json!({
        "tokens": logprobs.iter().map(|entry| text(&entry.token.bytes)).collect::<Vec<_>>(),
        "token_logprobs": logprobs.iter().map(|entry| entry.token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tops.collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
