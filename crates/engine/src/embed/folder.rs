//! The small files of a model directory, each read whole and within a limit.

use super::error::EncoderError;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Largest configuration file.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// A model directory.
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, EncoderError> {
        let path = self.path(name);
        let unreadable = |source| EncoderError::File { path: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes > limit {
            return Err(EncoderError::TooLarge { path, bytes, limit });
        }
        let mut content = Vec::new();
        // A pipe has no length to believe.
        file.take(limit).read_to_end(&mut content).map_err(unreadable)?;
        Ok(content)
    }

    /// A JSON file that must be there.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, EncoderError> {
        let content = self.read(name, JSON_BYTES_MAX)?;
        serde_json::from_slice(&content).map_err(|error| EncoderError::Json {
            path: self.path(name),
            reason: error.to_string(),
        })
    }

    /// A JSON file that may be absent.
    pub(super) fn json_if_there<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, EncoderError> {
        match self.json(name) {
            Err(EncoderError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            read => read.map(Some),
        }
    }
}
