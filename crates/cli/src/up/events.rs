//! What `up` tells: for people on a terminal, or one JSON object a line for programs. Events go to
//! standard output, the processes' own lines to standard error.

use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::welcome;
use crate::console::{BAD, BOLD, DIM, GOOD, Styled, WARN, harmless};
use crate::model::{Milestones, Progress, TerminalProgress};

/// Something happened. The JSON form has the variant's name under `event`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The model is being brought: at the beginning and at each 10 %.
    Pulling { model: &'a str, stage: &'a str, percent: u64 },
    /// A process was started for the first time.
    Started { process: &'a str, pid: u32 },
    /// A process was started again.
    Restarted { process: &'a str, pid: u32, restarts: u32 },
    /// The proxy sends requests to this backend from now on.
    BackendReady { process: &'a str, address: SocketAddr, after_ms: u64 },
    /// The first backend serves: the address can be used. `embeds`: for embeddings, and not for text.
    Ready {
        address: SocketAddr,
        operations: SocketAddr,
        model: &'a str,
        embeds: bool,
        backends: usize,
        needs_key: bool,
    },
    /// A process ended; without `restart_in_ms` it is not started again.
    Exited { process: &'a str, status: &'a str, restart_in_ms: Option<u64> },
    /// A process that never got ready is left alone.
    GaveUp { process: &'a str },
    /// Every process was told to finish.
    Stopping { timeout_ms: u64 },
    /// No process is left.
    Stopped,
}

/// Tells events.
#[derive(Debug)]
pub(crate) struct Reporter {
    json: bool,
}

impl Reporter {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        let text = match self.json {
            true => serde_json::to_string(event).unwrap_or_default(),
            false => sentence(event),
        };
        // That nobody reads what we tell is no reason to end what we run.
        crate::console::print(text).ok();
    }

    /// The progress of a pull of `model`.
    pub(crate) fn progress<'a>(&'a self, model: &'a str) -> EventProgress<'a> {
        match self.json {
            true => EventProgress::Json {
                reporter: self,
                model,
                stage: String::new(),
                milestones: Milestones::default(),
            },
            false => EventProgress::Human(TerminalProgress::default()),
        }
    }
}

/// How far the pull has come, in the reporter's form.
#[derive(Debug)]
pub(crate) enum EventProgress<'a> {
    Human(TerminalProgress),
    Json { reporter: &'a Reporter, model: &'a str, stage: String, milestones: Milestones },
}

impl Progress for EventProgress<'_> {
    fn begin(&mut self, what: &str, total_bytes: Option<u64>) {
        match self {
            Self::Human(progress) => progress.begin(what, total_bytes),
            Self::Json { reporter, model, stage, milestones } => {
                what.clone_into(stage);
                *milestones = Milestones::of(total_bytes);
                reporter.tell(&Event::Pulling { model, stage, percent: 0 });
            }
        }
    }

    fn advance_to(&mut self, bytes: u64) {
        match self {
            Self::Human(progress) => progress.advance_to(bytes),
            Self::Json { reporter, model, stage, milestones } => {
                if let Some(percent) = milestones.passed(bytes) {
                    reporter.tell(&Event::Pulling { model, stage, percent });
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Self::Human(progress) = self {
            progress.finish();
        }
    }

    fn note(&mut self, text: &str) {
        match self {
            Self::Human(progress) => progress.note(text),
            Self::Json { .. } => crate::console::note(text),
        }
    }
}

fn sentence(event: &Event<'_>) -> String {
    match event {
        Event::Pulling { model, stage, percent } => format!("{model}: {stage} {percent} %"),
        Event::Started { process, pid } => {
            format!("{process} started {}", Styled(DIM, format_args!("(pid {pid})")))
        }
        Event::Restarted { process, pid, restarts } => {
            format!(
                "{process} started again {}",
                Styled(DIM, format_args!("(pid {pid}, restart {restarts})"))
            )
        }
        Event::BackendReady { process, address, after_ms } => {
            let seconds = *after_ms as f64 / 1000.0;
            format!("{process} {} after {seconds:.2} s at {address}", Styled(GOOD, "ready"))
        }
        Event::Ready { address, operations, model, embeds, needs_key, .. } => {
            welcome::text(*address, *operations, model, *embeds, *needs_key)
        }
        Event::Exited { process, status, restart_in_ms: Some(ms) } => {
            let again = *ms as f64 / 1000.0;
            format!(
                "{process} {} ({status}); starting it again in {again} s",
                Styled(WARN, "ended")
            )
        }
        Event::Exited { process, status, restart_in_ms: None } => {
            format!("{process} ended ({status})")
        }
        Event::GaveUp { process } => format!(
            "{} {process} never got ready; its lines above say why",
            Styled(BAD, "giving up:")
        ),
        Event::Stopping { timeout_ms } => format!(
            "{}: waiting up to {} s for running requests; Ctrl-C again ends at once",
            Styled(BOLD, "stopping"),
            timeout_ms / 1000
        ),
        Event::Stopped => "stopped".to_owned(),
    }
}

/// What stands before each line of a process: its name in its colour.
pub(super) fn prefix(number: usize, name: &str, width: usize) -> String {
    const COLOURS: [AnsiColor; 5] =
        [AnsiColor::Cyan, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::Yellow];
    let style = Style::new().fg_color(Some(COLOURS[number % COLOURS.len()].into()));
    Styled(style, format_args!("{name:width$} │")).to_string()
}

/// A line of a process, on standard error.
pub(super) fn line(prefix: &str, text: &str) {
    crate::console::note(format_args!("{prefix} {}", harmless(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_objects_with_their_name() {
        let address = ([127, 0, 0, 1], 8080).into();
        let (operations, model, backends) = (address, "m", 2);
        let ready =
            Event::Ready { address, operations, model, embeds: false, backends, needs_key: false };
        assert_eq!(
            serde_json::to_string(&ready).expect("JSON"),
            r#"{"event":"ready","address":"127.0.0.1:8080","operations":"127.0.0.1:8080","model":"m","embeds":false,"backends":2,"needs_key":false}"#
        );
        let exited =
            Event::Exited { process: "proxy", status: "exit status: 1", restart_in_ms: None };
        assert_eq!(
            serde_json::to_string(&exited).expect("JSON"),
            r#"{"event":"exited","process":"proxy","status":"exit status: 1","restart_in_ms":null}"#
        );
        assert_eq!(serde_json::to_string(&Event::Stopped).expect("JSON"), r#"{"event":"stopped"}"#);
    }
}
