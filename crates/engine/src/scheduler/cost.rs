//! From a time target to a number of tokens, by measured cost.
//!
//! A step of `n` tokens that look at `k` keys in sum takes about `fixed + n · per_token + k · per_key`: reading
//! the weights, working on each row, attending to what came before. The three are fitted by least squares of
//! relative errors, twice. First to what is remembered of steps of every size, however long ago: while the
//! streams and a prompt's chunks stay as they are, all steps are of one size, and say nothing of what others
//! would cost. Then that is bent towards the steps just made, so that a machine that gets busy shows within a
//! few steps. A step that took many times what was foretold, because the thread lost its core, counts for a part
//! of it only.

use std::ops::Range;
use std::time::Duration;

/// How much a past step still counts after one more.
const MEMORY: f64 = 0.9;

/// Steps of one size that count towards the shape of the fit at most.
const STEPS_OF_SIZE: f64 = 4.0;

/// How many recent steps the shape counts for when it is bent towards them.
const STIFFNESS: f64 = 1.0;

/// What a step may take while streams decode, in times of their own step. With a little less than two, the slow
/// ones among the steps are still within two.
const STRETCH: f64 = 1.75;

/// Fewest tokens of a prompt in a step, whatever they cost.
const CHUNK_MIN: usize = 2;

/// Longest step while nobody is decoding: it bounds how long a cancel or a new request can wait.
const UNWATCHED: Duration = Duration::from_millis(200);

/// How many times the foretold time a step counts for at most.
const SURPRISE_MAX: f64 = 4.0;

/// What a token costs in keys, until there are measurements that tell one from the other.
const KEYS_OF_TOKEN: f64 = 1_000.0;

/// Sizes that are remembered apart: a power of two and what lies below the next.
const SIZES: usize = 12;

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

    /// What the parts of the cost are multiplied with.
    fn factors(self) -> [f64; PARTS] {
        [1.0, self.tokens as f64, self.keys as f64]
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

/// Parts of a step's cost.
const PARTS: usize = 3;

/// Sums over steps, each divided by the square of its time, so that errors count in proportion.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    /// Steps.
    weight: f64,
    /// `Σ factorᵢ · factorⱼ / time²`.
    products: [[f64; PARTS]; PARTS],
    /// `Σ factorᵢ / time`.
    sums: [f64; PARTS],
}

impl Moments {
    /// Takes in one more step, and forgets a little of those before.
    fn observe(&mut self, factors: [f64; PARTS], seconds: f64) {
        self.scale(MEMORY);
        let mut step = Self { weight: 1.0, sums: factors.map(|a| a / seconds), ..Self::default() };
        step.products = step.sums.map(|a| step.sums.map(|b| a * b));
        self.add(&step);
    }

    fn scale(&mut self, by: f64) {
        self.weight *= by;
        self.sums.iter_mut().for_each(|sum| *sum *= by);
        self.products.iter_mut().flatten().for_each(|product| *product *= by);
    }

    fn add(&mut self, other: &Self) {
        self.weight += other.weight;
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            *sum += other;
        }
        let products = self.products.iter_mut().flatten();
        for (product, other) in products.zip(other.products.as_flattened()) {
            *product += other;
        }
    }

    /// The cost that fits best, as if `stiffness` steps more had said that each part is as in `before`. No part is
    /// negative.
    fn fit(&self, before: Cost, stiffness: f64) -> Cost {
        let (mut matrix, mut right) = (self.products, self.sums);
        for (part, before) in before.0.into_iter().enumerate() {
            let strength = stiffness / (before * before);
            matrix[part][part] += strength;
            right[part] += strength * before;
        }
        let mut free = [true; PARTS];
        loop {
            let cost = solve(matrix, right, free);
            let lowest = (0..PARTS).min_by(|a, b| cost[*a].total_cmp(&cost[*b]));
            match lowest {
                Some(part) if cost[part] < 0.0 => free[part] = false,
                _ => return Cost(cost),
            }
        }
    }
}

/// Solves a positive definite system for the free unknowns, the others being zero.
fn solve(
    mut matrix: [[f64; PARTS]; PARTS],
    mut right: [f64; PARTS],
    free: [bool; PARTS],
) -> [f64; PARTS] {
    for part in (0..PARTS).filter(|part| !free[*part]) {
        matrix[part] = [0.0; PARTS];
        matrix[part][part] = 1.0;
        right[part] = 0.0;
    }
    for pivot in 0..PARTS {
        for row in pivot + 1..PARTS {
            let factor = matrix[row][pivot] / matrix[pivot][pivot];
            let above = matrix[pivot];
            for (element, above) in matrix[row].iter_mut().zip(above).skip(pivot) {
                *element -= factor * above;
            }
            right[row] -= factor * right[pivot];
        }
    }
    let mut solution = [0.0; PARTS];
    for row in (0..PARTS).rev() {
        let known: f64 =
            (row + 1..PARTS).map(|column| matrix[row][column] * solution[column]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
}

/// Seconds: of a step, of each token and of each key.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost([f64; PARTS]);

impl Cost {
    fn of(self, work: Work) -> f64 {
        self.0.iter().zip(work.factors()).map(|(cost, factor)| cost * factor).sum()
    }

    /// The same with no part below what is worth a thousandth of a token: a fit can start from it.
    fn or_a_little(self) -> Self {
        let least = 1e-3 * (self.0[0] + self.0[1] + KEYS_OF_TOKEN * self.0[2]).max(1e-9);
        Self([self.0[0].max(least), self.0[1].max(least), self.0[2].max(least / KEYS_OF_TOKEN)])
    }
}

/// A running estimate of what a step costs, and the budget that follows from it.
#[derive(Clone, Debug, Default)]
pub struct StepCost {
    recent: Moments,
    by_size: [Moments; SIZES],
}

impl StepCost {
    /// Takes a measured step into account.
    pub fn observe(&mut self, work: Work, elapsed: Duration) {
        let mut seconds = elapsed.as_secs_f64().max(1e-9);
        if let Some(cost) = self.cost() {
            seconds = seconds.min(SURPRISE_MAX * cost.of(work));
        }
        let size = (work.tokens.max(1).ilog2() as usize).min(SIZES - 1);
        self.by_size[size].observe(work.factors(), seconds);
        self.recent.observe(work.factors(), seconds);
    }

    /// The fit; `None` before the first measurement.
    fn cost(&self) -> Option<Cost> {
        let [_, per_token, _] = self.recent.sums;
        if per_token == 0.0 {
            return None;
        }
        let mut known = Moments::default();
        for mut of_size in self.by_size {
            of_size.scale((STEPS_OF_SIZE / of_size.weight).min(1.0));
            known.add(&of_size);
        }
        // Before anything tells the parts from one another, all is the tokens' cost, which errs towards small steps.
        let token = known.sums[1] / known.products[1][1];
        let unknown = Cost([token, token, token / KEYS_OF_TOKEN]);
        let shape = known.fit(unknown, 1e-3).or_a_little();
        Some(self.recent.fit(shape, STIFFNESS).or_a_little())
    }

    /// Tokens for a step, at most `tokens_max`: as many as fit the time that a step may take beside the decoding
    /// sequences; when there are none, as many as fit a fifth of a second. At least two of a prompt.
    #[must_use]
    pub fn budget(&self, load: Load, tokens_max: usize) -> usize {
        let Load { decoding, decoding_keys, prefill_from } = load;
        let least = decoding + CHUNK_MIN;
        let Some(cost) = self.cost() else { return least };
        let own = cost.of(Work { tokens: decoding, keys: decoding_keys });
        let spare = match decoding {
            0 => UNWATCHED.as_secs_f64() - own,
            _ => (STRETCH - 1.0) * own,
        };
        let more = affordable(cost, prefill_from as f64, spare.max(0.0));
        (decoding + more as usize).clamp(least, tokens_max.max(least))
    }
}

/// How many tokens of a prompt, from position `from`, `seconds` pay for: the positive root `m` of
/// `per_key · m²/2 + (per_token + per_key · from) · m = seconds`.
fn affordable(Cost([_, per_token, per_key]): Cost, from: f64, seconds: f64) -> f64 {
    let linear = per_token + per_key * from;
    2.0 * seconds / (linear + (linear * linear + 2.0 * per_key * seconds).sqrt())
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
    fn a_step_takes_less_than_twice_the_decode_step() {
        let cost = machine(4_000, 500, &[1, 32, 1, 64]);
        // 4 decoding: 6 ms. Three quarters of that are 9 tokens.
        assert!((12..=13).contains(&cost.budget(streams(4), 512)));
    }

    #[test]
    fn without_streams_a_step_is_bounded_by_time_and_size() {
        let cost = machine(1_000, 1_000, &[1, 16, 64]);
        assert!(
            (180..=205).contains(&cost.budget(streams(0), 512)),
            "{}",
            cost.budget(streams(0), 512)
        );
        assert_eq!(cost.budget(streams(0), 128), 128);
    }

    #[test]
    fn never_less_than_two_tokens_of_a_prompt() {
        assert_eq!(StepCost::default().budget(streams(0), 512), 2);
        assert_eq!(machine(10, 50_000, &[1, 2, 3]).budget(streams(3), 512), 5);
        assert_eq!(machine(10, 50_000, &[1, 2, 3]).budget(streams(3), 1), 5);
    }

    #[test]
    fn steps_of_one_size_do_not_divide_by_zero() {
        let budget = machine(3_000, 1_000, &[1; 100]).budget(streams(1), 512);
        assert!((3..=512).contains(&budget));
    }

    #[test]
    fn it_follows_a_machine_that_slows_down() {
        let mut cost = machine(1_000, 100, &[1, 32, 64, 1, 32]);
        let before = cost.budget(streams(0), 10_000);
        for tokens in [1, 32, 64].into_iter().cycle().take(60) {
            let micros = 1_000 + 1_000 * tokens as u64;
            cost.observe(work(tokens, 0), Duration::from_micros(micros));
        }
        assert!(
            cost.budget(streams(0), 10_000) < before / 4,
            "{before} became {}",
            cost.budget(streams(0), 10_000)
        );
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
        // The streams' own step is 2 + 0.4 + 4 ms; three quarters of that are 40 tokens at the beginning of a prompt,
        // of 100 µs and 20 keys each, and 1 token far into it.
        assert!((42..=46).contains(&at(0)), "{}", at(0));
        assert_eq!(at(3_000), 6, "the least");
        assert!(at(500) < at(100) && at(100) < at(0));
    }

    /// Milliseconds that a machine takes which is nothing like the fit: rows are free up to a point.
    fn real(work: Work) -> f64 {
        (4.0 + 0.25 * work.tokens.saturating_sub(4) as f64) + 5e-4 * work.keys as f64
    }

    #[test]
    fn a_long_prompt_beside_streams_never_gets_a_chunk_that_stalls_them() {
        let mut cost = StepCost::default();
        let observe = |cost: &mut StepCost, work| {
            cost.observe(work, Duration::from_secs_f64(real(work) * 1e-3));
        };
        for tokens in [1, 8, 32, 1, 8, 32] {
            observe(&mut cost, work(tokens, tokens * tokens / 2));
        }
        // A prompt alone, the streams alone, then a prompt beside them.
        for chunk in 0..10 {
            observe(&mut cost, work(400, 400 * (400 * chunk + 200)));
        }
        (0..1_000).for_each(|step| observe(&mut cost, work(4, 4 * (16 + step))));
        let (mut from, mut steps) = (0, 0);
        while from < 8_000 {
            let decoding_keys = 4 * (1_016 + steps);
            let load = Load { decoding: 4, decoding_keys, prefill_from: from };
            let chunk = cost.budget(load, 512) - 4;
            let mut step = work(4, decoding_keys);
            let own = real(step);
            step.add(&(from..from + chunk));
            let stretch = real(step) / own;
            assert!(stretch < 2.0 || chunk == 2, "{chunk} tokens from {from} on: {stretch} times");
            assert!(stretch > 1.3, "only {chunk} tokens from {from} on: {stretch} times");
            observe(&mut cost, step);
            (from, steps) = (from + chunk, steps + 1);
        }
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
