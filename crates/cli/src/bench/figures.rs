//! What has been measured so far: counters and histograms, about 1 MiB however long a run is.
//! Pure: latencies come as durations, nothing here reads a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failure::{ErrorKind, Failure};
use super::goodput::Objectives;
use super::latency::Latencies;
use crate::api::Usage;
use crate::console::harmless;

/// A server may invent finish reasons; so many are told apart, and of each so many characters.
const FINISH_REASONS_MAX: usize = 16;
const REASON_CHARS_MAX: usize = 40;
const OTHER: &str = "other";
/// How much of the first failure of each kind is kept.
const EXAMPLE_CHARS_MAX: usize = 200;

/// Counters and histograms of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) objectives: Objectives,
    pub(super) sent: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    /// Requests of an open loop that had to wait because too many were in flight.
    pub(super) held: u64,
    /// Completed and within the objectives.
    pub(super) good: u64,
    pub(super) tokens: Tokens,
    pub(super) finish_reasons: BTreeMap<String, u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) errors: BTreeMap<ErrorKind, Errors>,
    pub(super) ttft: Latencies,
    pub(super) inter_token: Latencies,
    pub(super) tpot: Latencies,
    pub(super) end_to_end: Latencies,
    /// From a request's scheduled time to our sending it.
    pub(super) lateness: Latencies,
}

/// Failures of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Errors {
    pub(super) count: u64,
    /// What the first of them said.
    pub(super) example: String,
}

/// Tokens of completed requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    /// Lengths that made-up prompts were meant to have.
    pub(super) prompt_asked: u64,
    /// Events that carried content, of all streams.
    pub(super) events: u64,
    /// Answers without `usage`, whose events were counted in place of tokens.
    pub(super) without_usage: u64,
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Completed {
    pub(super) end_to_end: Duration,
    /// Of a stream with content.
    pub(super) ttft: Option<Duration>,
    /// From the first event with content to the last.
    pub(super) decoding: Duration,
    pub(super) events: u64,
    pub(super) usage: Option<Usage>,
    pub(super) finish_reason: Option<String>,
    pub(super) prompt_asked: Option<u32>,
}

impl Completed {
    fn completion_tokens(&self) -> u64 {
        self.usage.map_or(self.events, |usage| usage.completion_tokens)
    }

    /// Time per output token after the first. Of a stream of two events or more: one event alone
    /// says nothing about the pace.
    pub(super) fn tpot(&self) -> Option<Duration> {
        let after_the_first =
            self.completion_tokens().checked_sub(1).filter(|tokens| *tokens > 0)?;
        (self.events > 1).then(|| self.decoding.div_f64(after_the_first as f64))
    }
}

impl Figures {
    pub(super) fn with(objectives: Objectives) -> Self {
        Self { objectives, ..Self::default() }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.completed - self.failed
    }

    pub(super) fn sent(&mut self, lateness: Duration) {
        self.sent += 1;
        self.lateness.record(lateness);
    }

    pub(super) fn first_content(&mut self, ttft: Duration) {
        self.ttft.record(ttft);
        self.tokens.events += 1;
    }

    pub(super) fn more_content(&mut self, gap: Duration) {
        self.inter_token.record(gap);
        self.tokens.events += 1;
    }

    pub(super) fn completed(&mut self, answer: &Completed) {
        self.completed += 1;
        *self.statuses.entry(200).or_default() += 1;
        self.end_to_end.record(answer.end_to_end);
        let tpot = answer.tpot();
        if let Some(tpot) = tpot {
            self.tpot.record(tpot);
        }
        self.good += u64::from(self.objectives.are_met(answer.ttft, tpot, answer.end_to_end));
        self.tokens.prompt += answer.usage.map_or(0, |usage| usage.prompt_tokens);
        self.tokens.completion += answer.completion_tokens();
        self.tokens.prompt_asked += u64::from(answer.prompt_asked.unwrap_or(0));
        self.tokens.without_usage += u64::from(answer.usage.is_none());
        self.finished(answer.finish_reason.as_deref().unwrap_or("none"));
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.failed += 1;
        if let Some(status) = failure.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        let errors = self.errors.entry(failure.kind).or_default();
        errors.count += 1;
        if errors.count == 1 {
            errors.example = excerpt(&failure.message, EXAMPLE_CHARS_MAX);
        }
    }

    fn finished(&mut self, reason: &str) {
        let reason = excerpt(reason, REASON_CHARS_MAX);
        let is_known = self.finish_reasons.contains_key(&reason);
        let is_full = self.finish_reasons.len() >= FINISH_REASONS_MAX;
        let name = if is_full && !is_known { OTHER.to_owned() } else { reason };
        *self.finish_reasons.entry(name).or_default() += 1;
    }
}

/// The beginning of a text from outside, on one line and without control characters.
fn excerpt(text: &str, chars: usize) -> String {
    harmless(text).replace('\n', " ").chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answer(tokens: u64, events: u64, decoding: Duration) -> Completed {
        let usage = Some(Usage { prompt_tokens: 10, completion_tokens: tokens });
        Completed { usage, events, decoding, end_to_end: ms(500), ..Completed::default() }
    }

    #[test]
    fn the_pace_counts_tokens_even_when_a_server_merges_them_into_events() {
        assert_eq!(answer(11, 11, ms(100)).tpot(), Some(ms(10)));
        assert_eq!(answer(11, 3, ms(100)).tpot(), Some(ms(10)));
        assert_eq!(answer(11, 1, ms(0)).tpot(), None, "all at once is not infinitely fast");
        assert_eq!(answer(1, 1, ms(0)).tpot(), None);
        let uncounted = Completed { usage: None, ..answer(0, 5, ms(100)) };
        assert_eq!(uncounted.tpot(), Some(ms(25)));
    }

    #[test]
    fn what_is_sent_is_in_flight_until_it_ends_either_way() {
        let mut figures = Figures::default();
        for _ in 0..3 {
            figures.sent(ms(1));
        }
        figures.completed(&answer(4, 4, ms(30)));
        figures.failed(&Failure::timeout(ms(1500)));
        assert_eq!((figures.in_flight(), figures.completed, figures.failed), (1, 1, 1));
        assert_eq!(figures.errors[&ErrorKind::Timeout].example, "no whole answer within 1.5 s");
        assert_eq!(figures.statuses, BTreeMap::from([(200, 1)]));
    }

    #[test]
    fn tokens_come_from_usage_else_from_events_and_that_is_told() {
        let mut figures = Figures::default();
        figures.completed(&Completed { prompt_asked: Some(8), ..answer(4, 3, ms(30)) });
        figures.completed(&Completed { usage: None, ..answer(0, 5, ms(30)) });
        let tokens = figures.tokens;
        assert_eq!((tokens.prompt, tokens.completion, tokens.prompt_asked), (10, 9, 8));
        assert_eq!(tokens.without_usage, 1);
    }

    #[test]
    fn a_server_cannot_fill_the_report() {
        let mut figures = Figures::default();
        for number in 0..1000 {
            let finish_reason = Some(format!("{number}\u{1b}[2J{}", "x".repeat(1000)));
            figures.completed(&Completed { finish_reason, ..answer(1, 1, ms(0)) });
            let message = format!("\u{1b}]0;{}", "y".repeat(10_000));
            figures.failed(&Failure { kind: ErrorKind::Http5xx, status: Some(500), message });
        }
        assert_eq!(figures.finish_reasons.len(), FINISH_REASONS_MAX + 1);
        assert_eq!(figures.finish_reasons[OTHER], 1000 - FINISH_REASONS_MAX as u64);
        let names = figures.finish_reasons.keys();
        assert!(
            names.clone().all(|name| name.len() <= REASON_CHARS_MAX && !name.contains('\u{1b}'))
        );
        let errors = &figures.errors[&ErrorKind::Http5xx];
        assert_eq!((errors.count, errors.example.chars().count()), (1000, EXAMPLE_CHARS_MAX));
        assert!(!errors.example.contains('\u{1b}'));
    }
}
