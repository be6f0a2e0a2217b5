//! Secrets come as they are, through every path, and are shown through none.

use super::*;
use crate::registration::secrets::{SecretSource, Secrets};

/// What a guessing reader would take for a number, a switch, a list, and a quotation.
const AWKWARD: &[&str] = &["0123", "true", "[x]", "\"q\"", "a,b", "=", "1e5", "'"];

fn first(config: &Config) -> String {
    let secrets = Secrets::load(&config.registration.secret_sources()).expect("usable");
    secrets.first().expect("one").to_owned()
}

/// A file `name` with `content`, in a folder of its own.
fn file(content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("secret");
    std::fs::write(&path, content).expect("written");
    let path = path.display().to_string();
    (dir, path)
}

#[test]
fn a_secret_arrives_as_it_is_by_every_path() {
    for secret in AWKWARD {
        let quoted = serde_json::to_string(secret).expect("quoted");
        let (_dir, path) = file(&format!("{secret}\n"));
        let configs = [
            load(&[("INFERNO_REGISTRATION__SECRET", secret)], &[], None),
            load(&[], &[&format!("registration.secret={secret}")], None),
            load(&[], &[], Some(&format!("[registration]\nsecret = {quoted}"))),
            load(&[("INFERNO_REGISTRATION__SECRET_FILE", &path)], &[], None),
            load(&[], &[&format!("registration.secret_file={path}")], None),
            load(&[], &[], Some(&format!("[registration]\nsecret_file = \"{path}\""))),
            load(&[], &[&format!("registration.secret_files={path}")], None),
        ];
        for (way, config) in configs.into_iter().enumerate() {
            let config = config.unwrap_or_else(|error| panic!("{secret}, way {way}: {error}"));
            assert_eq!(first(&config), *secret, "way {way}");
            let sources = config.registration.secret_sources();
            let shown = format!("{config:?} {sources:?} {}", layers::json(&config));
            assert!(secret.len() < 3 || !shown.contains(&format!("\"{secret}\"")), "{shown}");
            if way < 6 {
                let typed = config.registration.secret.as_ref().map(Secret::expose);
                assert_eq!(typed, Some(*secret), "the twin gives its key the value, way {way}");
            }
        }
    }
}

#[test]
fn a_secret_file_is_read_again_when_it_changes() {
    let (_dir, path) = file("one\r\n");
    let config = load(&[], &[&format!("registration.secret_file={path}")], None).expect("read");
    let source = SecretSource::File("registration.secret_file", path.clone().into());
    assert_eq!(config.registration.secret_sources(), [source]);
    assert_eq!(first(&config), "one");
    std::fs::write(&path, "two").expect("written");
    assert_eq!(first(&config), "two");
}

#[test]
fn only_one_line_break_is_taken_from_a_file() {
    for (content, secret) in
        [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), (" a ", " a ")]
    {
        let (_dir, path) = file(content);
        let config = load(&[], &[&format!("registration.secret_file={path}")], None).expect("read");
        assert_eq!(config.registration.secret.as_ref().map(Secret::expose), Some(secret));
    }
}

#[test]
fn a_secret_and_its_file_are_one_too_many() {
    let (_dir, path) = file("hunter2");
    let pairs = [("INFERNO_REGISTRATION__SECRET_FILE", path.as_str())];
    let said = error(&pairs, &["registration.secret=hunter3"], None);
    assert_says(&said, &["--set registration.secret", "INFERNO_REGISTRATION__SECRET_FILE"]);
    assert!(!said.contains("hunter"), "{said}");
    let files = format!("registration.secret_files={path}");
    let said = error(&[], &["registration.secret=x", &files], None);
    assert_says(&said, &["registration.secret and registration.secret_files"]);
    let said = error(&pairs, &[&files], None);
    assert_says(&said, &["registration.secret_file and registration.secret_files"]);
    // An empty variable takes the file of a lower layer back.
    let lower = format!("[registration]\nsecret_file = \"{path}\"");
    let empty = [("INFERNO_REGISTRATION__SECRET_FILE", "")];
    let config = load(&empty, &["registration.secret=x"], Some(&lower)).expect("one secret");
    assert_eq!(first(&config), "x");
}

#[test]
fn a_secret_file_that_cannot_be_used_is_named() {
    let (_dir, path) = file("\n");
    let of = |path: &str| error(&[("INFERNO_REGISTRATION__SECRET_FILE", path)], &[], None);
    assert_says(&of(&path), &["INFERNO_REGISTRATION__SECRET_FILE: ", &path, "is empty"]);
    assert_says(&of("/nonexistent/secret"), &["cannot read /nonexistent/secret: No such file"]);
}

#[test]
fn no_error_shows_a_secret() {
    for (file, set) in [
        (Some("[registration]\nsecret = hunter2"), None),
        (Some("[registration]\nsecret = [\"hunter2\"]"), None),
        (Some("[registration]\nsecret = \"hunter2"), None),
        (None, Some("registration.secrets=hunter2")),
    ] {
        let error = error(&[], set.as_slice(), file);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let args = args(None, &["registration.secret=hunter2"]);
    assert!(!format!("{args:?}").contains("hunter2"));
    let settings = Config::settings(&args, variables(&[])).expect("valid");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let shown = settings.iter().find(|setting| setting.key.name == "registration.secret");
    assert_eq!(shown.and_then(|setting| setting.value.clone()), Some(HIDDEN.into()));
}
