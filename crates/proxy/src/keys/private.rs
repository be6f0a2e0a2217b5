//! Reading and replacing files that others must not write.

use super::KeysError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

/// Permission bits: what every user may do.
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
/// What a new file gets.
const OWNER_ALONE: u32 = 0o600;

/// A file's text, and whether every user of the machine can read it too.
pub(super) struct Content {
    pub(super) text: String,
    pub(super) is_readable_by_all: bool,
}

/// Reads at most `limit` bytes of UTF-8.
///
/// # Errors
/// If it cannot be read, is larger, or every user can write it: who can might let themselves in.
pub(super) fn read(path: &Path, limit: u64) -> Result<Content, KeysError> {
    let failed = |source| KeysError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(KeysError::Writable { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(KeysError::TooLarge { path: path.into(), limit });
    }
    Ok(Content { text, is_readable_by_all: mode & OTHERS_READ != 0 })
}

/// The file itself, whatever link leads there: links stay, what they lead to is replaced.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// A folder, locked against other writers until this is dropped. The lock is on the folder itself: a
/// file that is replaced takes its lock with it.
pub(super) struct Folder {
    path: PathBuf,
    locked: File,
}

impl Folder {
    /// Locks the folder in which `file` stands, waiting for whoever has it.
    pub(super) fn lock_of(file: &Path) -> Result<Self, KeysError> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new(".")).to_owned();
        let failed = |source| KeysError::Folder { path: path.clone(), source };
        let locked = File::open(&path).map_err(failed)?;
        locked.lock().map_err(failed)?;
        Ok(Self { path, locked })
    }

    /// Puts `text` in the place of `file`, which stands in this folder, as one step: whoever reads sees
    /// the old or the new whole. A file that was there keeps its owner, group and permissions; a new
    /// one is for its owner alone.
    pub(super) fn replace(&self, file: &Path, text: &str) -> Result<(), KeysError> {
        let failed = |source| KeysError::Write { path: file.into(), source };
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let draft = self.path.join(name);
        let outcome = write(&draft, file, text).and_then(|()| fs::rename(&draft, file));
        if outcome.is_err() {
            // What matters is the error that led here.
            let _ = fs::remove_file(&draft);
        }
        outcome.map_err(failed)?;
        self.locked.sync_all().map_err(failed)
    }
}

/// Writes `text` to `draft`, which will take the place of `file`.
fn write(draft: &Path, file: &Path, text: &str) -> io::Result<()> {
    // One that is left over from a crash: with the lock held it is nobody's.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(draft)?;
    if let Ok(old) = fs::metadata(file) {
        let own = new.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            fchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}
