//! `inferno top` and `status` against a real proxy, on a real pseudo-terminal and off one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;

/// `inferno` with an environment of its own.
fn inferno(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inferno"));
    command.args(arguments).current_dir(folder.path()).env_clear();
    command
        .env("INFERNO_MODELS", folder.path())
        .env("TERM", "xterm-256color")
        .env("LANG", "C.UTF-8");
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A real proxy; killed when dropped.
struct Proxy {
    child: Child,
    operations: String,
}

impl Proxy {
    fn start(folder: &tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let operations = listener.local_addr().expect("bound");
        drop(listener);
        Self::start_at(folder, operations)
    }

    /// Returns when its operations server accepts connections.
    fn start_at(folder: &tempfile::TempDir, operations: SocketAddr) -> Self {
        let setting = format!("operations.addr={operations}");
        let arguments = [
            "proxy",
            "--set",
            "proxy.listen=127.0.0.1:0",
            "--set",
            &setting,
            "--set",
            "node.id=the-proxy",
        ];
        let child = inferno(folder, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        while TcpStream::connect(operations).is_err() {
            std::thread::yield_now();
        }
        Self { child, operations: operations.to_string() }
    }

    /// Registers a node that will never prove itself: it stays joining for its lease.
    fn register(&self, id: &str) {
        let body = format!(r#"{{"id":"{id}","address":"127.0.0.1:9","metrics_port":9}}"#);
        let mut stream = TcpStream::connect(&self.operations).expect("it listens");
        let request = format!(
            "POST /registration HTTP/1.1\r\nhost: p\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.contains("registered"), "{answer}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program on a terminal of 100 × 30.
struct Terminal {
    child: Child,
    master: File,
    /// Held open so that its settings can be looked at when the program is over.
    slave: std::os::fd::OwnedFd,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("cloned"));
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the program starts");
        Self { child, master: File::from(pty.master), slave: pty.slave, seen: String::new() }
    }

    /// Reads until `text` was written; gives all that was written up to there.
    fn wait_for(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                return self.seen.drain(..at + text.len()).collect();
            }
            let read = self.master.read(&mut buffer).expect("it writes");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal)
            .expect("it runs");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).expect("a terminal").local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits until the program is over and the terminal is as it was; gives the exit code.
    fn end(mut self) -> Option<i32> {
        self.wait_for("\u{1b}[?1049l");
        self.wait_for("\u{1b}[?25h");
        let code = self.child.wait().expect("it ends").code();
        assert!(!self.is_raw(), "the terminal was left raw");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_key_leaves_the_screen_and_gives_the_terminal_back() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    proxy.register("node-a");
    for (keys, code) in [("q", 0), ("\u{3}", 0), ("?\u{1b}", 0)] {
        let mut top =
            Terminal::start(inferno(&folder, &["top", "--operations", &proxy.operations]));
        top.wait_for("\u{1b}[?1049h");
        top.wait_for("the-proxy");
        top.wait_for("node-a");
        assert!(top.is_raw());
        top.press(keys);
        if keys.starts_with('?') {
            top.wait_for("this help");
            // Escape closed the help; the second one leaves.
            top.wait_for("node-a");
            top.press("\u{1b}");
        }
        assert_eq!(top.end(), Some(code), "{keys:?}");
    }
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top =
            Terminal::start(inferno(&folder, &["top", "--operations", &proxy.operations]));
        top.wait_for("the-proxy");
        top.signal(signal);
        assert_eq!(top.end(), Some(130), "{signal}");
    }
}

#[test]
fn suspended_it_leaves_the_terminal_and_comes_back_with_everything() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    let mut top = Terminal::start(inferno(&folder, &["top", "--operations", &proxy.operations]));
    top.wait_for("the-proxy");
    top.press("\u{1a}");
    top.wait_for("\u{1b}[?1049l");
    top.signal(Signal::SIGCONT);
    top.wait_for("\u{1b}[?1049h");
    top.wait_for("the-proxy");
    assert!(top.is_raw());
    top.press("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn a_proxy_that_goes_away_is_missed_and_found_again() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    let operations: SocketAddr = proxy.operations.parse().expect("an address");
    let arguments = ["top", "--interval", "0.1", "--operations", &proxy.operations];
    let mut top = Terminal::start(inferno(&folder, &arguments));
    top.wait_for("healthy");
    drop(proxy);
    top.wait_for("no answer for");
    let _again = Proxy::start_at(&folder, operations);
    top.wait_for("healthy");
    top.press("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn a_new_size_is_a_new_picture() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    proxy.register("node-a");
    let mut top = Terminal::start(inferno(&folder, &["top", "--operations", &proxy.operations]));
    top.wait_for("IN FLIGHT");
    let stty = Command::new("stty")
        .args(["rows", "5", "cols", "20"])
        .stdin(Stdio::from(top.slave.try_clone().expect("cloned")))
        .status()
        .expect("stty runs");
    assert!(stty.success());
    top.signal(Signal::SIGWINCH);
    top.wait_for("the-proxy");
    top.press("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn without_a_screen_it_prints_lines() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    proxy.register("node-a");
    let arguments = ["top", "--interval", "0.1", "--operations", &proxy.operations];
    let mut dumb = inferno(&folder, &arguments);
    dumb.env("TERM", "dumb").env("NO_COLOR", "1");
    let mut dumb = Terminal::start(dumb);
    let printed = dumb.wait_for("node-a") + &dumb.wait_for("node-a");
    assert!(!printed.contains('\u{1b}'), "{printed:?}");

    let mut piped = inferno(&folder, &arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(piped.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take(12).collect();
    piped.kill().expect("killed");
    piped.wait().expect("over");
    let nodes = lines.iter().filter(|line| line.starts_with("node-a")).count();
    assert!(nodes >= 2 && !lines.concat().contains('\u{1b}'), "{lines:#?}");
}

#[test]
fn json_is_one_object_a_line_for_both() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    proxy.register("node-a");
    let mut arguments =
        vec!["top", "--json", "--interval", "0.1", "--operations", &proxy.operations];
    let mut top = inferno(&folder, &arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(top.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let reports: Vec<Value> =
        lines.take(2).map(|line| serde_json::from_str(&line).expect("JSON")).collect();
    top.kill().expect("killed");
    top.wait().expect("over");
    assert!(reports[1]["at_unix_ms"].as_u64() > reports[0]["at_unix_ms"].as_u64());
    arguments.drain(2..4);
    arguments[0] = "status";
    let status = inferno(&folder, &arguments).output().expect("it runs");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    for report in [&reports[0], &status] {
        assert_eq!(report["nodes"][0]["id"], "node-a");
        assert_eq!(report["proxies"][0]["vitals"]["node_id"], "the-proxy");
        assert_eq!(report["totals"]["ready"], 0);
    }
}

#[test]
fn status_waits_for_what_is_wanted_and_fails_without_it() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    let status = |more: &[&str]| {
        let mut arguments = vec!["status", "--operations", &proxy.operations];
        arguments.extend(more);
        inferno(&folder, &arguments).output().expect("it runs")
    };
    assert_eq!(status(&[]).status.code(), Some(0));
    let none = status(&["--ready"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("0 of 1 wanted backends are ready"));
    assert_eq!(status(&["--ready=0", "--wait", "60"]).status.code(), Some(0));
    assert_eq!(status(&["--operations", "nonsense"]).status.code(), Some(2));
}

#[test]
fn colours_are_for_terminals_and_for_whoever_asks() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    let output = |more: &[&str], no_color: bool| {
        let mut arguments = vec!["status", "--operations", &proxy.operations];
        arguments.extend(more);
        let mut command = inferno(&folder, &arguments);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        String::from_utf8(command.output().expect("it runs").stdout).expect("UTF-8")
    };
    assert!(!output(&[], false).contains('\u{1b}'));
    assert!(output(&["--color", "always"], false).contains('\u{1b}'));
    assert!(output(&["--color", "always"], true).contains('\u{1b}'));
    assert!(!output(&["--color", "never"], false).contains('\u{1b}'));

    let on_terminal = |no_color: bool| {
        let mut command = inferno(&folder, &["status", "--operations", &proxy.operations]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        Terminal::start(command).wait_for("no backend has registered yet")
    };
    assert!(on_terminal(false).contains('\u{1b}'));
    assert!(!on_terminal(true).contains('\u{1b}'));
}
