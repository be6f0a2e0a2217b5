//! The environment layer.
//!
//! figment's own provider guesses types from text (a secret `0123` becomes a number, `[a]` a list,
//! quotes vanish) and ignores what it does not know. Ours reads each variable as its key's
//! [`Kind`] says and refuses unknown `INFERNO_*` names, except those that container platforms
//! inject for a service called `inferno-something`.

use super::{
    ConfigError, Notices,
    keys::{KEYS, Key, Kind},
    nearest,
};
use figment::value::{Dict, Value};
use std::collections::BTreeMap;

/// Variables that are read elsewhere than in the key table.
const RESERVED: &[&str] = &["INFERNO_CONFIG", "INFERNO_MODELS"];
/// The old name of `INFERNO_OPERATIONS_ADDR`: works with a warning, and loses.
const OLD_OPERATIONS_ADDR: &str = "INFERNO_METRICS_ADDR";

/// What the environment says: values by dotted key, and remarks to log once logging is up.
#[derive(Debug, Default)]
pub struct Environment {
    /// Values by dotted key.
    pub values: BTreeMap<&'static str, Value>,
    /// The variable each value came from.
    pub origins: BTreeMap<&'static str, String>,
    /// What was odd, and no error.
    pub notices: Notices,
}

/// Reads the `INFERNO_*` variables of this process.
pub fn read_own() -> Result<Environment, ConfigError> {
    let ours =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = ours.filter(|(name, _)| name.starts_with("INFERNO_"));
    let text = |(name, value): (String, std::ffi::OsString)| match value.into_string() {
        Ok(text) => Ok((name, text)),
        Err(_) => Err(ConfigError::Value { origin: name, why: "is not valid UTF-8".into() }),
    };
    let variables: Vec<_> = ours.map(text).collect::<Result<_, _>>()?;
    read(variables.into_iter())
}

/// Reads the `INFERNO_*` variables among `variables`.
pub fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Environment, ConfigError> {
    let ours: BTreeMap<String, String> =
        variables.filter(|(name, _)| name.starts_with("INFERNO_")).collect();
    let mut environment = Environment::default();
    for key in KEYS {
        if let Some((variable, text)) = one_of_two(key, &ours)? {
            let value = parse(key, text)
                .map_err(|why| ConfigError::Value { origin: variable.clone(), why })?;
            environment.values.insert(key.name, value);
            environment.origins.insert(key.name, variable);
        }
    }
    read_old_name(&ours, &mut environment)?;
    for name in ours.keys().filter(|name| !is_known(name)) {
        if is_service_link(name, &ours[name]) {
            environment.notices.injected.push(name.clone());
        } else {
            return Err(unknown(name));
        }
    }
    Ok(environment)
}

/// The variable that sets `key`: its nested or its flat name. Both with different values is an error.
fn one_of_two<'a>(
    key: &Key,
    ours: &'a BTreeMap<String, String>,
) -> Result<Option<(String, &'a str)>, ConfigError> {
    let nested = key.variable();
    let flat = key.flat.filter(|flat| *flat != nested);
    match (ours.get(&nested), flat.and_then(|flat| ours.get(flat).map(|text| (flat, text)))) {
        (Some(one), Some((flat, two))) if one != two => {
            Err(ConfigError::Conflict { one: nested, two: flat.into() })
        }
        (Some(text), _) => Ok(Some((nested, text))),
        (None, Some((flat, text))) => Ok(Some((flat.into(), text))),
        (None, None) => Ok(None),
    }
}

fn read_old_name(
    ours: &BTreeMap<String, String>,
    environment: &mut Environment,
) -> Result<(), ConfigError> {
    let Some(text) = ours.get(OLD_OPERATIONS_ADDR) else { return Ok(()) };
    environment.notices.warnings.push(format!(
        "{OLD_OPERATIONS_ADDR} is the old name of INFERNO_OPERATIONS_ADDR; please rename it"
    ));
    if let Some(key) = super::keys::find("operations.addr") {
        let value = parse(key, text)
            .map_err(|why| ConfigError::Value { origin: OLD_OPERATIONS_ADDR.into(), why })?;
        environment.values.entry(key.name).or_insert(value);
        environment.origins.entry(key.name).or_insert_with(|| OLD_OPERATIONS_ADDR.into());
    }
    Ok(())
}

/// Text to a value, as the key's kind says.
pub fn parse(key: &Key, text: &str) -> Result<Value, String> {
    Ok(match key.kind {
        Kind::Text => Value::from(text),
        Kind::Integer => Value::from(
            text.trim().parse::<u64>().map_err(|_| format!("`{text}` is not a whole number"))?,
        ),
        Kind::Boolean => match text.trim() {
            "true" | "1" => Value::from(true),
            "false" | "0" => Value::from(false),
            _ => return Err(format!("`{text}` is neither true nor false")),
        },
        Kind::List => Value::from(parse_list(text)?),
    })
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

fn is_known(name: &str) -> bool {
    RESERVED.contains(&name)
        || name == OLD_OPERATIONS_ADDR
        || KEYS.iter().any(|key| key.flat == Some(name) || key.variable() == name)
}

/// The shapes that Kubernetes and Docker links inject beside a service called `inferno-x`.
fn is_service_link(name: &str, value: &str) -> bool {
    let port_part = |rest: &str| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| port_part(rest))
}

fn unknown(name: &str) -> ConfigError {
    let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let known = variables
        .iter()
        .map(String::as_str)
        .chain(KEYS.iter().filter_map(|key| key.flat))
        .chain(RESERVED.iter().copied());
    ConfigError::UnknownVariable { name: name.into(), hint: nearest::hint(name, known) }
}

/// Puts `value` at the dotted `name` inside `dict`.
pub(super) fn insert(dict: &mut Dict, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            dict.insert(name.into(), value);
        }
        Some((table, rest)) => {
            let entry = dict.entry(table.into()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}
