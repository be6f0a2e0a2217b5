//! The shared registration secrets: the first is sent, all are accepted.

use arc_swap::ArcSwap;
use std::{fmt, io, path::PathBuf, sync::Arc};
use subtle::{Choice, ConstantTimeEq};

/// Secrets read from files; never printed. Clones share them, and see them change.
#[derive(Clone, Default)]
pub struct Secrets {
    files: Arc<[PathBuf]>,
    values: Arc<ArcSwap<Vec<String>>>,
}

/// A secret file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("registration.secret_files: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It holds nothing, or something no header can carry.
    #[error("registration.secret_files: {} must hold one line of printable ASCII", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl Secrets {
    /// Reads one secret a file; a line break at its end is not part of it.
    ///
    /// # Errors
    /// If a file cannot be read, or holds something that no header can carry.
    pub fn load(files: &[PathBuf]) -> Result<Self, SecretError> {
        let values = Arc::new(ArcSwap::from_pointee(read_all(files)?));
        Ok(Self { files: files.into(), values })
    }

    /// Secrets given as they are.
    pub fn from_values<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        Self { files: Arc::default(), values: Arc::new(ArcSwap::from_pointee(values)) }
    }

    /// Reads the files again, for every clone. What cannot be read changes nothing.
    ///
    /// # Errors
    /// Those of [`Secrets::load`].
    pub fn reload(&self) -> Result<(), SecretError> {
        if !self.files.is_empty() {
            self.values.store(Arc::new(read_all(&self.files)?));
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

fn read_all(files: &[PathBuf]) -> Result<Vec<String>, SecretError> {
    files.iter().map(read).collect()
}

fn read(path: &PathBuf) -> Result<String, SecretError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::Read { path: path.clone(), source })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(SecretError::Form { path: path.clone() });
    }
    Ok(secret.to_owned())
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
            let secrets = Secrets::load(&[path]).expect("read");
            assert_eq!(secrets.first().as_deref(), Some(secret));
            assert!(secrets.accept(secret) && !secrets.accept("other"));
        }
    }

    #[test]
    fn a_rotated_file_is_read_again_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "old").expect("written");
        let secrets = Secrets::load(std::slice::from_ref(&path)).expect("read");
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
            let error =
                Secrets::load(std::slice::from_ref(&path)).expect_err("refused").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(format!("{:?}", Secrets::from_values(["hunter2"])), "Secrets(1 hidden)");
    }
}
