//! Reading a request's fields one by one, so that nothing is ignored in silence.

use super::errors::ApiError;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Fields that change nothing about the answer: accepted, whatever they hold.
pub(super) const WITHOUT_EFFECT: &[&str] = &[
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
];

/// As much of an unknown name is repeated.
const NAME_MAX: usize = 64;

/// The fields of a request that nobody has read yet.
#[derive(Debug)]
pub struct Fields {
    unread: Map<String, Value>,
    /// The names that were asked for, whether there or not: all that this endpoint knows.
    known: Vec<&'static str>,
}

impl Fields {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(unread)) => Ok(Self { unread, known: Vec::new() }),
            Ok(_) => Err(malformed("the body must be a JSON object")),
            Err(error) => Err(malformed(&format!("the body is not valid JSON: {error}"))),
        }
    }

    /// Takes a field; `null` counts as absent.
    pub fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        match self.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value).map(Some).map_err(|error| wrong_type(name, &error))
            }
        }
    }

    /// Takes a field that must be there.
    pub fn require<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| {
            ApiError::invalid(
                "missing_required_parameter",
                name,
                format!("missing required parameter: `{name}`"),
            )
        })
    }

    /// Takes a field that we cannot act on, unless its value asks for nothing.
    pub fn refuse_unless(
        &mut self,
        name: &'static str,
        asks_nothing: impl Fn(&Value) -> bool,
    ) -> Result<(), ApiError> {
        match self.remove(name) {
            Some(value) if !value.is_null() && !asks_nothing(&value) => Err(ApiError::invalid(
                "unsupported_parameter",
                name,
                format!(
                    "`{name}` with this value is not supported here; nothing is ignored in silence"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What is left must be without effect: an unknown field may have been meant to change something.
    pub fn finish(&self) -> Result<(), ApiError> {
        match self
            .unread
            .iter()
            .find(|(name, value)| !value.is_null() && !WITHOUT_EFFECT.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(NAME_MAX).collect();
                let message = match nearest(&name, &self.known) {
                    Some(known) => format!("unknown parameter: `{name}`; did you mean `{known}`?"),
                    None => format!("unknown parameter: `{name}`"),
                };
                Err(ApiError::invalid("unknown_parameter", &name, message))
            }
        }
    }

    fn remove(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.unread.remove(name)
    }

    /// The names that were asked for so far.
    #[cfg(test)]
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }
}

/// The known name that differs least, unless that is by half of it.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.iter().copied().min_by_key(distance)?;
    (distance(&nearest) * 2 <= name.chars().count()).then_some(nearest)
}

fn malformed(message: &str) -> ApiError {
    ApiError::request(StatusCode::BAD_REQUEST, "malformed_json", message)
}

fn wrong_type(name: &str, error: &serde_json::Error) -> ApiError {
    ApiError::invalid("invalid_type", name, format!("`{name}` must be {}", expectation(error)))
}

/// What serde wanted, without what it found: that may be somebody's prompt.
fn expectation(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // What was found stands before; the last `expected` is serde's, whatever the value held.
    let wanted = text.rsplit_once("expected ").map(|(_, wanted)| wanted);
    match wanted {
        Some("i64" | "u64" | "usize" | "u32") => "a whole number".into(),
        Some("f32" | "f64") => "a number".into(),
        Some("a sequence") => "an array".into(),
        Some("a map") => "an object".into(),
        Some(wanted) => wanted.into(),
        None if text.starts_with("missing field") => format!("complete: {text}"),
        // Our own words for types of several forms.
        None if text.starts_with("a ") || text.starts_with("an ") => text,
        None => "of another form".into(),
    }
}

/// An empty array or object.
pub fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).expect("an object")
    }

    #[test]
    fn each_mistake_names_its_field() {
        assert_eq!(Fields::parse(b"[]").expect_err("array").code, "malformed_json");
        assert_eq!(Fields::parse(b"{").expect_err("cut").code, "malformed_json");
        let error = fields(r#"{"top_p":"x"}"#).take::<f32>("top_p").expect_err("text");
        assert_eq!((error.code, error.param.as_deref()), ("invalid_type", Some("top_p")));
        let error = fields("{}").require::<String>("model").expect_err("absent");
        assert_eq!(
            (error.code, error.param.as_deref()),
            ("missing_required_parameter", Some("model"))
        );
    }

    #[test]
    fn nothing_that_a_client_wrote_is_quoted() {
        let secret = "canary, expected everywhere";
        for (value, wanted) in [
            (serde_json::json!(secret), "an array"),
            (serde_json::json!([secret]), "a whole number"),
            (serde_json::json!({ secret: secret }), "an array"),
        ] {
            let mut fields = fields(&serde_json::json!({ "prompt": value }).to_string());
            let error = fields.take::<Vec<u32>>("prompt").expect_err("wrong").message;
            assert!(!error.contains("canary") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let mut request = fields(r#"{"tools":[],"n":2,"user":"u","nothing":null}"#);
        assert!(request.refuse_unless("tools", is_empty).is_ok());
        let error = request.refuse_unless("n", |n| n == 1).expect_err("two");
        assert_eq!(error.code, "unsupported_parameter");
        assert!(request.finish().is_ok());
        let mut misspelt = fields(r#"{"temprature":0}"#);
        assert_eq!(misspelt.take::<f32>("temperature").expect("absent"), None);
        let error = misspelt.finish().expect_err("misspelt");
        assert_eq!((error.code, error.param.as_deref()), ("unknown_parameter", Some("temprature")));
        assert!(error.message.ends_with("did you mean `temperature`?"), "{error}");
    }
}
