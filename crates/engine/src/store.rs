//! The folder models live in, and what a model's name stands for.
//!
//! Layout of the folder, flat:
//! ```text
//! NAME.gguf                 the model
//! NAME.gguf.json            its manifest, written last: the file is whole and its hash was checked
//! NAME.gguf.partial         a download under way or broken off (the operator command's business)
//! NAME, NAME.json, …        the same of a model that is a directory of files
//! ```
//! The manifest is what makes a start fast: the weights' hash, part of the fingerprint, is read
//! from it instead of from the whole file. A file without a manifest works as well; the engine
//! hashes it in the background. The folder may be mounted read-only: nothing here writes but
//! [`ModelStore::write_manifest`].

use std::path::{Path, PathBuf};

use crate::catalogue::{self, CATALOGUE, CatalogueEntry};

mod error;
mod manifest;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use manifest::{
    FOLDER_FILES, Manifest, bytes_of, hex, is_folder, listing_sha256, read_manifest, sha256_of,
};
use manifest::{manifest_owner, manifest_paths};

/// A model that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// What the API calls it.
    pub id: String,
    /// The GGUF file, or the directory of an encoder.
    pub path: PathBuf,
    /// The weights' hash as the manifest has it; `None` if nobody has hashed this file yet.
    pub sha256: Option<String>,
}

impl ResolvedModel {
    /// Whether it makes embeddings, for [`crate::Embedder`], and not text, for [`crate::Engine`]. Encoders come as
    /// directories, everything else as files.
    #[must_use]
    pub fn makes_embeddings(&self) -> bool {
        is_folder(&self.path)
    }
}

/// One line of the model list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// The model's name.
    pub name: String,
    /// Where the file is or would be.
    pub path: PathBuf,
    /// Size in bytes that the file has, or would have.
    pub bytes: u64,
    /// SPDX licence, for catalogue models.
    pub licence: Option<&'static str>,
    /// One line about it, for catalogue models.
    pub description: Option<&'static str>,
    /// The model of a configuration that names none.
    pub default: bool,
    /// Whether it can be used.
    pub state: ModelState,
}

/// Whether a listed model can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Known by name, not in the folder.
    Absent,
    /// There, with a manifest.
    Pulled,
    /// There, but not pulled by Inferno: its hash was never checked.
    Unchecked,
    /// Not usable, and why.
    Damaged(String),
}

/// What hashing a model again showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The hashed file.
    pub path: PathBuf,
    /// What the catalogue, else the manifest, says its SHA-256 is.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl Verification {
    /// Whether the file is what it should be.
    pub fn is_ok(&self) -> bool {
        self.expected == self.found
    }
}

/// A folder of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStore {
    root: PathBuf,
}

impl ModelStore {
    /// The folder `$INFERNO_MODELS`, else `inferno/models` in the user's cache folder (XDG Base
    /// Directory Specification: `$XDG_CACHE_HOME`, else `~/.cache`). It need not exist yet.
    ///
    /// # Errors
    /// [`StoreError::NoFolder`] if none of the variables is set.
    pub fn open_default() -> Result<Self, StoreError> {
        default_root(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
            .map(Self::at)
            .ok_or(StoreError::NoFolder)
    }

    /// The store in `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a model file of this name lies or would lie.
    pub fn path(&self, file_name: &str) -> PathBuf {
        self.root.join(file_name)
    }

    /// What a name from the catalogue, the name of a pulled model, or the path of a GGUF file or model
    /// directory (anything with a `/` or the ending `.gguf`) stands for.
    ///
    /// # Errors
    /// A sentence with the way out: [`StoreError::Unknown`], [`StoreError::NotPulled`],
    /// [`StoreError::NoSuchFile`], [`StoreError::WrongSize`], or an unreadable manifest.
    pub fn resolve(&self, name_or_path: &str) -> Result<ResolvedModel, StoreError> {
        let (id, path) = self.locate(name_or_path)?;
        let manifest = read_manifest(&path)?;
        let pinned = self.pinned(&path).map(|entry| entry.bytes);
        check_size(&path, pinned.or(manifest.as_ref().map(|m| m.bytes)))?;
        Ok(ResolvedModel { id, path, sha256: manifest.map(|m| m.sha256) })
    }

    /// Every model of the catalogue and every other that was pulled, by name.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<ListedModel>, StoreError> {
        let mut models: Vec<_> = CATALOGUE.iter().map(|entry| self.listed_entry(entry)).collect();
        for path in manifest_paths(&self.root)? {
            let model = manifest_owner(&path);
            if !models.iter().any(|known| known.path == model) {
                models.push(listed_stranger(model));
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Hashes a model's file again and compares it with the catalogue, else with its manifest.
    /// `progress` hears the number of bytes hashed so far.
    ///
    /// # Errors
    /// As [`Self::resolve`], but a wrong size is a finding, not an error; [`StoreError::NoManifest`].
    pub fn verify(
        &self,
        name_or_path: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verification, StoreError> {
        let (_, path) = self.locate(name_or_path)?;
        let expected = match self.pinned(&path) {
            Some(entry) if !entry.files.is_empty() => return verify_files(path, entry, progress),
            Some(entry) => Some(entry.sha256.to_owned()),
            None => read_manifest(&path)?.map(|manifest| manifest.sha256),
        };
        let expected = expected.ok_or_else(|| StoreError::NoManifest { path: path.clone() })?;
        let found = sha256_of(&path, progress)?;
        Ok(Verification { path, expected, found })
    }

    /// Records that the model file `file_name` is whole.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be written.
    pub fn write_manifest(&self, file_name: &str, manifest: &Manifest) -> Result<(), StoreError> {
        manifest.write_beside(&self.path(file_name))
    }

    /// The id and path of an existing file.
    fn locate(&self, name_or_path: &str) -> Result<(String, PathBuf), StoreError> {
        if is_path(name_or_path) {
            // Through its components, so that a last `/` does not part a directory from its manifest.
            let path: PathBuf = Path::new(name_or_path).components().collect();
            return match is_there(&path) {
                true => Ok((model_id(&path), path)),
                false => Err(StoreError::NoSuchFile { path }),
            };
        }
        let name = name_or_path.to_owned();
        let path = match catalogue::find(&name) {
            Some(entry) => self.path(entry.file_name),
            None => self.pulled_under(&name)?,
        };
        match is_there(&path) {
            true => Ok((name, path)),
            false => Err(StoreError::NotPulled { name, path }),
        }
    }

    /// The catalogue entry whose file this is.
    fn pinned(&self, path: &Path) -> Option<&'static CatalogueEntry> {
        CATALOGUE.iter().find(|entry| path == self.path(entry.file_name))
    }

    /// The file that was pulled under a name outside the catalogue.
    fn pulled_under(&self, name: &str) -> Result<PathBuf, StoreError> {
        let models = self.list()?;
        if let Some(model) = models.iter().find(|model| model.name == name) {
            return Ok(model.path.clone());
        }
        let known: Vec<_> = models.into_iter().map(|model| model.name).collect();
        Err(StoreError::Unknown {
            name: name.to_owned(),
            nearest: error::nearest(name, &known),
            known,
        })
    }

    fn listed_entry(&self, entry: &CatalogueEntry) -> ListedModel {
        let path = self.path(entry.file_name);
        let state = match is_there(&path) {
            false => ModelState::Absent,
            true => state_of(&path, Some(entry.bytes)),
        };
        ListedModel {
            name: entry.name.to_owned(),
            bytes: entry.bytes,
            licence: Some(entry.licence),
            description: Some(entry.description),
            default: entry.default,
            path,
            state,
        }
    }
}

/// What the API calls the model in this file or directory: the file's stem or the directory's name in lower
/// case, with everything outside `[a-z0-9._-]` replaced by `-`.
pub fn model_id(path: &Path) -> String {
    let stem = if is_folder(path) { path.file_name() } else { path.file_stem() };
    let stem = stem.unwrap_or_default().to_string_lossy().to_lowercase();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let id: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    match id.trim_matches(['-', '.']) {
        "" => "model".to_owned(),
        id => id.to_owned(),
    }
}

fn default_root(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("INFERNO_MODELS").or_else(|| {
        let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let cache = cache.or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(cache.join("inferno").join("models"))
    })
}

fn is_path(name_or_path: &str) -> bool {
    name_or_path.contains('/') || name_or_path.to_ascii_lowercase().ends_with(".gguf")
}

fn is_there(path: &Path) -> bool {
    path.is_file() || is_folder(path)
}

/// Names the first file of a directory that is not the one that the catalogue pins.
fn verify_files(
    folder: PathBuf,
    entry: &CatalogueEntry,
    progress: &mut dyn FnMut(u64),
) -> Result<Verification, StoreError> {
    let mut before = 0;
    for file in entry.files {
        let path = folder.join(file.name);
        let found = sha256_of(&path, &mut |bytes| progress(before + bytes))?;
        if found != file.sha256 {
            return Ok(Verification { path, expected: file.sha256.to_owned(), found });
        }
        before += file.bytes;
    }
    // The list of these hashes has the entry's, by the catalogue's own test.
    let (expected, found) = (entry.sha256.to_owned(), entry.sha256.to_owned());
    Ok(Verification { path: folder, expected, found })
}

fn check_size(path: &Path, expected: Option<u64>) -> Result<(), StoreError> {
    let found = bytes_of(path)?;
    match expected {
        Some(expected) if expected != found => {
            Err(StoreError::WrongSize { path: path.to_owned(), expected, found })
        }
        _ => Ok(()),
    }
}

/// The state of an existing model file.
fn state_of(path: &Path, expected_bytes: Option<u64>) -> ModelState {
    let checked = read_manifest(path).and_then(|manifest| {
        check_size(path, expected_bytes.or(manifest.as_ref().map(|m| m.bytes)))?;
        Ok(manifest)
    });
    match checked {
        Ok(Some(_)) => ModelState::Pulled,
        Ok(None) => ModelState::Unchecked,
        Err(error) => ModelState::Damaged(error.to_string()),
    }
}

/// A pulled model that is not in the catalogue, from its manifest.
fn listed_stranger(path: PathBuf) -> ListedModel {
    let manifest = read_manifest(&path).ok().flatten();
    let state = state_of(&path, None);
    let name = manifest.as_ref().map_or_else(|| model_id(&path), |m| m.name.clone());
    let bytes = manifest.map_or(0, |m| m.bytes);
    ListedModel { name, path, bytes, licence: None, description: None, default: false, state }
}
