//! The shared registration secrets: the first is sent, all are accepted.

use crate::config::{Secret, read_secret_file};
use arc_swap::ArcSwap;
use std::{fmt, io, path::PathBuf, sync::Arc};
use subtle::{Choice, ConstantTimeEq};

/// Secrets; never printed. Clones share them, and see them change.
#[derive(Clone, Default)]
pub struct Secrets {
    sources: Arc<[SecretSource]>,
    values: Arc<ArcSwap<Vec<String>>>,
}

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
        let values = Arc::new(ArcSwap::from_pointee(read_all(sources)?));
        Ok(Self { sources: sources.into(), values })
    }

    /// Secrets given as they are.
    pub fn from_values<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        Self { sources: Arc::default(), values: Arc::new(ArcSwap::from_pointee(values)) }
    }

    /// Reads the sources again, for every clone. What cannot be read changes nothing.
    ///
    /// # Errors
    /// Those of [`Secrets::load`].
    pub fn reload(&self) -> Result<(), SecretError> {
        if !self.sources.is_empty() {
            self.values.store(Arc::new(read_all(&self.sources)?));
        }
        Ok(())
    }

    /// No secret is configured.
    pub fn is_empty(&self) -> bool {
        self.values.load().is_empty()
    }

    /// The one to send.
    pub fn first(&self) -> Option<String> {
        self.values.load().first().cloned()
    }

    /// Whether `presented` is one of them, in a time that does not tell which or how nearly.
    pub fn accept(&self, presented: &str) -> bool {
        let any = self.values.load().iter().fold(Choice::from(0), |any, secret| {
            any | secret.as_bytes().ct_eq(presented.as_bytes())
        });
        any.into()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} hidden)", self.values.load().len())
    }
}

fn read_all(sources: &[SecretSource]) -> Result<Vec<String>, SecretError> {
    sources.iter().map(SecretSource::read).collect()
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
            assert_eq!(secrets.first().as_deref(), Some(secret));
            assert!(secrets.accept(secret) && !secrets.accept("other"));
        }
    }

    #[test]
    fn a_rotated_file_is_read_again_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "old").expect("written");
        let source = SecretSource::File("k", path.clone());
        let secrets = Secrets::load(&[source]).expect("read");
        let elsewhere = secrets.clone();
        std::fs::write(&path, "new\n").expect("written");
        assert!(elsewhere.accept("old"), "not before it is asked for");
        secrets.reload().expect("read");
        assert!(elsewhere.accept("new") && !elsewhere.accept("old"));
        std::fs::remove_file(&path).expect("removed");
        assert!(secrets.reload().is_err() && elsewhere.accept("new"));
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
