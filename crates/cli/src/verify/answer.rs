//! An answer of the API, whole or as events, brought into one form that can be compared.

use super::saved::SavedError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What an answer says, without what differs each time (id, creation).
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) fingerprint: Option<String>,
    /// The random key that was in use.
    pub(crate) seed: Option<Value>,
    pub(crate) choices: BTreeMap<u64, Choice>,
    pub(crate) completion_tokens: Option<u64>,
}

/// One alternative.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) finish_reason: Option<String>,
    /// What is told of each token: its text, its log-probability, its alternatives.
    pub(crate) tokens: Vec<Value>,
}

impl Answer {
    /// From one object, or from the objects of a stream's events.
    pub(crate) fn of(objects: &[Value]) -> Result<Self, SavedError> {
        let mut answer = Self::default();
        for object in objects {
            answer.add(object)?;
        }
        if answer.choices.is_empty() {
            return Err(SavedError::NoChoices);
        }
        Ok(answer)
    }

    fn add(&mut self, object: &Value) -> Result<(), SavedError> {
        if let Some(error) = object.get("error").filter(|error| !error.is_null()) {
            let message = error["message"].as_str().unwrap_or("without a message");
            return Err(SavedError::Failed(message.into()));
        }
        if let Some(fingerprint) = object["system_fingerprint"].as_str() {
            self.fingerprint = Some(fingerprint.into());
        }
        if let Some(seed) = object.get("seed").filter(|seed| seed.is_number()) {
            self.seed = Some(seed.clone());
        }
        if let Some(tokens) = object["usage"]["completion_tokens"].as_u64() {
            self.completion_tokens = Some(tokens);
        }
        for wire in object["choices"].as_array().into_iter().flatten() {
            let choice = self.choices.entry(wire["index"].as_u64().unwrap_or(0)).or_default();
            choice.add(wire);
        }
        Ok(())
    }
}

impl Choice {
    fn add(&mut self, wire: &Value) {
        for text in [&wire["message"]["content"], &wire["delta"]["content"], &wire["text"]] {
            self.text.push_str(text.as_str().unwrap_or_default());
        }
        if let Some(reason) = wire["finish_reason"].as_str() {
            self.finish_reason = Some(reason.into());
        }
        match &wire["logprobs"]["content"] {
            Value::Array(tokens) => self.tokens.extend(tokens.iter().cloned()),
            _ => self.tokens.extend(rows(&wire["logprobs"])),
        }
    }
}

/// The parallel arrays of a text completion, as one object a token.
fn rows(columns: &Value) -> Vec<Value> {
    let count = columns["tokens"].as_array().map_or(0, Vec::len);
    let row = |index: usize| {
        let cell = |name: &str| columns[name].get(index).cloned().unwrap_or_default();
        let names = [("token", "tokens"), ("logprob", "token_logprobs"), ("top", "top_logprobs")];
        Value::Object(names.map(|(to, from)| (to.to_owned(), cell(from))).into_iter().collect())
    };
    (0..count).map(row).collect()
}

/// Whether two values are the same, numbers to the last bit.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let fields = |map: &Map<String, Value>, other: &Map<String, Value>| {
        map.len() == other.len()
            && map
                .iter()
                .all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => fields(a, b),
        _ => a == b,
    }
}
