//! What routing needs to know of a request's body, read without building the rest of it, pure.

use crate::error::RequestError;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::error::Category;
use std::{borrow::Cow, fmt};

/// Who is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The model's name, not empty.
    pub(crate) model: String,
}

impl Envelope {
    /// Reads `body`, all of it: what is not JSON is refused here, once, and not by each backend.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let wire: Wire<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
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
            None | Some(Value::Null | Value::Bool) => Ok(Self { model }),
            Some(_) => Err(RequestError::WrongType { param: "stream", expected: "a boolean" }),
        }
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

/// The two fields. A field that comes twice is an error, for backend and proxy could each take
/// another one; so is a body that is not an object.
#[derive(Default)]
struct Wire<'a> {
    model: Option<Value<'a>>,
    stream: Option<Value<'a>>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Model,
    Stream,
    #[serde(other)]
    Other,
}

/// As much of a JSON value as tells a right type from a wrong one.
enum Value<'a> {
    Null,
    Bool,
    Text(Cow<'a, str>),
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
            let (slot, name) = match field {
                Field::Model => (&mut wire.model, "model"),
                Field::Stream => (&mut wire.stream, "stream"),
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if slot.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field(name));
            }
        }
        Ok(wire)
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

    fn visit_u64<E>(self, _: u64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
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
        assert_eq!(envelope, Envelope { model: "mé".into() });
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
