//! The file being brought: hashed while it is written, renamed into place when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use inferno_engine::store::hex;
use sha2::{Digest, Sha256};

use super::PullError;

/// How much is copied at a time.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// A file under way.
pub(super) struct StagedFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

/// A file that has come in full, not yet in its place.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl StagedFile {
    /// An empty file at `path`, in place of whatever was there.
    pub(super) fn create(path: &Path) -> Result<Self, PullError> {
        let file = File::create(path).map_err(PullError::at("write", path))?;
        Ok(Self { path: path.to_owned(), file, hasher: Sha256::new(), bytes: 0 })
    }

    /// The file at `path` as far as it came: what is there is hashed again.
    pub(super) fn reopen(path: &Path) -> Result<Self, PullError> {
        let open = OpenOptions::new().read(true).append(true).open(path);
        let file = open.map_err(PullError::at("write", path))?;
        let mut staged = Self { path: path.to_owned(), file, hasher: Sha256::new(), bytes: 0 };
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match staged.file.read(&mut buffer).map_err(PullError::at("read", path))? {
                0 => return Ok(staged),
                read => staged.count(&buffer[..read]),
            }
        }
    }

    /// How much of the file is there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a chunk.
    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<(), PullError> {
        self.file.write_all(chunk).map_err(PullError::at("write", &self.path))?;
        self.count(chunk);
        Ok(())
    }

    /// The whole file, safely on the disk.
    pub(super) fn finish(self) -> Result<Staged, PullError> {
        self.file.sync_all().map_err(PullError::at("write", &self.path))?;
        Ok(Staged { path: self.path, bytes: self.bytes, sha256: hex(&self.hasher.finalize()) })
    }

    fn count(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
    }
}

impl Staged {
    /// Puts the file in its place, replacing what is there in one step.
    pub(super) fn rename_to(&self, path: &Path) -> Result<(), PullError> {
        fs::rename(&self.path, path).map_err(PullError::at("write", path))
    }

    /// Throws the file away. If that fails, the next pull overwrites it.
    pub(super) fn remove(&self) {
        fs::remove_file(&self.path).ok();
    }
}
