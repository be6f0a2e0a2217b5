//! `inferno up` with real processes, as far as that goes without a model: the proxy runs, and the
//! backend's file is no model, so it never gets ready. What needs a model is tested with one, in
//! the workspace's `tests`.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A running `inferno up --json`, killed when the test is over.
struct Up {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    operations: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("no.gguf"), "not a model").expect("a file");
        let operations = free_address();
        let mut child = Command::new(env!("CARGO_BIN_EXE_inferno"))
            .args(["up", "--json", "--backends", "1", "--model", "./no.gguf"])
            .args(["--listen", "127.0.0.1:0", "--operations", &operations.to_string()])
            .current_dir(folder.path())
            .env_clear()
            .env("INFERNO_MODELS", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let events = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, events, operations, _folder: folder }
    }

    /// The next event of this name; those before it are passed over.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.events.next().expect("events go on").expect("UTF-8");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["event"] == name {
                return event;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it can be waited for").code()
    }

    /// A connection to the proxy's operations server, as soon as it listens.
    fn connect(&self) -> TcpStream {
        loop {
            match TcpStream::connect(self.operations) {
                Ok(stream) => return stream,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Waits until no process listens on the operations port any more.
    fn wait_until_gone(&self) {
        while TcpStream::connect(self.operations).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

#[test]
fn a_backend_that_never_gets_ready_is_restarted_and_then_given_up() {
    let mut up = Up::start();
    for delay_ms in [500, 1000, 2000, 4000] {
        let exited = up.event("exited");
        assert_eq!(exited["process"], "backend-1");
        assert_eq!(exited["restart_in_ms"], delay_ms);
        assert_eq!(up.event("restarted")["process"], "backend-1");
    }
    assert_eq!(up.event("exited")["restart_in_ms"], Value::Null);
    assert_eq!(up.event("gave_up")["process"], "backend-1");
    up.event("stopped");
    assert_eq!(up.exit_code(), Some(1));
    up.wait_until_gone();
}

#[test]
fn a_signal_stops_everything_and_is_a_success() {
    let mut up = Up::start();
    drop(up.connect());
    up.signal(Signal::SIGTERM);
    assert!(up.event("stopping")["timeout_ms"].as_u64() > Some(0));
    up.event("stopped");
    assert_eq!(up.exit_code(), Some(0));
    up.wait_until_gone();
}

#[test]
fn the_proxy_is_restarted_when_it_is_killed() {
    let mut up = Up::start();
    let pid = up.event("started")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    drop(up.connect());
    kill(Pid::from_raw(pid.expect("a pid")), Signal::SIGKILL).expect("it runs");
    let restarted = loop {
        let event = up.event("restarted");
        if event["process"] == "proxy" {
            break event;
        }
    };
    assert_eq!(restarted["restarts"], 1);
    drop(up.connect());
}

#[test]
fn no_process_outlives_us_even_if_we_are_killed() {
    let mut up = Up::start();
    let mut connection = up.connect();
    up.signal(Signal::SIGKILL);
    up.exit_code();
    // The other end closes, in order or not.
    connection.read_to_end(&mut Vec::new()).ok();
    up.wait_until_gone();
}
