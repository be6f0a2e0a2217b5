//! The parameters that chat and text completions have in common.

use super::{
    errors::ApiError,
    fields::{self, Fields},
    structure::Structure,
};
use inferno_engine::{Engine, GenerationRequest, SamplingParams};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest list of stop strings, as OpenAI has it.
pub(super) const STOPS_MAX: usize = 4;
/// Most choices of one request, over all its prompts.
pub(super) const CHOICES_MAX: usize = 128;
/// Largest `temperature`, as OpenAI has it.
pub(super) const TEMPERATURE_MAX: f32 = 2.0;

/// What both kinds of completion can ask for.
#[derive(Clone, Debug)]
pub struct Params {
    /// Which model.
    pub model: String,
    /// Events as they come, or one answer.
    pub stream: bool,
    /// A last event with the usage.
    pub include_usage: bool,
    /// How many choices each prompt gets, at least 1.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// The form of the answer.
    structure: Option<Structure>,
    stop: Vec<String>,
    stop_token_ids: Vec<u32>,
    include_stop: bool,
    ignore_eos: bool,
    min_tokens: usize,
}

/// `"x"` or `["x","y"]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or an array of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    /// Padding against traffic analysis: without effect here, as the field only adds noise.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted because OpenAI's clients send it; never acted on")]
    include_obfuscation: Option<bool>,
}

impl Params {
    /// Takes them from `fields`.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let model: String = fields.require("model")?;
        let stream = fields.take::<bool>("stream")?.unwrap_or(false);
        let options = fields.take::<StreamOptions>("stream_options")?;
        if options.is_some() && !stream {
            return Err(ApiError::invalid(
                "invalid_value",
                "stream_options",
                "`stream_options` is only allowed when `stream` is true",
            ));
        }
        let n = take_count(fields, "n")?.unwrap_or(1);
        if n > CHOICES_MAX {
            let message = format!("`n` must be from 1 to {CHOICES_MAX}");
            return Err(ApiError::invalid("invalid_value", "n", message));
        }
        Ok(Self {
            model,
            stream,
            include_usage: options.unwrap_or_default().include_usage.unwrap_or(false),
            n,
            sampling: sampling(fields)?,
            structure: Structure::take(fields)?,
            stop: stop(fields)?,
            stop_token_ids: fields.take("stop_token_ids")?.unwrap_or_default(),
            include_stop: fields.take("include_stop_str_in_output")?.unwrap_or(false),
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            min_tokens: fields.take("min_tokens")?.unwrap_or(0),
        })
    }

    /// What all generations of the request have in common. Compiles the form of the answer if there is one.
    pub fn request(
        &self,
        engine: &Engine,
        max_tokens: Option<usize>,
        logprobs: Option<usize>,
    ) -> Result<GenerationRequest, ApiError> {
        if max_tokens.is_some_and(|max| max < self.min_tokens) {
            let message = "`min_tokens` must not exceed the most tokens that may come";
            return Err(ApiError::invalid("invalid_value", "min_tokens", message));
        }
        let compile = |structure: &Structure| structure.compile(engine);
        Ok(GenerationRequest {
            max_tokens,
            min_tokens: self.min_tokens,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            stop_token_ids: self.stop_token_ids.clone(),
            include_stop: self.include_stop,
            logprobs,
            grammar: self.structure.as_ref().map(compile).transpose()?,
            ignore_eos: self.ignore_eos,
            ..GenerationRequest::default()
        })
    }
}

fn sampling(fields: &mut Fields) -> Result<SamplingParams, ApiError> {
    let neutral = SamplingParams::default();
    let mut number = |name: &'static str, default: f32| -> Result<f32, ApiError> {
        Ok(fields.take::<f32>(name)?.unwrap_or(default))
    };
    let temperature = number("temperature", neutral.temperature)?;
    if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
        let message = format!("`temperature` must be from 0 to {TEMPERATURE_MAX}");
        return Err(ApiError::invalid("invalid_value", "temperature", message));
    }
    let sampling = SamplingParams {
        temperature,
        top_p: number("top_p", neutral.top_p)?,
        min_p: number("min_p", neutral.min_p)?,
        presence_penalty: number("presence_penalty", neutral.presence_penalty)?,
        frequency_penalty: number("frequency_penalty", neutral.frequency_penalty)?,
        repetition_penalty: number("repetition_penalty", neutral.repetition_penalty)?,
        top_k: top_k(fields)?,
        seed: seed(fields)?,
        logit_bias: logit_bias(fields)?,
    };
    Ok(sampling)
}

/// 0 and -1 both mean all, as in the field's other engines.
fn top_k(fields: &mut Fields) -> Result<usize, ApiError> {
    match fields.take::<i64>("top_k")? {
        None | Some(-1) => Ok(0),
        Some(k) => usize::try_from(k).map_err(|_| {
            ApiError::invalid("invalid_value", "top_k", "`top_k` must be -1, 0 or greater")
        }),
    }
}

/// Any 64-bit integer; one of our own if absent. The answer's `seed` tells which.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    let number: Option<serde_json::Number> = fields.take("seed")?;
    match number {
        // 53 bits: exact in every client's numbers.
        None => Ok(getrandom::u64().map_err(|_| ApiError::internal())? >> 11),
        Some(number) => {
            number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned)).ok_or_else(|| {
                ApiError::invalid("invalid_type", "seed", "`seed` must be a 64-bit integer")
            })
        }
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stop = match fields.take("stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    let refuse = |message: &str| Err(ApiError::invalid("invalid_value", "stop", message));
    if stop.len() > STOPS_MAX {
        return refuse("`stop` holds at most 4 strings");
    }
    if stop.iter().any(String::is_empty) {
        return refuse("a `stop` string must not be empty");
    }
    Ok(stop)
}

/// `{"TOKEN_ID": bias}`.
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases: BTreeMap<String, f32> = fields.take("logit_bias")?.unwrap_or_default();
    let parse = |(id, bias): (String, f32)| id.parse().ok().map(|id| (id, bias));
    biases.into_iter().map(parse).collect::<Option<_>>().ok_or_else(|| {
        ApiError::invalid(
            "invalid_value",
            "logit_bias",
            "the keys of `logit_bias` must be token ids",
        )
    })
}

/// A count of tokens, at least 1.
pub fn take_count(fields: &mut Fields, name: &'static str) -> Result<Option<usize>, ApiError> {
    match fields.take::<i64>(name)? {
        None => Ok(None),
        Some(count) => match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(ApiError::invalid(
                "invalid_value",
                name,
                format!("`{name}` must be at least 1"),
            )),
        },
    }
}

/// Refuses what neither endpoint can do, when it asks for something.
pub fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    fields.refuse_unless("store", |store| store == false)?;
    for name in ["tools", "functions", "bad_words"] {
        fields.refuse_unless(name, fields::is_empty)?;
    }
    fields.refuse_unless("tool_choice", |choice| choice == "none" || choice == "auto")?;
    fields.refuse_unless("parallel_tool_calls", serde_json::Value::is_boolean)?;
    fields.refuse_unless("modalities", |kinds| *kinds == serde_json::json!(["text"]))
}
