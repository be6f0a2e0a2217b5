//! Fields that a key gives its requests where they do not have them.

use serde_json::Value;
use std::fmt;

/// Most defaults of a key.
const DEFAULTS_MAX: usize = 16;
/// Longest name of a field, and longest text of a value, in bytes.
const NAME_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;

/// What a request is about, and how it is answered at all: never for others to say.
const NOT_DEFAULTS: [&str; 6] = ["model", "messages", "prompt", "input", "stream", "tools"];

/// Two names of one thing: whoever sends one has it.
const SYNONYMS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// The defaults of a key, in the order in which they were named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults(Vec<Field>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    value: Value,
    /// `"name":value`
    text: String,
}

/// What of a key's defaults a request does not have. It is told the names of the fields there are.
#[derive(Debug)]
pub(crate) struct Missing<'a> {
    defaults: &'a [Field],
    /// Bit n: the n-th is there.
    present: u16,
}

impl Defaults {
    /// Adds a default. Values are text, numbers, true and false.
    ///
    /// # Errors
    /// With what is wrong, if it cannot be one.
    pub fn add(&mut self, name: &str, value: Value) -> Result<(), String> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err(format!(
                "`{}` is not the name of a field: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _",
                name.escape_debug()
            ));
        }
        if NOT_DEFAULTS.contains(&name) {
            return Err(format!("`{name}` is for the client alone to say"));
        }
        if self.0.iter().any(|default| default.name == name || are_synonyms(&default.name, name)) {
            return Err(format!("`{name}` is there twice, by this or its other name"));
        }
        if self.0.len() == DEFAULTS_MAX {
            return Err(format!("there are more than {DEFAULTS_MAX}"));
        }
        match &value {
            Value::String(text) if text.len() > TEXT_BYTES_MAX => {
                return Err(format!("the text of `{name}` has more than {TEXT_BYTES_MAX} bytes"));
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(format!("`{name}` is not text, a number, true or false"));
            }
        }
        let text = format!("\"{name}\":{value}");
        self.0.push(Field { name: name.into(), value, text });
        Ok(())
    }

    /// Adds a default that is written as `NAME=VALUE`. What is no number, `true`, `false` or text in quotes is text.
    ///
    /// # Errors
    /// With what is wrong, if it cannot be one.
    pub fn add_pair(&mut self, pair: &str) -> Result<(), String> {
        let (name, text) = pair.split_once('=').ok_or("write NAME=VALUE")?;
        let read = serde_json::from_str(text).ok();
        self.add(name, read.unwrap_or_else(|| Value::from(text)))
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|default| (default.name.as_str(), &default.value))
    }

    /// All of them, until [`Missing::saw`] is told otherwise.
    pub(crate) fn missing(&self) -> Missing<'_> {
        Missing { defaults: &self.0, present: 0 }
    }
}

/// `max_tokens=256 temperature=0.2`
impl fmt::Display for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

impl Missing<'_> {
    /// The request has a field called `name`, whatever its value.
    pub(crate) fn saw(&mut self, name: &str) {
        for (at, default) in self.defaults.iter().enumerate() {
            if default.name == name || are_synonyms(&default.name, name) {
                self.present |= 1 << at;
            }
        }
    }

    /// The request has them all.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields().next().is_none()
    }

    /// `"name":value` of each that is missing.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let missing = |at: usize| self.present & 1 << at == 0;
        let all = self.defaults.iter().enumerate();
        all.filter(move |(at, _)| missing(*at)).map(|(_, default)| default.text.as_bytes())
    }
}

fn are_synonyms(one: &str, other: &str) -> bool {
    SYNONYMS.contains(&one) && SYNONYMS.contains(&other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaults(pairs: &[&str]) -> Result<Defaults, String> {
        let mut defaults = Defaults::default();
        pairs.iter().try_for_each(|pair| defaults.add_pair(pair)).map(|()| defaults)
    }

    #[test]
    fn a_pair_is_read_as_what_it_looks_like() {
        let all = defaults(&["a=1", "b=0.25", "c=true", "d=low", "e=\"7\"", "f=", "g=x=y", "h=-"]);
        let all = all.expect("valid");
        let values: Vec<Value> = all.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(
            values,
            [
                json!(1),
                json!(0.25),
                json!(true),
                json!("low"),
                json!("7"),
                json!(""),
                json!("x=y"),
                json!("-")
            ]
        );
        assert_eq!(defaults(&["a=1", "d=low"]).expect("valid").to_string(), "a=1 d=\"low\"");
    }

    #[test]
    fn what_cannot_be_a_default_is_refused() {
        let many: Vec<String> = (0..17).map(|n| format!("f{n}=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = format!("a={}", "x".repeat(1025));
        for (pairs, why) in [
            (&["a"][..], "NAME=VALUE"),
            (&["=1"], "not the name of a field"),
            (&["a b=1"], "not the name of a field"),
            (&["é=1"], "not the name of a field"),
            (&["a=[1]"], "not text, a number"),
            (&["a={}"], "not text, a number"),
            (&["a=null"], "not text, a number"),
            (&["a=1", "a=2"], "there twice"),
            (&["max_tokens=1", "max_completion_tokens=2"], "there twice"),
            (&[&long], "more than 1024 bytes"),
            (&many, "more than 16"),
        ] {
            let error = defaults(pairs).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        for name in NOT_DEFAULTS {
            let error = defaults(&[&format!("{name}=1")]).expect_err(name);
            assert!(error.contains("for the client alone"), "{error}");
        }
    }

    #[test]
    fn what_a_request_has_is_not_missing() {
        let all = defaults(&["max_tokens=9", "temperature=0.5", "user=\"\u{e9}\""]).expect("valid");
        let missing = |names: &[&str]| {
            let mut missing = all.missing();
            names.iter().for_each(|name| missing.saw(name));
            let fields = missing.fields().map(|field| String::from_utf8_lossy(field).into_owned());
            let fields = fields.collect::<Vec<_>>().join(",");
            assert_eq!(missing.is_empty(), fields.is_empty());
            fields
        };
        assert_eq!(missing(&[]), "\"max_tokens\":9,\"temperature\":0.5,\"user\":\"\u{e9}\"");
        assert_eq!(missing(&["temperature", "other"]), "\"max_tokens\":9,\"user\":\"\u{e9}\"");
        assert_eq!(missing(&["max_completion_tokens", "user", "user"]), "\"temperature\":0.5");
        assert_eq!(missing(&["user", "max_tokens", "temperature"]), "");
    }
}
