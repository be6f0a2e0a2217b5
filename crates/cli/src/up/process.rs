//! One child process: its output goes to a sink line by line, its end to a channel.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

/// Gets each line of a child's output.
pub(super) type Sink = Rc<dyn Fn(&str)>;

/// A child ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// Its number in the fleet.
    pub(super) process: usize,
    pub(super) status: io::Result<ExitStatus>,
}

/// A running child. Dropping this ends its standard input, and with that the child.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    signals: UnboundedSender<Signal>,
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts `program` in a process group of its own.
    pub(super) fn start(
        program: &OsStr,
        arguments: &[String],
        process: usize,
        sink: &Sink,
        exits: UnboundedSender<Exit>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let stdin = child.stdin.take();
        let stdout =
            child.stdout.take().map(|output| spawn_local(forward(output, Rc::clone(sink))));
        let stderr =
            child.stderr.take().map(|output| spawn_local(forward(output, Rc::clone(sink))));
        let (signals, inbox) = unbounded_channel();
        spawn_local(async move {
            let status = attend(child, inbox).await;
            // Its last words come before the news of its end.
            for output in [stdout, stderr].into_iter().flatten() {
                output.await.ok();
            }
            // Nobody listens any more only when we are leaving ourselves.
            exits.send(Exit { process, status }).ok();
        });
        Ok(Self { pid, signals, _stdin: stdin })
    }

    /// Asks it to finish what it has and leave.
    pub(super) fn terminate(&self) {
        self.signals.send(Signal::SIGTERM).ok();
    }

    /// Ends it now.
    pub(super) fn kill(&self) {
        self.signals.send(Signal::SIGKILL).ok();
    }
}

/// Waits for the child's end and passes signals on. Only this task reaps the child, so its pid is
/// its own whenever a signal is sent.
async fn attend(
    mut child: Child,
    mut signals: UnboundedReceiver<Signal>,
) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            Some(signal) = signals.recv() => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    // It can only be gone already; then `wait` says so.
                    kill(Pid::from_raw(pid), signal).ok();
                }
            }
        }
    }
}

async fn forward(output: impl AsyncRead + Unpin, sink: Sink) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(output.read_until(b'\n', &mut line).await, Ok(1..)) {
        sink(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
