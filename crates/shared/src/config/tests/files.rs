//! Configuration files.

use super::*;

fn named(path: &Path) -> Result<Config, ConfigError> {
    Config::from_sources(&args(Some(path), &[]), variables(&[]))
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing.toml");
    let text = named(&missing).expect_err("missing").to_string();
    assert_says(&text, &["cannot read", &missing.display().to_string(), "No such file"]);
    let text = named(dir.path()).expect_err("a directory").to_string();
    assert_says(&text, &[&dir.path().display().to_string(), "Is a directory"]);
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).expect("written");
    let text = named(&binary).expect_err("not text").to_string();
    assert_says(&text, &["binary.toml", "UTF-8"]);
}

#[test]
fn an_empty_name_is_no_name() {
    // As `INFERNO_CONFIG=` gives it: the default files are read, of which there are none here.
    let args = ConfigArgs { config: Some("".into()), set: Vec::new() };
    assert!(Config::from_sources(&args, variables(&[])).is_ok());
}

#[test]
fn a_mistake_in_a_file_names_line_and_key() {
    for (text, says) in [
        ("[proxy]\nlisten = 8080", &["inferno.toml:2: proxy.listen: is a number", "IP:PORT"][..]),
        ("\n[log]\nlevel = true", &["inferno.toml:3: log.level: is true or false"]),
        ("backend.threads = 1.5", &["inferno.toml:1: backend.threads: must be a whole number"]),
        ("backend.threads = -1", &["inferno.toml:1: backend.threads: is out of range"]),
        ("backend.threads = \"4\"", &["backend.threads: is text; write a whole number"]),
        ("backend.proxies = \"p:1\"", &["backend.proxies: is text; write a list"]),
        ("backend.proxies = [1]", &["backend.proxies: is a number", "HOST:PORT"]),
        ("[[backend.proxies]]\nx = 1", &["backend.proxies: is a list of tables"]),
        ("operations.enable_metrics = \"true\"", &["is text; write true or false"]),
        ("[backend]\nmodel = 2024-01-01", &["backend.model: is a date"]),
        ("backend.proxies = [{ host = \"p\" }]", &["backend.proxies: has a table"]),
        ("[proxy]\nlisten = \"a\"\n\nlisten = \"b\"", &["inferno.toml:4: ", "duplicate key"]),
        ("[proxy]\nlisten = ", &["inferno.toml:2: "]),
        ("proxy.timeouts = { idle = 5 }", &["inferno.toml:1", "`proxy.timeouts.idle_ms`"]),
    ] {
        let error = error(&[], &[], Some(text));
        assert_says(&error, says);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
