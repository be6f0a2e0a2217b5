//! `inferno key`, as a person and a script meet it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// `inferno` with an environment of its own, in `folder`: exit code, output, errors.
fn inferno(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inferno"));
    command.args(arguments).env_clear().current_dir(folder).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().expect("it was not killed"), text(&stdout), text(&stderr))
}

/// The output of a command that is to succeed.
fn done(folder: &Path, arguments: &[&str]) -> (String, String) {
    let (code, out, error) = inferno(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    (out, error)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

const FILE: [&str; 2] = ["--file", "keys.toml"];

#[test]
fn a_key_is_printed_alone_and_once() {
    let folder = folder();
    let (key, hints) = done(folder.path(), &["key", "create", "mobile app", FILE[0], FILE[1]]);
    let key = key.strip_suffix('\n').expect("one line");
    assert!(key.starts_with("inf_") && key.len() == 56 && !key.contains('\n'), "{key}");
    for hint in ["keys.pepper", "only time", "authorization: Bearer KEY", "SIGHUP", &key[4..12]] {
        assert!(hints.contains(hint), "{hint} is missing in {hints}");
    }
    let secret = &key[13..];
    assert!(!hints.contains(secret), "{hints}");
    for name in ["keys.toml", "keys.pepper"] {
        let path = folder.path().join(name);
        assert!(!fs::read_to_string(&path).expect("text").contains(secret), "{name}");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (list, _) = done(folder.path(), &["key", "list", FILE[0], FILE[1]]);
    assert!(list.contains(&key[4..12]) && list.contains("mobile app"), "{list}");
    assert!(list.contains("1 key in keys.toml") && !list.contains(secret), "{list}");
}

#[test]
fn keys_are_listed_as_objects_and_revoked_by_name_or_id() {
    let folder = folder();
    let run = |arguments: &[&str]| {
        let (out, _) = done(folder.path(), &[&["key"], arguments, &FILE, &["--json"]].concat());
        serde_json::from_str::<Value>(&out).expect("JSON")
    };
    let one = run(&["create", "one", "--models", "m,org/n", "--expires", "2099-01-31"]);
    let two = run(&["create", "two", "--expires", "12h"]);
    assert!(one["key"].as_str().expect("text").starts_with("inf_"));
    assert_eq!((&one["name"], &one["state"]), (&"one".into(), &"usable".into()));
    assert_eq!(one["models"], serde_json::json!(["m", "org/n"]));
    assert_eq!((&one["expires"], &two["models"]), (&"2099-01-31T00:00:00Z".into(), &Value::Null));
    assert_eq!(run(&["revoke", "one"])["id"], one["id"]);
    assert_eq!(run(&["revoke", two["id"].as_str().expect("text")])["name"], "two");
    let list = run(&["list"]);
    assert_eq!((&list["file"], &list["pepper_file"]), (&FILE[1].into(), &"keys.pepper".into()));
    let keys = list["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert_eq!(key["state"], "revoked");
        assert!(key["revoked"].is_string() && key.get("key").is_none(), "{key}");
    }
}

#[test]
fn the_configuration_says_which_file_it_is() {
    let folder = folder();
    let (code, _, error) = inferno(folder.path(), &["key", "list"]);
    assert_eq!(code, 1);
    assert!(error.contains("--file FILE") && error.contains("proxy.keys_file"), "{error}");
    fs::write(folder.path().join("inferno.toml"), "[proxy]\nkeys_file = \"ours.toml\"")
        .expect("written");
    let (code, _, error) = inferno(folder.path(), &["key", "list"]);
    assert_eq!(code, 1);
    assert!(error.contains("cannot read ours.toml"), "{error}");
    done(folder.path(), &["key", "create", "n"]);
    assert!(done(folder.path(), &["key", "list"]).0.contains("1 key in ours.toml"));
}

#[test]
fn mistakes_are_told_by_an_exit_code_and_a_sentence() {
    let folder = folder();
    done(folder.path(), &["key", "create", "n", FILE[0], FILE[1]]);
    for (arguments, code, text) in [
        (&["create", "n"][..], 1, "has the name `n`"),
        (&["create", ""], 1, "a name has 1 to 64 characters"),
        (&["revoke", "nobody"], 1, "there is no key `nobody` in keys.toml"),
        (&["create", "a", "--models", ""], 1, "models has 1 to 256 names"),
        (&["create", "a", "--expires", "soon"], 2, "`soon` is not like 90d"),
        (&["create", "a", "--expires", "2020-01-01"], 2, "2020-01-01T00:00:00Z is over"),
        (&["create"], 2, "<NAME>"),
    ] {
        let (found, out, error) = inferno(folder.path(), &[&["key"], arguments, &FILE].concat());
        assert_eq!((found, out.as_str()), (code, ""), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
    let nowhere = ["key", "create", "n", "--file", "no/keys.toml"];
    let (code, _, error) = inferno(folder.path(), &nowhere);
    assert_eq!(code, 1);
    assert!(error.contains("cannot open the folder no") && error.contains("make it"), "{error}");
}

#[test]
fn config_check_reads_the_keys_file_and_warns_where_there_is_none() {
    let folder = folder();
    let check = |more: &[&str]| inferno(folder.path(), &[&["config", "check"], more].concat());
    let open = ["--set", "proxy.listen=0.0.0.0:8080"];
    let (code, out, _) = check(&open);
    assert_eq!(code, 0);
    assert!(out.contains("note: proxy.listen is 0.0.0.0:8080 and proxy.keys_file is not"), "{out}");
    let keyed = [&open[..], &["--set", "proxy.keys_file=keys.toml"]].concat();
    let (code, out, _) = check(&keyed);
    assert_eq!(code, 1);
    assert!(out.contains("problem: proxy.keys_file: cannot read keys.toml"), "{out}");
    done(folder.path(), &["key", "create", "n", FILE[0], FILE[1]]);
    let (code, out, _) = check(&keyed);
    assert_eq!((code, out.contains("whoever")), (0, false), "{out}");
    let path = folder.path().join("keys.toml");
    let text = fs::read_to_string(&path).expect("text");
    fs::write(&path, text.replace("name =", "nam =")).expect("written");
    let (code, out, _) = check(&keyed);
    assert_eq!(code, 1);
    assert!(out.contains("unknown field `nam`; did you mean `name`?"), "{out}");
}
