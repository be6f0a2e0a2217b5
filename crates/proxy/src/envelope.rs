//! What routing needs to know of a request's body, read without building the rest of it, pure.

use crate::error::RequestError;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use std::{borrow::Cow, fmt};

/// Who is asked, and what routing may go by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    /// The model's name, not empty.
    pub(crate) model: String,
    /// `tools`, as it stands there.
    pub(crate) tools: Option<&'a str>,
    /// `messages`, `prompt` or `input`, as it stands there.
    pub(crate) prompt: Option<&'a str>,
    /// `prompt_cache_key` or, without it, `user`.
    pub(crate) session: Option<Cow<'a, str>>,
    /// `max_completion_tokens` or, without it, `max_tokens`, of each of `n` answers.
    pub(crate) answer_tokens_max: Option<u64>,
    /// How many answers: `n`, of which `best_of` may be computed.
    pub(crate) answers: u64,
}

impl<'a> Envelope<'a> {
    /// Reads `body`, all of it: what is not JSON is refused here, once, and not by each backend.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        let wire: Wire<'a> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
        let model = match wire.model {
            None | Some(Value::Null) => {
                return Err(RequestError::MissingParameter { param: "model" });
            }
            Some(Value::Text(model)) if !model.is_empty() => model.into_owned(),
            Some(_) => {
                return Err(RequestError::WrongType {
                    param: "model",
                    expected: "a non-empty string",
                });
            }
        };
        // Nobody here needs its value: whether events come back, the answer's own header says.
        match wire.stream {
            None | Some(Value::Null | Value::Bool) => {}
            Some(_) => {
                return Err(RequestError::WrongType { param: "stream", expected: "a boolean" });
            }
        }
        let raw = |value: Option<&'a RawValue>| value.map(RawValue::get);
        let name = |value| match value {
            Some(Value::Text(name)) => Some(name),
            // Whether it may be anything else is for the backend to say.
            _ => None,
        };
        let number = |value| match value {
            Some(Value::Count(number)) => Some(number),
            _ => None,
        };
        let answers = number(wire.n).unwrap_or(1).max(number(wire.best_of).unwrap_or(1));
        let answer_tokens_max = number(wire.max_completion_tokens).or(number(wire.max_tokens));
        Ok(Self {
            answer_tokens_max,
            answers,
            model,
            tools: raw(wire.tools),
            prompt: raw(wire.messages).or(raw(wire.prompt)).or(raw(wire.input)),
            session: name(wire.prompt_cache_key).or_else(|| name(wire.user)),
        })
    }
}

/// Where the syntax breaks is said in fixed words and a position. An error about data would quote
/// the body, and this text goes to the log.
fn malformed(error: &serde_json::Error) -> RequestError {
    let detail = match error.classify() {
        Category::Data => "it has to be one object in which no field comes twice".into(),
        Category::Syntax | Category::Eof | Category::Io => error.to_string(),
    };
    RequestError::MalformedJson { detail }
}

/// The fields. One that comes twice is an error, for backend and proxy could each take another one;
/// so is a body that is not an object.
#[derive(Default)]
struct Wire<'a> {
    model: Option<Value<'a>>,
    stream: Option<Value<'a>>,
    prompt_cache_key: Option<Value<'a>>,
    user: Option<Value<'a>>,
    max_completion_tokens: Option<Value<'a>>,
    max_tokens: Option<Value<'a>>,
    n: Option<Value<'a>>,
    best_of: Option<Value<'a>>,
    tools: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Model,
    Stream,
    PromptCacheKey,
    User,
    MaxCompletionTokens,
    MaxTokens,
    N,
    BestOf,
    Tools,
    Messages,
    Prompt,
    Input,
    #[serde(other)]
    Other,
}

/// As much of a JSON value as tells a right type from a wrong one.
enum Value<'a> {
    Null,
    Bool,
    Text(Cow<'a, str>),
    Count(u64),
    Other,
}

impl<'de> Deserialize<'de> for Wire<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::Model => once(&mut wire.model, &mut map)?,
                Field::Stream => once(&mut wire.stream, &mut map)?,
                Field::PromptCacheKey => once(&mut wire.prompt_cache_key, &mut map)?,
                Field::User => once(&mut wire.user, &mut map)?,
                Field::MaxCompletionTokens => once(&mut wire.max_completion_tokens, &mut map)?,
                Field::MaxTokens => once(&mut wire.max_tokens, &mut map)?,
                Field::N => once(&mut wire.n, &mut map)?,
                Field::BestOf => once(&mut wire.best_of, &mut map)?,
                Field::Tools => once(&mut wire.tools, &mut map)?,
                Field::Messages => once(&mut wire.messages, &mut map)?,
                Field::Prompt => once(&mut wire.prompt, &mut map)?,
                Field::Input => once(&mut wire.input, &mut map)?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(wire)
    }
}

/// The value of a field that may come once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    match slot.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(A::Error::custom("a field comes twice")),
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Count(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> &'static str {
        Envelope::parse(body.as_bytes()).expect_err(body).code()
    }

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        let body = r#"{"messages":[{"model":"not this","content":"\u00e9"}],"stream":true,"model":"m\u00e9","n":1}"#;
        let envelope = Envelope::parse(body.as_bytes()).expect("valid");
        assert_eq!(envelope.model, "mé");
        assert_eq!(envelope.prompt, Some(r#"[{"model":"not this","content":"\u00e9"}]"#));
        assert!(Envelope::parse(br#"{"model":"m","stream":null}"#).is_ok());
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        for body in [
            "",
            "{",
            r#"{"model":"m"} x"#,
            "[]",
            r#"["m",true]"#,
            "null",
            "\"m\"",
            "model=m",
            "{\"model\":\"\u{1}\"}",
        ] {
            assert_eq!(code(body), "malformed_json", "{body}");
        }
        assert_eq!(code(r#"{"model":"a","model":"b"}"#), "malformed_json");
        assert_eq!(code(r#"{"model":"a","prompt":"b","prompt":"b"}"#), "malformed_json");
    }

    #[test]
    fn what_routing_goes_by_is_as_it_stands_there() {
        let parse = |body: &'static str| Envelope::parse(body.as_bytes()).expect("valid");
        let chat = parse(
            r#"{"model":"m","tools":[ 1],"messages":[{"a": "\u00e9"}],"user":"u","prompt_cache_key":"k"}"#,
        );
        assert_eq!((chat.tools, chat.prompt), (Some("[ 1]"), Some(r#"[{"a": "\u00e9"}]"#)));
        assert_eq!(chat.session.as_deref(), Some("k"));
        let embeddings = parse(r#"{"input":["a"],"user":"u\n","model":"m"}"#);
        assert_eq!(
            (embeddings.prompt, embeddings.session.as_deref()),
            (Some("[\"a\"]"), Some("u\n"))
        );
        let odd = parse(r#"{"model":"m","user":7,"prompt_cache_key":{"a":[1]},"prompt":null}"#);
        assert_eq!((odd.prompt, odd.session), (Some("null"), None));
    }

    #[test]
    fn how_long_an_answer_may_be_is_found() {
        let parse = |fields: &str| {
            let body = format!(r#"{{"model":"m"{fields}}}"#);
            let envelope = Envelope::parse(body.as_bytes()).expect("valid");
            (envelope.answer_tokens_max, envelope.answers)
        };
        assert_eq!(parse(""), (None, 1));
        assert_eq!(parse(r#","max_tokens":7,"n":3"#), (Some(7), 3));
        assert_eq!(parse(r#","max_tokens":7,"max_completion_tokens":9,"best_of":2"#), (Some(9), 2));
        let odd = r#","max_tokens":-1,"n":"2""#;
        assert_eq!(parse(odd), (None, 1), "for the backend to refuse");
    }

    #[test]
    fn nothing_of_a_body_is_quoted_for_the_log() {
        for body in [
            "\"canary\"",
            "canary",
            "{\"canary",
            "{\"model\":canary}",
            "{\"model\":\"m\",\"model\":\"canary\"}",
            "{\"canary\" 1}",
        ] {
            let error = Envelope::parse(body.as_bytes()).expect_err(body).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn wrong_types_name_their_field() {
        for body in [
            r#"{"model":1}"#,
            r#"{"model":[]}"#,
            r#"{"model":{"a":1}}"#,
            r#"{"model":""}"#,
            r#"{"model":true}"#,
            r#"{"model":-1.5}"#,
        ] {
            assert_eq!(code(body), "invalid_type", "{body}");
        }
        assert_eq!(code(r#"{"model":"m","stream":"true"}"#), "invalid_type");
        assert_eq!(code("{}"), "missing_required_parameter");
        assert_eq!(code(r#"{"model":null}"#), "missing_required_parameter");
    }

    #[test]
    fn deep_nesting_is_read_or_refused_but_never_overflows() {
        let deep = format!(r#"{{"model":"m","x":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        let _ = Envelope::parse(deep.as_bytes());
        let deep = format!(r#"{{"model":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(Envelope::parse(deep.as_bytes()).is_err());
    }
}
