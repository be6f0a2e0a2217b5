//! `inferno config`, the sample file and the ports, as a person and a script meet them.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

/// `inferno` with an environment of its own, in a folder of its own.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inferno"));
    command
        .args(arguments)
        .env_clear()
        .env("INFERNO_MODELS", folder)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().expect("it was not killed"), text(&stdout), text(&stderr))
}

fn inferno(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(&mut command(folder, arguments))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn sample() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../inferno.toml")
}

#[test]
fn show_prints_values_with_their_origin_and_hides_secrets() {
    let folder = folder();
    std::fs::write(folder.path().join("inferno.toml"), "[proxy]\nlisten = \"127.0.0.1:1\"")
        .expect("written");
    let mut show = command(folder.path(), &["config", "show", "--set", "node.id=n"]);
    let (code, out, _) = run(show.env("INFERNO_REGISTRATION__SECRET", "hunter2"));
    assert_eq!(code, 0);
    let row = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).expect("a row");
        line.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(row("proxy.listen "), ["proxy.listen", "127.0.0.1:1", "inferno.toml:2"]);
    assert_eq!(row("node.id "), ["node.id", "n", "--set"]);
    assert_eq!(
        row("registration.secret "),
        ["registration.secret", "hidden", "INFERNO_REGISTRATION__SECRET"]
    );
    assert_eq!(row("backend.queue_max "), ["backend.queue_max", "1024", "default"]);
    assert!(!out.contains("hunter2") && !out.contains('\u{1b}'), "{out}");
}

#[test]
fn show_can_be_narrowed_and_read_by_a_program() {
    let folder = folder();
    let set = ["--set", "proxy.timeouts.idle_ms=5", "--set", "backend.proxies=a:1,b:2"];
    let with = |arguments: &[&str]| {
        let (code, out, error) =
            inferno(folder.path(), &[&["config", "show"], arguments, &set].concat());
        assert_eq!(code, 0, "{error}");
        out
    };
    assert_eq!(with(&["--changed"]).lines().count(), 3, "two keys, one of them with two items");
    let timeouts = with(&["proxy.timeouts", "proxy.listen"]);
    assert!(
        timeouts.lines().all(|line| line.starts_with("proxy.")) && timeouts.contains("idle_ms")
    );
    let json: serde_json::Value = serde_json::from_str(&with(&["--json"])).expect("JSON");
    assert_eq!(json["proxy.timeouts.idle_ms"]["value"], 5);
    assert_eq!(json["backend.proxies"]["value"][1], "b:2");
    assert_eq!(json["backend.proxies"]["origin"], "--set");
    assert_eq!(json["backend.threads"]["value"], serde_json::Value::Null);
    let (code, _, error) = inferno(folder.path(), &["config", "show", "proxy.timeout"]);
    assert_eq!(code, 1);
    assert!(error.contains("did you mean `proxy.timeouts`?"), "{error}");
}

#[test]
fn check_lists_everything_that_a_start_would_refuse() {
    let folder = folder();
    let (code, out, _) = inferno(folder.path(), &["config", "check"]);
    assert_eq!(code, 0);
    assert!(out.contains("the configuration is valid; 0 keys differ"), "{out}");
    assert!(out.contains("note: a backend would not start here"), "no model: {out}");
    let mut wrong = command(folder.path(), &["config", "check", "--set", "proxy.listn=x"]);
    let (code, out, error) = run(wrong.env("INFERNO_LOGG", "info"));
    assert_eq!((code, out.lines().count()), (1, 2), "{out}");
    assert!(out.contains("`INFERNO_LOG`") && out.contains("`proxy.listen`"), "{out}");
    assert!(error.contains("2 problems"), "{error}");
    let settings = [
        "operations.addr=0.0.0.0:6100",
        "proxy.tls.cert_file=/nonexistent/cert",
        "proxy.tls.key_file=/nonexistent/key",
        "operations.tls.key_file=/nonexistent/key",
        "backend.device=cuda:0",
        "backend.proxies=192.0.2.1:6100",
    ];
    let mut arguments = vec!["config", "check"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let (code, out, _) = inferno(folder.path(), &arguments);
    assert_eq!(code, 1);
    for problem in [
        "registration has no secret",
        "proxy.tls.cert_file: /nonexistent/cert",
        "operations.tls.key_file: is of no use without operations.tls.cert_file",
        "without CUDA",
        "backend.listen is 127.0.0.1:8080, which the proxy 192.0.2.1:6100",
    ] {
        assert!(out.contains(problem), "{problem} is missing in {out}");
    }
    let settings = ["--set", "registration.secret_files=/nonexistent/secret"];
    let (code, out, _) = inferno(folder.path(), &[&["config", "check"], &settings[..]].concat());
    assert_eq!(code, 1);
    assert!(out.contains("registration.secret_files: cannot read /nonexistent/secret"), "{out}");
}

/// Starts a proxy on free ports with `command`'s configuration and stops it once it is ready; what
/// it logged.
fn start_proxy(command: &mut Command) -> String {
    let free = ["--set", "proxy.listen=127.0.0.1:0", "--set", "log.format=human"];
    let mut child = command.args(free).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("piped"));
    while lines.read_line(&mut log).expect("text") > 0 && !log.contains("proxy ready") {}
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    assert!(log.contains("proxy ready"), "{log}");
    log
}

#[test]
fn the_shipped_file_starts_a_proxy() {
    let folder = folder();
    std::fs::copy(sample(), folder.path().join("inferno.toml")).expect("copied");
    start_proxy(&mut command(folder.path(), &["proxy", "--set", "operations.addr=127.0.0.1:0"]));
    let (_, out, _) = inferno(folder.path(), &["config", "show", "--changed"]);
    assert_eq!(out, "", "in a clone it is one of the default layers, and changes nothing");
}

#[test]
fn the_old_variable_still_says_where_operations_are_and_the_log_asks_to_rename_it() {
    let folder = folder();
    let mut proxy = command(folder.path(), &["proxy"]);
    let log = start_proxy(proxy.env("INFERNO_METRICS_ADDR", "127.0.0.1:0"));
    let warning =
        log.lines().find(|line| line.contains("INFERNO_METRICS_ADDR")).expect("a warning");
    assert!(warning.contains("WARN") && warning.contains("INFERNO_OPERATIONS_ADDR"), "{warning}");
    assert!(!log.contains("operations=127.0.0.1:6100"), "{log}");
}

#[test]
fn both_programs_have_their_operations_on_one_port() {
    let folder = folder();
    let (_, out, _) = inferno(folder.path(), &["config", "show", "operations.addr"]);
    assert!(out.contains("127.0.0.1:6100") && out.contains("default"), "{out}");
    let (_, out, _) = inferno(folder.path(), &["config", "show"]);
    assert!(!out.contains("9090") && !out.contains("9091"), "{out}");
}

#[test]
fn a_taken_port_names_key_variable_and_holder_in_both_programs() {
    let folder = folder();
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("bound").to_string();
    for (program, key, variable) in [
        ("proxy", "proxy.listen", "INFERNO_PROXY__LISTEN"),
        ("proxy", "operations.addr", "INFERNO_OPERATIONS__ADDR"),
        ("backend", "backend.listen", "INFERNO_BACKEND__LISTEN"),
        ("backend", "operations.addr", "INFERNO_OPERATIONS__ADDR"),
    ] {
        let ports = ["proxy.listen", "backend.listen", "operations.addr"].map(|name| {
            let address = if name == key { &address } else { "127.0.0.1:0" };
            format!("{name}={address}")
        });
        let mut arguments = vec![program];
        arguments.extend(ports.iter().flat_map(|port| ["--set", port]));
        let (code, _, error) = inferno(folder.path(), &arguments);
        assert_eq!(code, 1, "{program}: {error}");
        for text in [&address, key, variable, &format!("(pid {})", std::process::id())] {
            assert!(error.contains(text), "{program}: {text} is missing in {error}");
        }
    }
}

#[test]
fn up_refuses_tls_that_it_could_not_speak_to() {
    let folder = folder();
    let arguments = ["up", "--set", "proxy.tls.cert_file=c", "--set", "proxy.tls.key_file=k"];
    let (code, _, error) = inferno(folder.path(), &arguments);
    assert_eq!(code, 1);
    assert!(error.contains("--set proxy.tls.cert_file="), "{error}");
}
