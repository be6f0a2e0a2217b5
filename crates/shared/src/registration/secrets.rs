//! The shared registration secrets: the first is sent, all are accepted.

use crate::config::{Secret, read_secret_file};
use std::{fmt, io, path::PathBuf};
use subtle::{Choice, ConstantTimeEq};

/// Secrets read from files; never printed.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

/// Where a secret comes from, and the key that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration.
    Value(&'static str, Secret),
    /// It stands in this file, which may change.
    File(&'static str, PathBuf),
}

/// A secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Read {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its file holds nothing, or something no header can carry.
    #[error("{key}: {} must hold one line of printable ASCII without spaces", path.display())]
    FileForm {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// No header can carry it.
    #[error("{key} must be printable ASCII without spaces")]
    Form {
        /// The key.
        key: &'static str,
    },
}

impl Secrets {
    /// Reads one secret a source; a line break at the end of a file is not part of it.
    ///
    /// # Errors
    /// If a file cannot be read, or a secret is nothing that a header can carry.
    pub fn load(sources: &[SecretSource]) -> Result<Self, SecretError> {
        sources.iter().map(SecretSource::read).collect::<Result<_, _>>().map(Self)
    }

    /// Secrets given as they are.
    pub fn from_values<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        Self(values.into_iter().map(Into::into).collect())
    }

    /// No secret is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one to send.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether `presented` is one of them, in a time that does not tell which or how nearly.
    pub fn accept(&self, presented: &str) -> bool {
        let any = self.0.iter().fold(Choice::from(0), |any, secret| {
            any | secret.as_bytes().ct_eq(presented.as_bytes())
        });
        any.into()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} hidden)", self.0.len())
    }
}

impl SecretSource {
    fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Value(_, secret) if can_be_sent(secret.expose()) => {
                Ok(secret.expose().to_owned())
            }
            Self::Value(key, _) => Err(SecretError::Form { key }),
            Self::File(key, path) => match read_secret_file(path) {
                Ok(secret) if can_be_sent(&secret) => Ok(secret),
                Ok(_) => Err(SecretError::FileForm { key, path: path.clone() }),
                Err(source) => Err(SecretError::Read { key, path: path.clone(), source }),
            },
        }
    }
}

/// Whether a header can carry `secret` (RFC 6750 has less).
fn can_be_sent(secret: &str) -> bool {
    !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_as_it_stands() {
        let dir = tempfile::tempdir().expect("a folder");
        for (text, secret) in
            [("0123\n", "0123"), ("true", "true"), ("[x]\r\n", "[x]"), ("\"q\"\n", "\"q\"")]
        {
            let path = dir.path().join("secret");
            std::fs::write(&path, text).expect("written");
            let secrets = Secrets::load(&[SecretSource::File("k", path)]).expect("read");
            assert_eq!(secrets.first(), Some(secret));
            assert!(secrets.accept(secret) && !secrets.accept("other"));
        }
    }

    #[test]
    fn an_empty_or_missing_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("empty");
        std::fs::write(&path, "\n").expect("written");
        for path in [path, dir.path().join("missing")] {
            let source = SecretSource::File("the.key", path.clone());
            let error = Secrets::load(&[source]).expect_err("refused").to_string();
            assert!(error.starts_with("the.key: "), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(format!("{:?}", Secrets::from_values(["hunter2"])), "Secrets(1 hidden)");
    }
}
