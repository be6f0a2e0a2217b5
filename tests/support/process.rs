//! One running program: its log, its addresses, its end.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

/// Lines a process has written to standard error, and whether it can write more.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    closed: bool,
}

/// A process of ours; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

impl Process {
    /// Starts `command`, keeping what it logs.
    pub fn start(name: &str, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
        let stderr = child.stderr.take().expect("piped");
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.0.lock().expect("log").lines.push(line);
                writer.1.notify_all();
            }
            writer.0.lock().expect("log").closed = true;
            writer.1.notify_all();
        });
        Self { name: name.into(), child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line, written in JSON, with that message, and gives it.
    pub fn wait_for_event(&self, message: &str) -> Value {
        let (log, changed) = &*self.log;
        let mut log = log.lock().expect("log");
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            let events =
                log.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(event) = events.into_iter().find(|event| event["message"] == message) {
                return event;
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            assert!(
                !log.closed && !patience.is_zero(),
                "{}: no `{message}`:\n{}",
                self.name,
                log.lines.join("\n")
            );
            log = changed.wait_timeout(log, patience).expect("log").0;
        }
    }

    /// Waits for a log line that holds `text`, whatever its form.
    pub fn wait_for_text(&self, text: &str) {
        self.wait_for_count(text, 1);
    }

    /// Waits until `count` log lines hold `text`.
    pub fn wait_for_count(&self, text: &str, count: usize) {
        let (log, changed) = &*self.log;
        let mut log = log.lock().expect("log");
        let deadline = Instant::now() + crate::PATIENCE;
        while log.lines.iter().filter(|line| line.contains(text)).count() < count {
            let patience = deadline.saturating_duration_since(Instant::now());
            assert!(
                !log.closed && !patience.is_zero(),
                "{}: no `{text}`:\n{}",
                self.name,
                log.lines.join("\n")
            );
            log = changed.wait_timeout(log, patience).expect("log").0;
        }
    }

    /// Everything it logged so far, also while a test fails that holds the log.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// Waits until it can log no more: it has ended, and its last line was read.
    pub fn wait_for_end_of_log(&self) {
        let (log, changed) = &*self.log;
        let open = |log: &mut Log| !log.closed;
        let waited = changed.wait_timeout_while(log.lock().expect("log"), crate::PATIENCE, open);
        assert!(waited.expect("log").0.closed, "{} still logs", self.name);
    }

    /// Takes its standard output, if it was piped.
    pub fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.stdout.take().expect("piped"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("it lives");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            // Captured by the test runner, shown with the failure.
            #[expect(clippy::print_stderr, reason = "the log of a failed test")]
            {
                eprintln!("--- {}:\n{}", self.name, tail.join("\n"));
            }
        }
    }
}

/// An address in a log event's field.
pub fn address(event: &Value, field: &str) -> SocketAddr {
    event[field]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no `{field}` in {event}"))
}
