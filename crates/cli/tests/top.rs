//! `inferno top` and `status` against a real proxy, on a real pseudo-terminal and off one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde_json::Value;

/// A busy machine may take long; what takes longer than this does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A program on a terminal of 100 × 30, and what a person sees there.
struct Terminal {
    child: Child,
    master: File,
    /// Held open so that its settings can be looked at when the program is over.
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// Every byte that was written.
    written: Vec<u8>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("cloned"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        let master = File::from(pty.master);
        let output = bytes_of(master.try_clone().expect("cloned"));
        let screen = vt100::Parser::new(30, 100, 0);
        Self { child, master, slave: pty.slave, output, screen, written: Vec::new() }
    }

    /// Waits until the screen is so.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) {
        while !is_so(self.screen.screen()) {
            let bytes = self.output.recv_timeout(PATIENCE);
            let seen = self.screen.screen().contents();
            let bytes =
                bytes.unwrap_or_else(|_| panic!("never happened: {what}. On the screen:\n{seen}"));
            self.screen.process(&bytes);
            self.written.extend(bytes);
        }
    }

    fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |screen| screen.contents().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Waits until the program is stopped, as a shell does before it lets anybody continue it: a
    /// `SIGCONT` that comes before the stop is lost.
    fn wait_until_stopped(&self) {
        let state = waitid(Id::Pid(self.pid()), WaitPidFlag::WSTOPPED).expect("our child");
        assert!(matches!(state, WaitStatus::Stopped(..)), "{state:?}");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).expect("a terminal").local_flags.contains(LocalFlags::ICANON)
    }

    fn wait_for_the_shells_screen(&mut self) {
        self.wait_until("the shell's screen", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        });
    }

    /// Waits until the program is over and the terminal is as it was; gives the exit code.
    fn end(mut self) -> Option<i32> {
        self.wait_for_the_shells_screen();
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

/// Reads on a thread of its own, so that whoever waits can give up.
fn bytes_of(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn a_key_leaves_the_screen_and_gives_the_terminal_back() {
    let folder = folder();
    let proxy = Proxy::start(&folder);
    proxy.register("node-a");
    for (keys, code) in [("q", 0), ("\u{3}", 0), ("\u{1b}", 0)] {
        let mut top =
            Terminal::start(inferno(&folder, &["top", "--operations", &proxy.operations]));
        top.wait_for("the-proxy");
        top.wait_for("node-a");
        assert!(top.is_raw() && top.screen.screen().alternate_screen());
        top.press(keys);
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
    top.press("?");
    top.wait_for("this help");
    top.press("\u{1b}");
    top.wait_for("the-proxy");
    top.press("\u{1a}");
    top.wait_for_the_shells_screen();
    top.wait_until_stopped();
    assert!(!top.is_raw());
    top.signal(Signal::SIGCONT);
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
    top.wait_for("node-a");
    let stty = Command::new("stty")
        .args(["rows", "5", "cols", "20"])
        .stdin(Stdio::from(top.slave.try_clone().expect("cloned")))
        .status()
        .expect("stty runs");
    assert!(stty.success());
    top.screen.screen_mut().set_size(5, 20);
    top.signal(Signal::SIGWINCH);
    top.wait_until("a picture of 20 columns", |screen| {
        let lines: Vec<_> = screen.rows(0, 20).collect();
        lines[0].starts_with("the-proxy")
            && lines[2].starts_with("node-a")
            && lines[4].starts_with("q quit")
    });
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
    dumb.wait_until("two tables", |screen| screen.contents().matches("node-a").count() == 2);
    assert!(!dumb.written.contains(&0x1b), "{:?}", String::from_utf8_lossy(&dumb.written));

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
        let mut terminal = Terminal::start(command);
        terminal.wait_for("no backend has registered yet");
        terminal.written.contains(&0x1b)
    };
    assert!(on_terminal(false));
    assert!(!on_terminal(true));
}
