//! The environment layer.
//!
//! figment's own provider guesses types from text (a secret `0123` becomes a number, `[a]` a list,
//! quotes vanish) and ignores what it does not know. Ours reads each variable as its key's kind
//! says and refuses unknown `INFERNO_*` names, except those that container platforms inject for a
//! service called `inferno-something`.

use super::{
    injected,
    keys::{self, KEYS, Key},
    layers::{Layer, Origin, Placed, is_a_table},
    nearest,
    problem::Problem,
};
use figment::value::Value;
use std::{collections::BTreeMap, ffi::OsString};

/// Variables that are read elsewhere than in the key table, with their meaning. Both are paths.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    ("INFERNO_CONFIG", "The configuration file, instead of both default ones; as --config."),
    ("INFERNO_MODELS", "The folder that models live in; without it, the user's cache folder."),
];
/// The old name of `INFERNO_OPERATIONS_ADDR`: works with a warning, and loses.
pub(super) const OLD_OPERATIONS_ADDR: &str = "INFERNO_METRICS_ADDR";

/// What the `INFERNO_*` variables among `variables` say.
pub(super) fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Layer {
    let mut layer = Layer::default();
    let ours = ours(variables, &mut layer.problems);
    for key in KEYS {
        read_key(key, &ours, &mut layer);
    }
    read_old_name(&ours, &mut layer);
    for name in ours.keys().filter(|name| !is_known(name)) {
        if injected::is_injected(name, &ours) {
            layer.notices.injected.push(name.clone());
        } else {
            layer.problems.push(unknown(name));
        }
    }
    layer
}

/// Our variables, as text.
fn ours(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut ours = BTreeMap::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with("INFERNO_") {
            continue;
        }
        match value.into_string() {
            Ok(text) => drop(ours.insert(name, text)),
            Err(_) if is_elsewhere(&name) => {}
            Err(_) => {
                problems.push(Problem::Value { origin: name, why: "is not valid UTF-8".into() });
            }
        }
    }
    ours
}

/// Takes the nested and the flat name of `key`. Both with different values is an error.
fn read_key(key: &Key, ours: &BTreeMap<String, String>, layer: &mut Layer) {
    let nested = key.variable();
    let names = [Some(nested.as_str()), key.flat];
    let mut said: Vec<(&str, Result<Value, String>)> = Vec::new();
    for name in names.into_iter().flatten() {
        if let Some(text) = ours.get(name) {
            said.push((name, key.parse(text)));
        }
    }
    if let [(one, Ok(value)), (two, Ok(other))] = said.as_slice()
        && value != other
    {
        let (one, two) = ((*one).to_owned(), (*two).to_owned());
        layer.problems.push(Problem::Conflict { one, two });
        return;
    }
    for (name, value) in said {
        layer.take(key, value, Origin::Variable(name.to_owned()));
    }
}

fn read_old_name(ours: &BTreeMap<String, String>, layer: &mut Layer) {
    let (Some(text), Some(key)) = (ours.get(OLD_OPERATIONS_ADDR), keys::find("operations.addr"))
    else {
        return;
    };
    if let Some(Placed { origin, .. }) = layer.get(key.name) {
        let remark =
            format!("{OLD_OPERATIONS_ADDR} is ignored: {origin} is set; remove the old one");
        layer.notices.warnings.push(remark);
        return;
    }
    layer.notices.warnings.push(format!(
        "{OLD_OPERATIONS_ADDR} is the old name of INFERNO_OPERATIONS_ADDR; please rename it"
    ));
    layer.take(key, key.parse(text), Origin::Variable(OLD_OPERATIONS_ADDR.into()));
}

fn is_elsewhere(name: &str) -> bool {
    ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == name)
}

fn is_known(name: &str) -> bool {
    is_elsewhere(name)
        || name == OLD_OPERATIONS_ADDR
        || KEYS.iter().any(|key| key.flat == Some(name) || key.variable() == name)
}

fn unknown(name: &str) -> Problem {
    let dotted = name.trim_start_matches("INFERNO_").replace("__", ".").to_ascii_lowercase();
    if let Some(keys) = keys::table(&dotted) {
        let variables: Vec<String> =
            keys.iter().filter_map(|key| keys::find(key)).map(Key::variable).collect();
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        return Problem::Value { origin: name.into(), why: is_a_table(&dotted, &variables) };
    }
    let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let known = variables
        .iter()
        .map(String::as_str)
        .chain(KEYS.iter().filter_map(|key| key.flat))
        .chain(ELSEWHERE.iter().map(|(name, _)| *name));
    Problem::UnknownVariable { name: name.into(), hint: nearest::hint(name, known) }
}
