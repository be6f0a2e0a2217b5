//! Benchmarks against named peers: see the `[[bench]]` files beside this one.

use std::time::Duration;

/// The middle one of some measurements; zero of none.
#[must_use]
pub fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// Tokens per second.
#[must_use]
pub fn rate(tokens: usize, elapsed: Duration) -> f64 {
    tokens as f64 / elapsed.as_secs_f64()
}
