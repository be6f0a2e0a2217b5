//! From a time target to a number of tokens, by measured cost.
//!
//! A step of `n` tokens that look at `k` keys in sum takes about `fixed + n · per_token + k · per_key`: reading
//! the weights, working on each row, attending to what came before. The three are fitted to the steps just
//! made, by least squares with exponential forgetting, so that a machine that gets busy shows within a few
//! steps. A step that took many times what was foretold, because the thread lost its core, counts for a
//! part of it only.

use std::ops::Range;
use std::time::Duration;

/// How much a past step still counts after one more.
const MEMORY: f64 = 0.95;

/// Fewest tokens a step may have beyond which the target does not reduce it.
const TOKENS_MIN: usize = 8;

/// Longest step while nobody is decoding: it bounds how long a cancel or a new request can wait.
const UNWATCHED: Duration = Duration::from_millis(200);

/// How many times the foretold time a step counts for at most.
const SURPRISE_MAX: f64 = 4.0;

/// Steps before which nothing is foretold.
const TRUSTED_AFTER: f64 = 4.0;

/// How much of a regressor's square must be variance for its slope to be told from the rest.
const VARIANCE_MIN: f64 = 1e-3;

/// What a step consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows of the batch.
    pub tokens: usize,
    /// Keys that its rows attend to, in sum.
    pub keys: usize,
}

impl Work {
    /// Adds the rows of one sequence: those of its tokens `range`.
    pub fn add(&mut self, range: &Range<usize>) {
        let (first, last) = (range.start + 1, range.end);
        self.tokens += range.len();
        self.keys += (first + last) * range.len() / 2;
    }
}

/// What the next step has to do at least, and where it would go on beyond that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences that decode: the streams that a step must not delay.
    pub decoding: usize,
    /// Keys that they attend to, in sum.
    pub decoding_keys: usize,
    /// The position at which a prompt would be computed further.
    pub prefill_from: usize,
}

/// A running estimate of what a step costs, and the budget that follows from it.
#[derive(Clone, Debug, Default)]
pub struct StepCost {
    /// Steps, each forgotten exponentially, as are all sums below.
    weight: f64,
    /// Sums of tokens, keys and seconds.
    sums: [f64; 3],
    /// Sums of their products.
    products: [[f64; 3]; 3],
}

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fit {
    fixed: f64,
    per_token: f64,
    per_key: f64,
}

impl Fit {
    fn of(&self, tokens: f64, keys: f64) -> f64 {
        self.fixed + self.per_token * tokens + self.per_key * keys
    }
}

impl StepCost {
    /// Takes a measured step into account.
    pub fn observe(&mut self, work: Work, elapsed: Duration) {
        let (tokens, keys) = (work.tokens as f64, work.keys as f64);
        let mut seconds = elapsed.as_secs_f64();
        if self.weight >= TRUSTED_AFTER
            && let Some(fit) = self.fit()
        {
            seconds = seconds.min(SURPRISE_MAX * fit.of(tokens, keys));
        }
        let values = [tokens, keys, seconds];
        self.weight = self.weight * MEMORY + 1.0;
        for (row, a) in values.into_iter().enumerate() {
            self.sums[row] = self.sums[row] * MEMORY + a;
            for (column, b) in values.into_iter().enumerate() {
                self.products[row][column] = self.products[row][column] * MEMORY + a * b;
            }
        }
    }

    /// The fit, without negative parts; `None` before the first measurement.
    fn fit(&self) -> Option<Fit> {
        if self.weight == 0.0 {
            return None;
        }
        let mean = self.sums.map(|sum| sum / self.weight);
        let covariance = |a: usize, b: usize| self.products[a][b] / self.weight - mean[a] * mean[b];
        let varies = |a: usize| covariance(a, a) > VARIANCE_MIN * mean[a] * mean[a];
        let (n, k, t) = (0, 1, 2);
        let (nn, kk, nk) = (covariance(n, n), covariance(k, k), covariance(n, k));
        let (nt, kt) = (covariance(n, t), covariance(k, t));
        // Long contexts come with many rows or without them; where they only come together, keys count as rows.
        let determinant = nn * kk - nk * nk;
        let apart = varies(n) && varies(k) && determinant > 0.05 * nn * kk;
        let both =
            apart.then(|| ((nt * kk - kt * nk) / determinant, (kt * nn - nt * nk) / determinant));
        let slopes = match both {
            Some((per_token, per_key)) if per_token > 0.0 && per_key >= 0.0 => (per_token, per_key),
            _ if varies(n) && nt > 0.0 => (nt / nn, 0.0),
            // Steps all of one size say nothing about the slope: count their whole cost as per token,
            // which errs towards small steps.
            _ => (f64::INFINITY, 0.0),
        };
        // What is left for the fixed part is not negative.
        let per_key = slopes.1.min(mean[t] / mean[k].max(1.0));
        let per_token = slopes.0.min((mean[t] - per_key * mean[k]) / mean[n].max(1.0)).max(1e-9);
        let fixed = (mean[t] - per_token * mean[n] - per_key * mean[k]).max(0.0);
        Some(Fit { fixed, per_token, per_key })
    }

    /// Tokens for a step, at most `tokens_max`: as many as fit twice the time of the decoding sequences' own
    /// step; when there are none, as many as fit a fifth of a second. At least 8.
    #[must_use]
    pub fn budget(&self, load: Load, tokens_max: usize) -> usize {
        let Some(fit) = self.fit() else { return TOKENS_MIN };
        let own = fit.of(load.decoding as f64, load.decoding_keys as f64);
        let (target, own) = match load.decoding {
            0 => (UNWATCHED.as_secs_f64(), fit.fixed),
            _ => (2.0 * own, own),
        };
        let more = affordable(&fit, load.prefill_from as f64, (target - own).max(0.0));
        let tokens = load.decoding + more as usize;
        tokens.clamp(TOKENS_MIN, tokens_max.max(TOKENS_MIN))
    }
}

/// How many tokens of a prompt, from position `from`, `seconds` pay for: the positive root `m` of
/// `per_key · m²/2 + (per_token + per_key · from) · m = seconds`.
fn affordable(fit: &Fit, from: f64, seconds: f64) -> f64 {
    let linear = fit.per_token + fit.per_key * from;
    2.0 * seconds / (linear + (linear * linear + 2.0 * fit.per_key * seconds).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(tokens: usize, keys: usize) -> Work {
        Work { tokens, keys }
    }

    fn streams(decoding: usize) -> Load {
        Load { decoding, ..Load::default() }
    }

    fn machine(fixed_us: u64, per_token_us: u64, sizes: &[usize]) -> StepCost {
        let mut cost = StepCost::default();
        for &tokens in sizes {
            let micros = fixed_us + per_token_us * tokens as u64;
            cost.observe(work(tokens, 0), Duration::from_micros(micros));
        }
        cost
    }

    #[test]
    fn a_step_takes_twice_the_decode_step() {
        let cost = machine(4_000, 500, &[1, 32, 1, 64]);
        // 4 decoding: 6 ms; twice that is 12 ms, which is 4 ms and 16 tokens.
        assert_eq!(cost.budget(streams(4), 512), 16);
    }

    #[test]
    fn without_streams_a_step_is_bounded_by_time_and_size() {
        let cost = machine(1_000, 1_000, &[1, 16, 64]);
        assert!((195..=199).contains(&cost.budget(streams(0), 512)));
        assert_eq!(cost.budget(streams(0), 128), 128);
    }

    #[test]
    fn never_below_eight() {
        assert_eq!(StepCost::default().budget(streams(0), 512), 8);
        assert_eq!(machine(10, 50_000, &[1, 2, 3]).budget(streams(1), 512), 8);
    }

    #[test]
    fn steps_of_one_size_do_not_divide_by_zero() {
        let budget = machine(3_000, 1_000, &[1; 100]).budget(streams(1), 512);
        assert!((8..=512).contains(&budget));
    }

    #[test]
    fn it_follows_a_machine_that_slows_down() {
        let mut cost = machine(1_000, 100, &[1, 32, 64, 1, 32]);
        let before = cost.budget(streams(0), 10_000);
        for tokens in [1, 32, 64].into_iter().cycle().take(60) {
            let micros = 1_000 + 1_000 * tokens as u64;
            cost.observe(work(tokens, 0), Duration::from_micros(micros));
        }
        assert!(cost.budget(streams(0), 10_000) < before / 5);
    }

    /// 2 ms, 100 µs a token and 1 µs a key.
    fn attending() -> StepCost {
        let mut cost = StepCost::default();
        for (tokens, each) in [(1, 10), (32, 16), (4, 3_000), (64, 100), (2, 500), (16, 2_000)] {
            let keys = tokens * each;
            let micros = 2_000 + 100 * tokens + keys;
            cost.observe(work(tokens, keys), Duration::from_micros(micros as u64));
        }
        cost
    }

    #[test]
    fn a_chunk_far_into_a_prompt_is_smaller() {
        let cost = attending();
        let at = |prefill_from| {
            cost.budget(Load { decoding: 4, decoding_keys: 4_000, prefill_from }, 512)
        };
        // The streams' own step is 2 + 0.4 + 4 ms; as much again is 51 tokens at the beginning of a prompt, of
        // 100 µs and 25 keys each, and 2 tokens far into it.
        assert!((48..=56).contains(&at(0)), "{}", at(0));
        assert_eq!(at(3_000), 8, "the least");
        assert!(at(500) < at(100) && at(100) < at(0));
    }

    #[test]
    fn one_step_without_its_core_changes_little() {
        let mut cost = attending();
        let load = Load { decoding: 4, decoding_keys: 400, prefill_from: 0 };
        let before = cost.budget(load, 512) as f64;
        cost.observe(work(4, 400), Duration::from_secs(3));
        let after = cost.budget(load, 512) as f64;
        assert!((0.3..3.0).contains(&(after / before)), "{before} became {after}");
    }

    #[test]
    fn rows_of_a_chunk_see_one_key_more_each() {
        let mut work = Work::default();
        work.add(&(0..4));
        work.add(&(10..11));
        assert_eq!(work, Work { tokens: 5, keys: 1 + 2 + 3 + 4 + 11 });
    }
}
