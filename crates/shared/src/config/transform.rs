//! What the proxy changes of requests and answers, one item of a list at a time: how each is written.
//! Which of them fit together, the proxy decides (`inferno_proxy`'s `transform`).

use http::{HeaderName, HeaderValue, uri::PathAndQuery};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 256;

/// `gpt-4o=smollm2-135m-instruct`: a further name of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias {
    /// What clients ask for.
    pub name: String,
    /// What backends serve.
    pub model: String,
}

/// `x-team: search`: a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderField {
    /// Its name.
    pub name: HeaderName,
    /// Its value: visible ASCII, spaces and tabs between.
    pub value: HeaderValue,
}

/// `/openai/v1/ => /v1/`: how paths begin, and how they begin instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rewrite {
    /// What clients ask for.
    pub from: String,
    /// What the proxy takes it for.
    pub to: String,
}

impl FromStr for Alias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not {}", Self::EXAMPLE);
        let (name, model) = text.split_once('=').ok_or_else(wrong)?;
        let (name, model) = (name.trim(), model.trim());
        let is_name = |name: &str| {
            (1..=MODEL_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
        };
        if is_name(name) && is_name(model) {
            Ok(Self { name: name.into(), model: model.into() })
        } else {
            Err(wrong())
        }
    }
}

impl Alias {
    pub(super) const EXAMPLE: &str =
        "ALIAS=MODEL, names of up to 256 bytes, e.g. \"gpt-4o=smollm2-135m-instruct\"";
}

impl FromStr for HeaderField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Neither is quoted: whoever wrote a credential here is not to find it in a log.
        let wrong = || format!("is not {}", Self::EXAMPLE);
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name = name.trim().parse().map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        // The parser lets bytes beyond ASCII through, which nobody could show again.
        let is_shown = value.to_str().is_ok_and(|text| !text.is_empty());
        if is_shown { Ok(Self { name, value }) } else { Err(wrong()) }
    }
}

impl HeaderField {
    pub(super) const EXAMPLE: &str =
        "NAME: VALUE, a header field in visible ASCII, e.g. \"x-team: search\"";
}

impl FromStr for Rewrite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not {}", Self::EXAMPLE);
        let (from, to) = text.split_once("=>").ok_or_else(wrong)?;
        let (from, to) = (from.trim(), to.trim());
        if !is_path(from) || !is_path(to) {
            return Err(wrong());
        }
        if from.ends_with('/') != to.ends_with('/') {
            return Err(format!("`{text}`: both sides end in /, or neither does"));
        }
        Ok(Self { from: from.into(), to: to.into() })
    }
}

impl Rewrite {
    pub(super) const EXAMPLE: &str =
        "/FROM => /TO, two beginnings of a path, e.g. \"/openai/v1/ => /v1/\"";
}

/// An absolute path without a query, of which no part is empty, `.` or `..`.
fn is_path(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('/') else { return false };
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let parts_are_plain =
        text == "/" || inner.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let parsed = text.parse::<PathAndQuery>();
    // What the parser drops or takes for a query is no path.
    parts_are_plain && text.is_ascii() && parsed.is_ok_and(|parsed| parsed.path() == text)
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.model)
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value.to_str().unwrap_or_default())
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.from, self.to)
    }
}

/// As text in the configuration.
macro_rules! written_as_text {
    ($($kind:ident),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(item: $kind) -> Self {
                item.to_string()
            }
        }
    )*};
}

written_as_text!(Alias, HeaderField, Rewrite);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_written_as_they_were_read() {
        let alias: Alias = " gpt-4o = org/model:8b ".parse().expect("an alias");
        assert_eq!(alias.to_string(), "gpt-4o=org/model:8b");
        let odd: Alias = "a=b=c".parse().expect("an alias");
        assert_eq!((odd.name.as_str(), odd.model.as_str()), ("a", "b=c"));
        let field: HeaderField = "X-Team:  a, b: c ".parse().expect("a field");
        assert_eq!(field.to_string(), "x-team: a, b: c");
        let rewrite: Rewrite = "/openai/v1/=> /v1/".parse().expect("a rewrite");
        assert_eq!(rewrite.to_string(), "/openai/v1/ => /v1/");
        assert!("/a => /v1".parse::<Rewrite>().is_ok() && "/a/ => /".parse::<Rewrite>().is_ok());
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "gpt-4o", "=m", "a=", "a\nb=m", &format!("{}=m", "a".repeat(257))] {
            assert!(text.parse::<Alias>().is_err(), "{text}");
        }
        for text in ["", "x-team", ": v", "x team: v", "x: ", "x: a\nb", "x: é", "x: \u{7f}"] {
            assert!(text.parse::<HeaderField>().is_err(), "{text}");
        }
        for text in [
            "",
            "/a/",
            "/a/ -> /b/",
            "a/ => /v1/",
            "/a => /v1/",
            "/a/ => /v1",
            "/a?b/ => /v1/",
            "/a#/ => /v1/",
            "/a b/ => /v1/",
            "/a//b/ => /v1/",
            "/a/../ => /v1/",
            "/./ => /v1/",
            "// => /v1/",
            "/é/ => /v1/",
            "http://a/ => /v1/",
        ] {
            assert!(text.parse::<Rewrite>().is_err(), "{text}");
        }
        let error = "x-secret hunter2".parse::<HeaderField>().expect_err("refused");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
