//! From a time target to a number of tokens, by measured cost.
//!
//! A step of `n` tokens takes about `fixed + n · per_token`: reading the weights, then working on each row.
//! Both are fitted to the steps just made by least squares with exponential forgetting, so that a machine
//! that gets busy or a context that grows shows within a few steps.

use std::time::Duration;

/// How much a past step still counts after one more.
const MEMORY: f64 = 0.95;

/// Fewest tokens a step may have beyond which the target does not reduce it.
const TOKENS_MIN: usize = 8;

/// Longest step while nobody is decoding: it bounds how long a cancel or a new request can wait.
const UNWATCHED: Duration = Duration::from_millis(200);

/// A running estimate of what a step costs, and the budget that follows from it.
#[derive(Clone, Debug, Default)]
pub struct StepCost {
    // Sums over past steps, forgotten exponentially: weights, n, n², t, n·t (t in seconds).
    weight: f64,
    n: f64,
    nn: f64,
    t: f64,
    nt: f64,
}

impl StepCost {
    /// Takes a measured step into account.
    pub fn observe(&mut self, tokens: usize, elapsed: Duration) {
        let (n, t) = (tokens as f64, elapsed.as_secs_f64());
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.n, n),
            (&mut self.nn, n * n),
            (&mut self.t, t),
            (&mut self.nt, n * t),
        ] {
            *sum = *sum * MEMORY + value;
        }
    }

    /// `(fixed, per token)` in seconds, not negative and positive; `None` before the first measurement.
    fn fit(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (mean_n, mean_t) = (self.n / self.weight, self.t / self.weight);
        let variance = self.nn / self.weight - mean_n * mean_n;
        let covariance = self.nt / self.weight - mean_n * mean_t;
        // Steps all of one size say nothing about the slope: count their whole cost as per token,
        // which errs towards small steps.
        let slope = if variance > 1e-6 * mean_n * mean_n { covariance / variance } else { 0.0 };
        let whole = mean_t / mean_n.max(1.0);
        let per_token = if slope > 0.0 { slope.min(whole) } else { whole };
        Some((mean_t - per_token * mean_n, per_token.max(1e-9)))
    }

    /// Tokens for a step, at most `tokens_max`: as many as fit twice the time of the `decoding` sequences'
    /// own step; when there are none, as many as fit a fifth of a second. At least 8.
    #[must_use]
    pub fn budget(&self, decoding: usize, tokens_max: usize) -> usize {
        let Some((fixed, per_token)) = self.fit() else { return TOKENS_MIN };
        let target = match decoding {
            0 => UNWATCHED.as_secs_f64(),
            decoding => 2.0 * (fixed + per_token * decoding as f64),
        };
        let tokens = ((target - fixed) / per_token).max(0.0) as usize;
        tokens.clamp(TOKENS_MIN, tokens_max.max(TOKENS_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(fixed_us: u64, per_token_us: u64, sizes: &[usize]) -> StepCost {
        let mut cost = StepCost::default();
        for &tokens in sizes {
            let micros = fixed_us + per_token_us * tokens as u64;
            cost.observe(tokens, Duration::from_micros(micros));
        }
        cost
    }

    #[test]
    fn a_step_takes_twice_the_decode_step() {
        let cost = machine(4_000, 500, &[1, 32, 1, 64]);
        // 4 decoding: 6 ms; twice that is 12 ms, which is 4 ms and 16 tokens.
        assert_eq!(cost.budget(4, 512), 16);
    }

    #[test]
    fn without_streams_a_step_is_bounded_by_time_and_size() {
        let cost = machine(1_000, 1_000, &[1, 16, 64]);
        assert!((195..=199).contains(&cost.budget(0, 512)));
        assert_eq!(cost.budget(0, 128), 128);
    }

    #[test]
    fn never_below_eight() {
        assert_eq!(StepCost::default().budget(0, 512), 8);
        assert_eq!(machine(10, 50_000, &[1, 2, 3]).budget(1, 512), 8);
    }

    #[test]
    fn steps_of_one_size_do_not_divide_by_zero() {
        let budget = machine(3_000, 1_000, &[1; 100]).budget(1, 512);
        assert!((8..=512).contains(&budget));
    }

    #[test]
    fn it_follows_a_machine_that_slows_down() {
        let mut cost = machine(1_000, 100, &[1, 32, 64, 1, 32]);
        let before = cost.budget(0, 10_000);
        for tokens in [1, 32, 64].into_iter().cycle().take(60) {
            cost.observe(tokens, Duration::from_micros(1_000 + 1_000 * tokens as u64));
        }
        assert!(cost.budget(0, 10_000) < before / 5);
    }
}
