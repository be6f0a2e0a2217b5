//! The file or directory being brought: hashed while it is written, renamed into place when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use inferno_engine::store::{self, hex};
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

/// A directory under way.
pub(super) struct StagedFolder {
    path: PathBuf,
    bytes: u64,
    /// Name and hash of each file that is there.
    files: Vec<(&'static str, String)>,
}

/// A file or directory that has come in full, not yet in its place.
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

impl StagedFolder {
    /// An empty directory at `path`, in place of whatever was there.
    pub(super) fn create(path: &Path) -> Result<Self, PullError> {
        remove(path).map_err(PullError::at("remove", path))?;
        fs::create_dir(path).map_err(PullError::at("create", path))?;
        Ok(Self { path: path.to_owned(), bytes: 0, files: Vec::new() })
    }

    /// How much of it is there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A file to be written.
    pub(super) fn file(&self, name: &str) -> Result<StagedFile, PullError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent).map_err(PullError::at("create", parent))?;
        StagedFile::create(&path)
    }

    /// Counts a file that is there in full.
    pub(super) fn add(&mut self, name: &'static str, file: &Staged) {
        self.bytes += file.bytes;
        self.files.push((name, file.sha256.clone()));
    }

    /// The whole directory. Its files have to have come in the order of `store::FOLDER_FILES`.
    pub(super) fn finish(self) -> Staged {
        let files = self.files.iter().map(|(name, sha256)| (*name, sha256.as_str()));
        Staged { sha256: store::listing_sha256(files), path: self.path, bytes: self.bytes }
    }
}

impl Staged {
    /// Puts it in its place. A file replaces what is there in one step; a directory cannot, so what is there
    /// goes first, and for that moment the model is absent.
    pub(super) fn rename_to(&self, path: &Path) -> Result<(), PullError> {
        if self.path.is_dir() {
            remove(path).map_err(PullError::at("remove", path))?;
        }
        fs::rename(&self.path, path).map_err(PullError::at("write", path))
    }

    /// Throws it away. If that fails, the next pull overwrites it.
    pub(super) fn remove(&self) {
        remove(&self.path).ok();
    }
}

/// Removes a file, a link or a directory; whether there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
