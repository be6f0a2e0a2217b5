#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::HashMap;
use std::fs::{self, File};
use tempfile::TempDir;

const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A store with one pulled model, `abc`, whose file holds `abc`.
fn store_with_abc() -> (TempDir, ModelStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ModelStore::at(folder.path());
    fs::write(store.path("abc.gguf"), "abc").unwrap();
    let manifest = Manifest {
        name: "abc".into(),
        sha256: SHA256_OF_ABC.into(),
        bytes: 3,
        source: "a test".into(),
        pulled_at_unix_s: 0,
    };
    store.write_manifest("abc.gguf", &manifest).unwrap();
    (folder, store)
}

#[test]
fn the_folder_comes_from_the_environment_in_order() {
    let root = |pairs: &[(&str, &str)]| {
        let vars: HashMap<_, _> = pairs.iter().copied().collect();
        default_root(|name| vars.get(name).map(PathBuf::from))
    };
    assert_eq!(root(&[]), None);
    assert_eq!(root(&[("HOME", "/h")]), Some("/h/.cache/inferno/models".into()));
    assert_eq!(root(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/inferno/models".into()));
    // The specification: relative values are invalid and to be ignored.
    assert_eq!(
        root(&[("HOME", "/h"), ("XDG_CACHE_HOME", "x")]),
        Some("/h/.cache/inferno/models".into())
    );
    assert_eq!(root(&[("HOME", "/h"), ("INFERNO_MODELS", "/m")]), Some("/m".into()));
}

#[test]
fn a_pulled_name_resolves_with_its_hash() {
    let (_folder, store) = store_with_abc();
    let model = store.resolve("abc").unwrap();
    assert_eq!((model.id.as_str(), model.sha256.as_deref()), ("abc", Some(SHA256_OF_ABC)));
    assert_eq!(model.path, store.path("abc.gguf"));
}

#[test]
fn a_path_resolves_with_and_without_a_manifest() {
    let (folder, store) = store_with_abc();
    let by_path = store.resolve(store.path("abc.gguf").to_str().unwrap()).unwrap();
    assert_eq!(by_path.sha256.as_deref(), Some(SHA256_OF_ABC));
    let other = folder.path().join("My Model (v2).GGUF");
    fs::write(&other, "x").unwrap();
    let model = store.resolve(other.to_str().unwrap()).unwrap();
    assert_eq!((model.id.as_str(), model.sha256), ("my-model--v2", None));
}

#[test]
fn unknown_names_are_answered_with_near_ones_and_missing_files_with_the_command() {
    let (_folder, store) = store_with_abc();
    let error = store.resolve("smollm2-135m-instruc").unwrap_err().to_string();
    assert!(error.contains("did you mean `smollm2-135m-instruct`?"), "{error}");
    assert!(error.contains("known: abc, all-minilm-l6-v2, smollm2-135m-instruct"), "{error}");
    let error = store.resolve("qqqq").unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
    let error = store.resolve("smollm2-135m-instruct").unwrap_err().to_string();
    assert!(error.contains("inferno model pull smollm2-135m-instruct"), "{error}");
    assert!(matches!(store.resolve("./nothing.gguf"), Err(StoreError::NoSuchFile { .. })));
}

#[test]
fn a_truncated_model_is_refused_at_once() {
    let (_folder, store) = store_with_abc();
    fs::write(store.path("abc.gguf"), "ab").unwrap();
    assert!(matches!(
        store.resolve("abc"),
        Err(StoreError::WrongSize { expected: 3, found: 2, .. })
    ));
    let file_name = CATALOGUE[0].file_name;
    fs::write(store.path(file_name), "short").unwrap();
    assert!(matches!(
        store.resolve(CATALOGUE[0].name),
        Err(StoreError::WrongSize { found: 5, .. })
    ));
}

#[test]
fn verify_detects_a_flipped_byte() {
    let (_folder, store) = store_with_abc();
    let mut seen = 0;
    assert!(store.verify("abc", &mut |bytes| seen = bytes).unwrap().is_ok());
    assert_eq!(seen, 3);
    fs::write(store.path("abc.gguf"), "abd").unwrap();
    let verification = store.verify("abc", &mut |_| {}).unwrap();
    assert!(!verification.is_ok());
    assert_eq!(verification.expected, SHA256_OF_ABC);
}

#[test]
fn a_catalogue_model_is_verified_against_the_catalogue_not_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let store = ModelStore::at(folder.path());
    let entry = &CATALOGUE[0];
    fs::write(store.path(entry.file_name), "abc").unwrap();
    let forged = Manifest {
        name: entry.name.into(),
        sha256: SHA256_OF_ABC.into(),
        bytes: 3,
        source: String::new(),
        pulled_at_unix_s: 0,
    };
    store.write_manifest(entry.file_name, &forged).unwrap();
    assert!(!store.verify(entry.name, &mut |_| {}).unwrap().is_ok());
}

#[test]
fn the_list_shows_each_state() {
    let (_folder, store) = store_with_abc();
    let state = |name: &str| {
        let models = store.list().unwrap();
        models.into_iter().find(|model| model.name == name).unwrap().state
    };
    assert_eq!(state("abc"), ModelState::Pulled);
    assert_eq!(state("smollm2-135m-instruct"), ModelState::Absent);
    fs::remove_file(store.path("abc.gguf.json")).unwrap();
    fs::write(store.path("abc.gguf.json"), "{").unwrap();
    assert!(matches!(state("abc"), ModelState::Damaged(_)));
    let file = File::create(store.path(CATALOGUE[0].file_name)).unwrap();
    file.set_len(CATALOGUE[0].bytes).unwrap();
    assert_eq!(state("smollm2-135m-instruct"), ModelState::Unchecked);
}

/// A directory model in the store, with a manifest under the name `encoder`.
fn store_with_folder() -> (TempDir, ModelStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ModelStore::at(folder.path());
    fs::create_dir_all(store.path("Encoder-v1.5/1_Pooling")).unwrap();
    fs::write(store.path("Encoder-v1.5/config.json"), "abc").unwrap();
    fs::write(store.path("Encoder-v1.5/1_Pooling/config.json"), "abc").unwrap();
    fs::write(store.path("Encoder-v1.5/README.md"), "not of the model").unwrap();
    let lines = format!("{SHA256_OF_ABC}  1_Pooling/config.json\n{SHA256_OF_ABC}  config.json\n");
    let listing = folder.path().join("listing.txt");
    fs::write(&listing, lines).unwrap();
    let manifest = Manifest {
        name: "encoder".into(),
        sha256: sha256_of(&listing, &mut |_| {}).unwrap(),
        bytes: 6,
        source: "a test".into(),
        pulled_at_unix_s: 0,
    };
    store.write_manifest("Encoder-v1.5", &manifest).unwrap();
    (folder, store)
}

#[test]
fn a_directory_resolves_by_name_and_by_path_and_is_hashed_by_its_list() {
    let (_folder, store) = store_with_folder();
    let named = store.resolve("encoder").unwrap();
    assert!(named.makes_embeddings() && named.sha256.is_some());
    for path in ["Encoder-v1.5", "Encoder-v1.5/"] {
        let by_path = store.resolve(store.path(path).to_str().unwrap()).unwrap();
        assert_eq!((by_path.id.as_str(), &by_path.sha256), ("encoder-v1.5", &named.sha256));
    }
    let mut seen = 0;
    let verification = store.verify("encoder", &mut |bytes| seen = bytes).unwrap();
    assert!(verification.is_ok(), "{verification:?}");
    assert_eq!(seen, 6);
    let listed = store.list().unwrap();
    let listed = listed.iter().find(|model| model.name == "encoder").unwrap();
    assert_eq!((&listed.state, listed.bytes), (&ModelState::Pulled, 6));
    fs::write(store.path("Encoder-v1.5/config.json"), "abd").unwrap();
    assert!(!store.verify("encoder", &mut |_| {}).unwrap().is_ok());
    fs::remove_file(store.path("Encoder-v1.5/1_Pooling/config.json")).unwrap();
    let short = store.resolve("encoder");
    assert!(matches!(short, Err(StoreError::WrongSize { expected: 6, found: 3, .. })));
    let (_other, files) = store_with_abc();
    assert!(!files.resolve("abc").unwrap().makes_embeddings());
}

#[test]
fn a_damaged_file_of_a_catalogue_directory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = ModelStore::at(folder.path());
    let entry = CATALOGUE.iter().find(|entry| !entry.files.is_empty()).unwrap();
    for file in entry.files {
        let path = store.path(entry.file_name).join(file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "abc").unwrap();
    }
    let verification = store.verify(entry.name, &mut |_| {}).unwrap();
    assert_eq!(verification.path, store.path(entry.file_name).join(entry.files[0].name));
    assert_eq!(
        (verification.expected.as_str(), verification.found.as_str()),
        (entry.files[0].sha256, SHA256_OF_ABC)
    );
}

#[test]
fn a_store_that_does_not_exist_yet_lists_the_catalogue() {
    let store = ModelStore::at("/nonexistent/inferno");
    assert_eq!(store.list().unwrap().len(), CATALOGUE.len());
}
