//! Taking a model out of the folder again: its file or directory, its manifest, and what a broken download left.

use std::path::{Path, PathBuf};

use inferno_engine::store::{self, ModelStore, StoreError};

use super::{Progress, PullError, download, lock, staged};

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The model's file, or where it would have been.
    pub path: PathBuf,
    /// What the disk has back.
    pub bytes: u64,
}

/// Why a model is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Not a name: files outside the folder are not ours to remove.
    #[error(
        "{0} is a path: only models of the folder are removed, by the name that `inferno model list` shows"
    )]
    Path(String),
    /// A known name, and nothing there.
    #[error("{0} is not there: nothing to remove")]
    Absent(String),
    /// The folder, or a name that nobody knows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refused.
    #[error(transparent)]
    Folder(#[from] PullError),
}

/// Removes the model called `name`; waits for a pull of it that is under way.
///
/// # Errors
/// See [`RemoveError`]. What was removed before an error stays removed.
pub fn remove(
    store: &ModelStore,
    name: &str,
    progress: &mut dyn Progress,
) -> Result<Removed, RemoveError> {
    if name.contains('/') {
        return Err(RemoveError::Path(name.to_owned()));
    }
    let models = store.list()?;
    let Some(model) = models.into_iter().find(|model| model.name == name) else {
        // The store's own words for a name it does not know, with the nearest ones.
        let path = store.resolve(name)?.path;
        return Err(RemoveError::Path(path.display().to_string()));
    };
    let file_name = model.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = store.path(&file_name);
    if !store.root().is_dir() {
        return Err(RemoveError::Absent(name.to_owned()));
    }
    let _lock = lock(store, &file_name, name, progress)?;
    let partial = store.path(&format!("{file_name}.partial"));
    let manifest = store.path(&format!("{file_name}.json"));
    let bytes = size(&path) + size(&partial);
    // The manifest first: a file without one is known to be unchecked, a manifest without a file is a riddle.
    let removed = [remove_one(&manifest)?, remove_one(&path)?, remove_one(&partial)?];
    download::forget(&partial);
    match removed.contains(&true) {
        true => Ok(Removed { path, bytes }),
        false => Err(RemoveError::Absent(name.to_owned())),
    }
}

fn size(path: &Path) -> u64 {
    store::bytes_of(path).unwrap_or(0)
}

/// Whether there was one to remove.
fn remove_one(path: &Path) -> Result<bool, PullError> {
    staged::remove(path).map_err(PullError::at("remove", path))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Heard;
    use super::*;
    use inferno_engine::store::Manifest;
    use std::fs;

    fn store_with(name: &str) -> (tempfile::TempDir, ModelStore) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ModelStore::at(folder.path().join("models"));
        fs::create_dir(store.root()).expect("made");
        let manifest = Manifest {
            name: name.into(),
            sha256: "0".repeat(64),
            bytes: 5,
            source: "here".into(),
            pulled_at_unix_s: 0,
        };
        let file = format!("{name}.gguf");
        fs::write(store.path(&file), "model").expect("written");
        store.write_manifest(&file, &manifest).expect("written");
        (folder, store)
    }

    fn remove_named(store: &ModelStore, name: &str) -> Result<Removed, RemoveError> {
        remove(store, name, &mut Heard::default())
    }

    #[test]
    fn a_model_goes_with_its_manifest_and_what_a_broken_download_left() {
        let (_folder, store) = store_with("mine");
        fs::write(store.path("mine.gguf.partial"), "mo").expect("written");
        fs::write(store.path("other.gguf"), "other").expect("written");
        let removed = remove_named(&store, "mine").expect("removed");
        assert_eq!((removed.bytes, removed.path), (7, store.path("mine.gguf")));
        let left = fs::read_dir(store.root()).expect("there").flatten();
        let mut left: Vec<_> =
            left.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        left.sort();
        assert_eq!(left, [".mine.gguf.lock", "other.gguf"]);
        assert!(matches!(remove_named(&store, "mine"), Err(RemoveError::Store(_))));
    }

    #[test]
    fn a_directory_goes_with_its_manifest_and_its_partial() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = ModelStore::at(folder.path());
        for name in ["Encoder", "Encoder.partial"] {
            fs::create_dir(store.path(name)).expect("made");
            fs::write(store.path(name).join("config.json"), "{}").expect("written");
        }
        let manifest = Manifest {
            name: "encoder".into(),
            sha256: "0".repeat(64),
            bytes: 2,
            source: "here".into(),
            pulled_at_unix_s: 0,
        };
        store.write_manifest("Encoder", &manifest).expect("written");
        let removed = remove_named(&store, "encoder").expect("removed");
        assert_eq!((removed.bytes, removed.path), (4, store.path("Encoder")));
        let left = fs::read_dir(store.root()).expect("there").flatten();
        assert_eq!(left.map(|entry| entry.file_name()).collect::<Vec<_>>(), [".Encoder.lock"]);
    }

    #[test]
    fn nothing_outside_the_folder_is_touched() {
        let (folder, store) = store_with("mine");
        let outside = folder.path().join("mine.gguf");
        fs::write(&outside, "precious").expect("written");
        for name in
            [outside.to_str().expect("UTF-8"), "../mine.gguf", "./mine.gguf", "mine.gguf", ".."]
        {
            assert!(remove_named(&store, name).is_err(), "{name}");
        }
        assert!(outside.exists() && store.path("mine.gguf").exists());
    }

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let (folder, store) = store_with("mine");
        let target = folder.path().join("target.gguf");
        fs::rename(store.path("mine.gguf"), &target).expect("moved");
        std::os::unix::fs::symlink(&target, store.path("mine.gguf")).expect("linked");
        remove_named(&store, "mine").expect("removed");
        assert!(target.exists() && !store.path("mine.gguf").exists());
    }

    #[test]
    fn what_is_known_but_not_there_is_said() {
        let (_folder, store) = store_with("mine");
        let absent =
            remove_named(&store, "smollm2-135m-instruct").expect_err("not there").to_string();
        assert_eq!(absent, "smollm2-135m-instruct is not there: nothing to remove");
        let unknown = remove_named(&store, "minee").expect_err("unknown").to_string();
        assert!(unknown.contains("did you mean `mine`"), "{unknown}");
    }
}
