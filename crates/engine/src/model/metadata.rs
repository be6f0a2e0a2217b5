//! Metadata of one architecture, with the limits that hold for all.

use crate::error::ModelFileError;
use crate::gguf::{GgufFile, Value};

/// Most layers, heads, or elements of a row: far above any model, and low enough that no product of three
/// overflows.
pub(super) const SIZE_MAX: usize = 1 << 20;

/// The keys of a file under its architecture's name.
pub(super) struct Metadata<'f> {
    pub(super) file: &'f mut GgufFile,
    architecture: String,
}

impl<'f> Metadata<'f> {
    pub(super) fn new(file: &'f mut GgufFile, architecture: &str) -> Self {
        Self { file, architecture: architecture.to_owned() }
    }

    /// A key's full name.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn get(&self, name: &str) -> Option<Value<'_>> {
        self.file.get(&self.key(name))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<usize>, ModelFileError> {
        Ok(self.file.integer(&self.key(name))?)
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f32>, ModelFileError> {
        Ok(self.file.float(&self.key(name))?)
    }

    /// A count of at least 1 and at most [`SIZE_MAX`].
    pub(super) fn size(&self, name: &str) -> Result<usize, ModelFileError> {
        match self.file.count(&self.key(name))? {
            n if n > SIZE_MAX => Err(ModelFileError::unsupported(
                format!("{} of {n}", self.key(name)),
                "at most 1048576",
            )),
            n => Ok(n),
        }
    }

    /// A positive number; absent and 0 are none.
    pub(super) fn positive(&self, name: &str) -> Result<Option<f32>, ModelFileError> {
        match self.float(name)? {
            None => Ok(None),
            Some(x) if x == 0.0 => Ok(None),
            Some(x) if x > 0.0 => Ok(Some(x)),
            Some(x) => Err(ModelFileError::unsupported(
                format!("{} of {x}", self.key(name)),
                "positive numbers",
            )),
        }
    }
}
