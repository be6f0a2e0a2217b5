//! `POST /v1/completions`: text in, text out, without a template.

use super::{
    answer::{Answer, Delta, Echo, FirstToken, Logprobs, Prompt, Shape},
    errors::ApiError,
    fields::Fields,
    params::{self, CHOICES_MAX, Params},
};
use inferno_engine::{Engine, Finish, TokenChance};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// As OpenAI has it.
pub(super) const MAX_TOKENS_DEFAULT: usize = 16;
/// Most alternatives per token, as OpenAI has it.
pub(super) const LOGPROBS_MAX: usize = 5;

/// `"text"`, `["text","text"]`, `[1,2]` or `[[1,2],[3]]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, an array of token ids, or an array of these")]
pub(super) enum WirePrompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

/// A completion request, as it was read.
pub(super) struct TextRequest {
    params: Params,
    prompt: WirePrompt,
    echo: bool,
    max_tokens: usize,
    logprobs: Option<usize>,
}

/// Reads all fields of a completion request.
pub(super) fn read(fields: &mut Fields) -> Result<TextRequest, ApiError> {
    let params = Params::take(fields)?;
    let prompt = fields.require("prompt")?;
    let echo = fields.take::<bool>("echo")?.unwrap_or(false);
    let max_tokens = max_tokens(fields, echo)?;
    let logprobs = fields.take::<usize>("logprobs")?;
    if logprobs.is_some_and(|top| top > LOGPROBS_MAX) {
        let message = format!("`logprobs` must be at most {LOGPROBS_MAX}");
        return Err(ApiError::invalid("invalid_value", "logprobs", message));
    }
    // The best of as many as are returned are all of them.
    fields.refuse_unless("best_of", |best_of| *best_of == params.n)?;
    fields.refuse_unless("suffix", |suffix| suffix == "")?;
    params::refuse_unsupported(fields)?;
    fields.finish()?;
    Ok(TextRequest { params, prompt, echo, max_tokens, logprobs })
}

/// Understands a completion request.
pub fn prepare(engine: &Engine, fields: &mut Fields, created: u64) -> Result<Answer, ApiError> {
    let TextRequest { params, prompt, echo, max_tokens, logprobs } = read(fields)?;
    super::require_model(engine.info(), &params.model)?;
    let mut request = params.request(engine, Some(max_tokens), logprobs)?;
    if echo {
        // A score is also how the engine is asked for a prompt without an answer.
        request.prompt_logprobs = logprobs.or((max_tokens == 0).then_some(0));
    }
    let prompts = read_prompts(engine, prompt, params.n, echo)?;
    Ok(Answer::new(&TextShape, params, prompts, request, created))
}

/// At least 1, or 0 where the prompt itself is the answer.
fn max_tokens(fields: &mut Fields, echo: bool) -> Result<usize, ApiError> {
    const FIELD: &str = "max_tokens";
    match fields.take::<i64>(FIELD)?.map(usize::try_from) {
        None => Ok(MAX_TOKENS_DEFAULT),
        Some(Ok(count)) if count > 0 || echo => Ok(count),
        Some(_) => {
            let message = "`max_tokens` must be at least 1, or with `echo` at least 0";
            Err(ApiError::invalid("invalid_value", FIELD, message))
        }
    }
}

fn read_prompts(
    engine: &Engine,
    prompt: WirePrompt,
    choices: usize,
    echo: bool,
) -> Result<Vec<Prompt>, ApiError> {
    let (texts, lists) = match prompt {
        WirePrompt::Text(text) => (vec![text], Vec::new()),
        WirePrompt::Texts(texts) => (texts, Vec::new()),
        WirePrompt::Ids(ids) => (Vec::new(), vec![ids]),
        WirePrompt::Lists(lists) => (Vec::new(), lists),
    };
    let count = texts.len() + lists.len();
    if count * choices > CHOICES_MAX {
        let message = format!(
            "{count} prompts with {choices} choices each are more than the {CHOICES_MAX} choices a request can have"
        );
        return Err(ApiError::invalid("invalid_value", "prompt", message));
    }
    let encode = |text: String| {
        let ids = engine
            .encode(&text)
            .map_err(|error| ApiError::invalid("invalid_prompt", "prompt", error.to_string()))?;
        Ok(prompt_of(engine, ids, echo.then_some(text)))
    };
    let listed = |ids: Vec<u32>| {
        let text = echo.then(|| engine.decode(&ids));
        Ok(prompt_of(engine, ids, text))
    };
    texts.into_iter().map(encode).chain(lists.into_iter().map(listed)).collect()
}

fn prompt_of(engine: &Engine, ids: Vec<u32>, echo: Option<String>) -> Prompt {
    let echo = echo.map(|text| {
        let bytes = ids.first().map_or(&[][..], |id| engine.token_bytes(*id)).to_vec();
        // A beginning-of-sequence token that the tokenizer put in front is no part of the text.
        let hidden = !text.as_bytes().starts_with(&bytes);
        Echo { text, first: FirstToken { bytes, hidden } }
    });
    Prompt { ids, echo }
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

    fn choice(&self, text: &str, logprobs: Option<&Logprobs<'_>>, finish: &Finish) -> Value {
        json!({
            "text": text,
            "logprobs": logprobs.map(logprobs_json),
            "finish_reason": super::finish_reason(finish),
        })
    }

    fn delta(&self, delta: &Delta<'_>) -> Value {
        let (text, logprobs, finish) = match delta {
            Delta::Opening => ("", None, None),
            Delta::Text { text, logprobs } => (*text, logprobs.as_ref().map(logprobs_json), None),
            Delta::End(finish) => ("", None, Some(super::finish_reason(finish))),
        };
        json!({ "text": text, "logprobs": logprobs, "finish_reason": finish })
    }
}

/// OpenAI's older form: parallel arrays, with where each token's text begins in the choice's, in characters.
#[derive(Default)]
struct Columns {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    offset: usize,
}

impl Columns {
    fn push(&mut self, bytes: &[u8], hidden: bool, chance: Option<(f32, &[TokenChance])>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let map = |top: &[TokenChance]| {
            top.iter().map(|chance| (text(&chance.bytes), chance.logprob.into())).collect()
        };
        self.tokens.push(text(bytes));
        self.token_logprobs.push(chance.map(|(logprob, _)| logprob));
        self.top_logprobs.push(chance.map(|(_, top)| map(top)));
        self.text_offset.push(self.offset);
        if !hidden {
            // Where a character spans tokens, the one with its first byte has it.
            self.offset += bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        }
    }
}

fn logprobs_json(logprobs: &Logprobs<'_>) -> Value {
    let mut columns = Columns { offset: logprobs.offset, ..Columns::default() };
    if let Some(first) = logprobs.first {
        columns.push(&first.bytes, first.hidden, None);
    }
    for entry in logprobs.tokens {
        let chance = Some((entry.token.logprob, entry.top.as_slice()));
        columns.push(&entry.token.bytes, entry.token.hidden, chance);
    }
    json!({
        "tokens": columns.tokens,
        "token_logprobs": columns.token_logprobs,
        "top_logprobs": columns.top_logprobs,
        "text_offset": columns.text_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferno_engine::TokenLogprob;

    fn chance(bytes: &[u8], hidden: bool) -> TokenLogprob {
        let token = TokenChance { id: 1, bytes: bytes.to_vec(), hidden, logprob: -0.5 };
        TokenLogprob { token: token.clone(), top: vec![token] }
    }

    #[test]
    fn offsets_count_the_characters_of_the_text() {
        let crab = "🦀".as_bytes();
        let tokens = [chance(&crab[2..], false), chance(b"<mark>", true), chance(b"b", false)];
        let first = FirstToken { bytes: [b"a", &crab[..2]].concat(), hidden: false };
        let json = logprobs_json(&Logprobs { first: Some(&first), tokens: &tokens, offset: 10 });
        assert_eq!(json["text_offset"], json!([10, 12, 12, 12]));
        assert_eq!(json["token_logprobs"], json!([null, -0.5, -0.5, -0.5]));
        assert_eq!(json["top_logprobs"][0], Value::Null);
        assert_eq!(json["top_logprobs"][3], json!({"b": -0.5}));
    }
}
