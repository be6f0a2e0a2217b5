//! What routing needs to know of a request's body, read without building the rest of it, pure.

use crate::error::RequestError;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use std::{borrow::Cow, fmt, ops::Range};

/// Who is asked, and what routing may go by. Empty of what nobody reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    /// The model asked for, if one is.
    pub(crate) model: Option<Model<'a>>,
    /// `tools`, as it stands there.
    pub(crate) tools: Option<&'a str>,
    /// `messages`, `prompt` or `input`, as it stands there.
    pub(crate) prompt: Option<&'a str>,
    /// `prompt_cache_key` or, without it, `user`.
    pub(crate) session: Option<Cow<'a, str>>,
    /// `max_completion_tokens` or, without it, `max_tokens`, of each of `n` answers.
    pub(crate) answer_tokens_max: Option<u64>,
    /// How many answers are computed: `n`, or `best_of` if that is more.
    pub(crate) answers: Option<u64>,
}

/// The name of a model, as a body has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model<'a> {
    /// Not empty.
    pub(crate) name: Cow<'a, str>,
    /// Where in the body it stands: in JSON with its quotes, in a form all that its part holds.
    pub(crate) range: Range<usize>,
    /// What it is written in.
    pub(crate) written: Written,
}

/// What a value is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Json,
    Form,
}

impl<'a> Envelope<'a> {
    /// Reads `body`, all of it: what is not JSON is refused here, once, and not by each backend. `watch` is told the
    /// name of each field.
    pub(crate) fn parse(body: &'a [u8], watch: impl FnMut(&str)) -> Result<Self, RequestError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let wire = WireSeed(watch).deserialize(&mut json);
        let wire: Wire<'a> =
            wire.and_then(|wire| json.end().map(|()| wire)).map_err(|error| malformed(&error))?;
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
        let answers = number(wire.n).max(number(wire.best_of));
        let answer_tokens_max = number(wire.max_completion_tokens).or(number(wire.max_tokens));
        Ok(Self {
            answer_tokens_max,
            answers,
            model: wire.model.map(RawValue::get).and_then(|raw| model(body, raw)).transpose()?,
            tools: raw(wire.tools),
            prompt: raw(wire.messages).or(raw(wire.prompt)).or(raw(wire.input)),
            session: name(wire.prompt_cache_key).or_else(|| name(wire.user)),
        })
    }
}

/// The model that `raw`, a part of `body`, names; `None` for null.
fn model<'a>(body: &[u8], raw: &'a str) -> Option<Result<Model<'a>, RequestError>> {
    if raw == "null" {
        return None;
    }
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    let name = inner.and_then(|inner| match inner.contains('\\') {
        false => Some(Cow::Borrowed(inner)),
        true => serde_json::from_str(raw).ok().map(Cow::Owned),
    });
    let name = name.filter(|name| !name.is_empty());
    let wrong = RequestError::WrongType { param: "model", expected: "a non-empty string" };
    // `raw` is borrowed from the body, and so stands in it.
    let start = raw.as_ptr().addr() - body.as_ptr().addr();
    let range = start..start + raw.len();
    Some(name.map(|name| Model { name, range, written: Written::Json }).ok_or(wrong))
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
    model: Option<&'a RawValue>,
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
    Other,
}

impl Field {
    fn of(name: &str) -> Self {
        match name {
            "model" => Self::Model,
            "stream" => Self::Stream,
            "prompt_cache_key" => Self::PromptCacheKey,
            "user" => Self::User,
            "max_completion_tokens" => Self::MaxCompletionTokens,
            "max_tokens" => Self::MaxTokens,
            "n" => Self::N,
            "best_of" => Self::BestOf,
            "tools" => Self::Tools,
            "messages" => Self::Messages,
            "prompt" => Self::Prompt,
            "input" => Self::Input,
            _ => Self::Other,
        }
    }
}

/// As much of a JSON value as tells a right type from a wrong one.
enum Value<'a> {
    Null,
    Bool,
    Text(Cow<'a, str>),
    Count(u64),
    Other,
}

/// Reads the fields, and tells their names to whoever wants to know.
struct WireSeed<W>(W);

impl<'de, W: FnMut(&str)> DeserializeSeed<'de> for WireSeed<W> {
    type Value = Wire<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Wire<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W: FnMut(&str)> Visitor<'de> for WireSeed<W> {
    type Value = Wire<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        while let Some(field) = map.next_key_seed(FieldSeed(&mut self.0))? {
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

/// Reads the name of a field.
struct FieldSeed<'w, W>(&'w mut W);

impl<'de, W: FnMut(&str)> DeserializeSeed<'de> for FieldSeed<'_, W> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<W: FnMut(&str)> Visitor<'_> for FieldSeed<'_, W> {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        (self.0)(name);
        Ok(Field::of(name))
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

    fn parse(body: &[u8]) -> Result<Envelope<'_>, RequestError> {
        Envelope::parse(body, |_| {})
    }

    fn code(body: &str) -> &'static str {
        parse(body.as_bytes()).expect_err(body).code()
    }

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        let body = r#"{"messages":[{"model":"not this","content":"\u00e9"}],"stream":true,"model":"m\u00e9","n":1}"#;
        let envelope = parse(body.as_bytes()).expect("valid");
        let model = envelope.model.expect("named");
        assert_eq!((&*model.name, model.written), ("mé", Written::Json));
        assert_eq!(&body[model.range], r#""m\u00e9""#);
        assert_eq!(envelope.prompt, Some(r#"[{"model":"not this","content":"\u00e9"}]"#));
        assert!(parse(br#"{"model":"m","stream":null}"#).is_ok());
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
        let parse = |body: &'static str| parse(body.as_bytes()).expect("valid");
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
            let envelope = Envelope::parse(body.as_bytes(), |_| {}).expect("valid");
            (envelope.answer_tokens_max, envelope.answers)
        };
        assert_eq!(parse(""), (None, None));
        assert_eq!(parse(r#","max_tokens":7,"n":3"#), (Some(7), Some(3)));
        let both = r#","max_tokens":7,"max_completion_tokens":9,"best_of":2,"n":1"#;
        assert_eq!(parse(both), (Some(9), Some(2)));
        let odd = r#","max_tokens":-1,"n":"2""#;
        assert_eq!(parse(odd), (None, None), "for the backend to refuse");
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
            let error = parse(body.as_bytes()).expect_err(body).to_string();
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
            r#"{"model":"\ud800"}"#,
        ] {
            assert_eq!(code(body), "invalid_type", "{body}");
        }
        assert_eq!(code(r#"{"model":"m","stream":"true"}"#), "invalid_type");
        for none in ["{}", r#"{"model":null}"#] {
            assert_eq!(parse(none.as_bytes()).expect("an object").model, None, "{none}");
        }
    }

    #[test]
    fn names_of_fields_are_told_unescaped() {
        let mut names = Vec::new();
        let body = br#"{"model":"m","top\u005fp":1,"x":{"y":2},"stream":true}"#;
        Envelope::parse(body, |name| names.push(name.to_owned())).expect("valid");
        assert_eq!(names, ["model", "top_p", "x", "stream"]);
    }

    #[test]
    fn deep_nesting_is_read_or_refused_but_never_overflows() {
        let deep = format!(r#"{{"model":"m","x":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        let _ = parse(deep.as_bytes());
        let deep = format!(r#"{{"model":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(parse(deep.as_bytes()).is_err());
    }
}
