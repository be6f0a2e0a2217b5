//! One request's stopwatch, and the place where all of them write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use super::figures::{Completed, Figures};
use crate::api::Usage;

/// The figures of a run, shared by its requests and its display. The lock is held for the time it takes
/// to add to a histogram.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Mutex<Figures>>);

/// What a whole answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) usage: Option<Usage>,
    pub(super) finish_reason: Option<String>,
}

/// Measures one request, from the time it was meant to begin.
#[derive(Debug)]
pub(super) struct Watch {
    recorder: Recorder,
    scheduled: Instant,
    first: Option<Instant>,
    last: Instant,
    events: u64,
    end: Option<Instant>,
}

impl Recorder {
    pub(super) fn new(figures: Figures) -> Self {
        Self(Arc::new(Mutex::new(figures)))
    }

    /// A panic elsewhere leaves the figures as good as they were.
    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// To be called when the request is sent.
    pub(super) fn start(recorder: Recorder, scheduled: Instant) -> Self {
        let now = Instant::now();
        recorder.figures().sent(now.saturating_duration_since(scheduled));
        Self { recorder, scheduled, first: None, last: now, events: 0, end: None }
    }

    /// An event with content has come.
    pub(super) fn content(&mut self) {
        let now = Instant::now();
        let mut figures = self.recorder.figures();
        if self.first.is_none() {
            self.first = Some(now);
            figures.first_content(now - self.scheduled);
        } else {
            figures.more_content(now - self.last);
        }
        drop(figures);
        self.last = now;
        self.events += 1;
    }

    /// The answer is whole, though not all around it may be done.
    pub(super) fn end(&mut self) {
        self.end = Some(Instant::now());
    }

    /// The request is over, and well.
    pub(super) fn completed(&self, answer: Answer, prompt_asked: Option<u32>) {
        let completed = Completed {
            end_to_end: self.end.unwrap_or_else(Instant::now) - self.scheduled,
            ttft: self.first.map(|first| first - self.scheduled),
            decoding: self.first.map_or(Duration::ZERO, |first| self.last - first),
            events: self.events,
            usage: answer.usage,
            finish_reason: answer.finish_reason,
            prompt_asked,
        };
        self.recorder.figures().completed(&completed);
    }

    /// There will be none, or not all of it.
    pub(super) fn failed(&self, failure: &Failure) {
        self.recorder.figures().failed(failure);
    }
}
