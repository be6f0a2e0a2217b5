//! Values that are never shown, and the files that may hold them.

use super::{
    keys::{KEYS, Key},
    kind::Kind,
    layers::{Layer, Origin, Placed},
    problem::Problem,
};
use figment::value::Value;
use serde::{Deserialize, Serialize, Serializer};
use std::{fmt, path::Path};

/// What stands for a secret wherever values are shown.
pub const HIDDEN: &str = "hidden";

/// A secret of the configuration. Neither `Debug` nor serialising it reveals it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for where it is sent or compared.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({HIDDEN})")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// What a secret's file says: all of it, less one line break at the end.
pub(crate) fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = std::fs::read_to_string(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Gives each secret whose `_file` twin is set the content of that file.
pub(super) fn read_twins(layer: &mut Layer) {
    for key in KEYS.iter().filter(|key| key.kind == Kind::Secret) {
        let Some(twin) = twin(key) else { continue };
        let Some(file) = layer.get(twin.name) else { continue };
        let read = match layer.get(key.name) {
            Some(secret) => Err(Problem::Conflict {
                one: secret.origin.of(key.name),
                two: file.origin.of(twin.name),
            }),
            None => read_twin(twin, file),
        };
        match read {
            Ok(secret) => layer.set(key, secret),
            Err(problem) => layer.problems.push(problem),
        }
    }
}

/// The key whose file may hold the secret `key`.
pub(super) fn twin(key: &Key) -> Option<&'static Key> {
    KEYS.iter().find(|twin| twin.name.strip_suffix("_file") == Some(key.name))
}

fn read_twin(twin: &Key, file: &Placed) -> Result<Placed, Problem> {
    let path = file.value.as_str().unwrap_or_default();
    let refuse = |why: String| Problem::Value { origin: file.origin.of(twin.name), why };
    let secret = read_file(Path::new(path))
        .map_err(|error| refuse(format!("cannot read {path}: {error}")))?;
    if secret.is_empty() {
        return Err(refuse(format!("{path} is empty")));
    }
    Ok(Placed { value: Value::from(secret), origin: Origin::Secret { path: path.into() } })
}
