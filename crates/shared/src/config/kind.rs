//! What values a key takes: how text becomes one, and which are refused.

use super::{ByteSize, nearest, transform};
use crate::registration::wire::is_valid_id;
use figment::value::{Empty, Tag, Value};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use tracing_subscriber::EnvFilter;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Taken as it stands: never unquoted, trimmed or guessed to be a number.
    Text,
    /// As [`Kind::Text`], and never shown. A key of this kind has a twin with `_file` at its end.
    Secret,
    /// The path of a file.
    Path,
    /// `IP:PORT`.
    Address,
    /// `HOST:PORT` of an operations server, `http://` or `https://` before it.
    Operations,
    /// `HOST` or `HOST:PORT`.
    Host,
    /// `10.0.0.0/8`.
    Network,
    /// The id of a node.
    NodeId,
    /// The name of a header field.
    HeaderName,
    /// The origin of a web page, `https://app.example`, or `*`.
    Origin,
    /// `NAME: VALUE`
    HeaderField,
    /// `ALIAS=MODEL`
    Alias,
    /// `/FROM => /TO`
    Rewrite,
    /// A level, or filter directives of `tracing`.
    LogFilter,
    /// `auto`, `cpu` or `cuda:N`.
    Device,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count(Range),
    /// A share: a number from 0 to 1.
    Ratio,
    /// `http://…` or `https://…`, without credentials.
    Url,
    /// A duration.
    Milliseconds(Range),
    /// A number of bytes: `16777216`, `16MiB`.
    Bytes(Range),
    /// Several of these: `a,b` or `["a","b"]`.
    List(&'static Kind),
}

/// The numbers that a key takes, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

impl Range {
    /// `min` and more.
    pub const fn from(min: u64) -> Self {
        Self { min, max: u64::MAX }
    }

    /// `min` to `max`.
    pub const fn between(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    /// `, at least 1`; nothing where every number will do.
    fn describe(self, write: impl Fn(u64) -> String) -> String {
        match (self.min, self.max) {
            (0, u64::MAX) => String::new(),
            (min, u64::MAX) => format!(", at least {}", write(min)),
            (min, max) => format!(", {} to {}", write(min), write(max)),
        }
    }

    fn check(self, number: u64, write: impl Fn(u64) -> String) -> Result<(), String> {
        if number < self.min {
            Err(format!("must be at least {}", write(self.min)))
        } else if number > self.max {
            Err(format!("must be at most {}", write(self.max)))
        } else {
            Ok(())
        }
    }
}

/// No value at all, for a key that may have none.
pub(super) fn none() -> Value {
    Value::Empty(Tag::Default, Empty::None)
}

pub(super) fn is_none(value: &Value) -> bool {
    matches!(value, Value::Empty(..))
}

impl Kind {
    /// What it takes, in a few words for the reference.
    pub fn takes(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Secret => "a secret".into(),
            Self::Path => "the path of a file".into(),
            Self::Address => "IP:PORT".into(),
            Self::Operations => "[https://]HOST:PORT".into(),
            Self::Host => "HOST or HOST:PORT".into(),
            Self::Network => "a network (CIDR)".into(),
            Self::NodeId => "1-128 of A-Z a-z 0-9 . _ -".into(),
            Self::HeaderName => "the name of a header field".into(),
            Self::Origin => "an origin as browsers write it, or *".into(),
            Self::HeaderField => "NAME: VALUE".into(),
            Self::Alias => "ALIAS=MODEL".into(),
            Self::Rewrite => "/FROM => /TO".into(),
            Self::LogFilter => "a level, or directives TARGET=LEVEL".into(),
            Self::Device => "auto, cpu or cuda:N".into(),
            Self::Ratio => "a number from 0 to 1".into(),
            Self::Url => "an http:// or https:// address".into(),
            Self::Choice(words) => one_of(words),
            Self::Boolean => "true or false".into(),
            Self::Count(range) => format!("a whole number{}", range.describe(|n| n.to_string())),
            Self::Milliseconds(range) => {
                format!("milliseconds{}", range.describe(|n| n.to_string()))
            }
            Self::Bytes(range) => format!("bytes, or a size as 16MiB{}", range.describe(bytes)),
            Self::List(item) => format!("a list, each {}", item.takes()),
        }
    }

    /// The text of a variable or a `--set` as a value.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Boolean => Value::from(parse_switch(text)?),
            Self::Count(_) | Self::Milliseconds(_) => {
                let number = text.trim().parse::<u64>();
                Value::from(number.map_err(|_| format!("`{text}` is not a whole number"))?)
            }
            Self::Ratio => {
                let number = text.trim().parse::<f64>();
                Value::from(number.map_err(|_| format!("`{text}` is not {}", self.example()))?)
            }
            Self::List(_) => Value::from(parse_list(text)?),
            Self::Text | Self::Secret | Self::Path => Value::from(text),
            _ => Value::from(text.trim()),
        };
        self.check(&value).map(|()| value)
    }

    /// Whether `value`, as a file gives it, is of this kind.
    pub(super) fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::Boolean, Value::Bool(..)) => Ok(()),
            (Self::Count(range) | Self::Milliseconds(range), Value::Num(..)) => {
                range.check(number(value)?, |number| number.to_string())
            }
            (Self::Ratio, Value::Num(..)) if is_ratio(value) => Ok(()),
            (Self::Ratio, _) => Err(format!("must be {}", self.example())),
            (Self::Bytes(range), Value::Num(..)) => range.check(number(value)?, bytes),
            (Self::Bytes(range), Value::String(_, text)) => {
                range.check(text.parse::<ByteSize>()?.0, bytes)
            }
            (Self::List(item), Value::Array(_, items)) => {
                items.iter().try_for_each(|value| item.check(value))
            }
            (Self::Boolean | Self::Count(_) | Self::Milliseconds(_) | Self::List(_), _) => {
                Err(format!("is {}; write {}", name_of(value), self.example()))
            }
            (_, Value::String(_, text)) => self.check_text(text),
            _ => Err(format!("is {}; write {}", name_of(value), self.example())),
        }
    }

    fn check_text(self, text: &str) -> Result<(), String> {
        let sound = match self {
            _ if text.is_empty() => return Err("must not be empty".into()),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::Operations => host(without_scheme(text)) == Some(true),
            Self::Host => host(text).is_some(),
            Self::Network => text.parse::<IpNet>().is_ok(),
            Self::NodeId => is_valid_id(text),
            Self::HeaderName => text.parse::<http::HeaderName>().is_ok(),
            Self::HeaderField => return text.parse::<transform::HeaderField>().map(drop),
            Self::Alias => return text.parse::<transform::Alias>().map(drop),
            Self::Rewrite => return text.parse::<transform::Rewrite>().map(drop),
            Self::Device => text.parse::<super::Device>().is_ok(),
            Self::Url => return check_url(text),
            Self::Origin => return check_origin(text),
            Self::Choice(words) => return check_choice(text, words),
            Self::LogFilter => return check_filter(text),
            _ => true,
        };
        if sound { Ok(()) } else { Err(format!("`{text}` is not {}", self.example())) }
    }

    /// What to write instead.
    fn example(self) -> String {
        match self {
            Self::Text | Self::Secret => "text in quotes".into(),
            Self::Path => "a path in quotes".into(),
            Self::Address => "IP:PORT, e.g. \"127.0.0.1:8080\" or \"[::1]:8080\"".into(),
            Self::Operations => "[https://]HOST:PORT, e.g. \"proxy-1:6100\"".into(),
            Self::Host => "HOST or HOST:PORT, e.g. \"10.0.0.5:8080\"".into(),
            Self::Network => "a network, e.g. \"10.0.0.0/8\"".into(),
            Self::NodeId => "a node's id, 1-128 of [A-Za-z0-9._-]".into(),
            Self::HeaderName => "the name of a header field, e.g. \"x-session-id\"".into(),
            Self::HeaderField => transform::HeaderField::EXAMPLE.into(),
            Self::Alias => transform::Alias::EXAMPLE.into(),
            Self::Rewrite => transform::Rewrite::EXAMPLE.into(),
            Self::LogFilter => "a level in quotes".into(),
            Self::Origin => "an origin, e.g. \"https://app.example\"".into(),
            Self::Device => "a device: \"auto\", \"cpu\" or \"cuda:N\"".into(),
            Self::Choice(words) => one_of(words),
            Self::Ratio => "a number from 0 to 1".into(),
            Self::Url => "an address, e.g. \"http://127.0.0.1:4318\"".into(),
            Self::Boolean => "true or false".into(),
            Self::Count(_) => "a whole number".into(),
            Self::Milliseconds(_) => "a whole number of milliseconds".into(),
            Self::Bytes(_) => "bytes or e.g. \"16MiB\"".into(),
            Self::List(_) => "a list, e.g. [\"a\", \"b\"]".into(),
        }
    }
}

fn bytes(number: u64) -> String {
    ByteSize(number).to_string()
}

/// `human` or `json`, spelt out.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) => "text",
        Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

fn number(value: &Value) -> Result<u64, String> {
    match value.to_i128().map(u64::try_from) {
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err("is out of range".into()),
        None => value
            .to_u128()
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| "must be a whole number".into()),
    }
}

fn is_ratio(value: &Value) -> bool {
    let whole = value.to_i128().map(|number| number as f64);
    whole.or_else(|| value.to_f64()).is_some_and(|number| (0.0..=1.0).contains(&number))
}

fn check_url(text: &str) -> Result<(), String> {
    let url: http::Uri = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(format!("`{text}` must begin with http:// or https://"));
    }
    // Not quoted: it holds a secret.
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("must hold no credentials: every log and `config show` would have them".into())
        }
        _ => Ok(()),
    }
}

/// An origin is compared byte by byte with what browsers send (RFC 6454 §6.2): what they never send would match nothing,
/// in silence.
fn check_origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    let wrong = || format!("`{text}` is not {}", Kind::Origin.example());
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let of_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let of_host = |c: char| c.is_ascii_graphic() && !"/?#@,\\\"*".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(of_scheme) {
        return Err(wrong());
    }
    if host.ends_with('/') {
        return Err(format!("`{text}` is more than an origin: leave out the `/` at its end"));
    }
    if host.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("`{text}` must be in lower case, as browsers send it"));
    }
    if host.is_empty() || !host.chars().all(of_host) {
        return Err(wrong());
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return Ok(()),
    };
    if host.ends_with(default_port) {
        return Err(format!("`{text}`: browsers leave out the port {}", &default_port[1..]));
    }
    Ok(())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// `a,b` or `["a","b"]`.
fn parse_list(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with("[\"") {
        return serde_json::from_str(text).map_err(|error| format!("not a list: {error}"));
    }
    let bare = text.trim();
    let bare = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')).unwrap_or(bare);
    Ok(bare.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect())
}

fn check_choice(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let hint = nearest::hint(text, words.iter().copied());
    Err(format!("`{text}` is not {}{hint}", one_of(words)))
}

fn without_scheme(text: &str) -> &str {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest))
}

/// Whether `text` names a host: `Some(true)` with a port, `Some(false)` without.
fn host(text: &str) -> Option<bool> {
    if text.parse::<SocketAddr>().is_ok() {
        return Some(true);
    }
    let name = text.trim_start_matches('[').trim_end_matches(']');
    if name.parse::<IpAddr>().is_ok() {
        return Some(false);
    }
    let named = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !name.is_empty() && name.chars().all(allowed)
    };
    match text.split_once(':') {
        Some((name, port)) => (named(name) && port.parse::<u16>().is_ok()).then_some(true),
        None => named(text).then_some(false),
    }
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

/// `tracing` takes any bare word for a target, so that `inof` would silence everything but the
/// target `inof`: a bare word must be a level.
fn check_filter(text: &str) -> Result<(), String> {
    for directive in text.split(',').map(str::trim) {
        let bare = directive.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
        if bare && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            let hint = nearest::hint(directive, LEVELS.iter().copied());
            return Err(format!("`{directive}` is not {} nor TARGET=LEVEL{hint}", one_of(LEVELS)));
        }
    }
    EnvFilter::try_new(text).map(drop).map_err(|error| format!("`{text}`: {error}"))
}
