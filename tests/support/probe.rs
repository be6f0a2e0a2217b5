//! Asking the same thing at a fixed rate, and how long the answers took.

use crate::http::{Connection, is_ok};
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// How long answers took, shortest first.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// All of these.
    #[must_use]
    pub fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// The time within which this share of the answers came; zero without answers.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1).min(self.0.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// All of them, shortest first.
    #[must_use]
    pub fn all(&self) -> &[Duration] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Asks `server` once every `interval`, `count` times, on one connection.
///
/// A question that had to wait for the answer before it counts from when it should have been asked:
/// so one slow answer shows in all that it delayed (no coordinated omission). Where this thread
/// itself woke up late, that is not the server's fault and does not count.
///
/// # Panics
/// If an answer is missing or is not 200.
#[must_use]
pub fn latencies(
    server: SocketAddr,
    request: &[u8],
    interval: Duration,
    count: usize,
) -> Latencies {
    let mut connection = Connection::open(server).expect("the server listens");
    let start = Instant::now();
    let (mut taken, mut answered) = (Vec::with_capacity(count), start);
    for number in 0..count {
        let due = start + interval * u32::try_from(number).expect("a number of questions");
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = if answered > due { due } else { Instant::now() };
        assert!(is_ok(connection.ask(request).expect("an answer")), "not 200");
        answered = Instant::now();
        taken.push(answered.duration_since(asked));
    }
    Latencies::of(taken)
}
