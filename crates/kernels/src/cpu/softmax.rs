//! Exponentials over a vocabulary: what sampling and log-probabilities need.

use super::lanes::{LANES, Lanes};
use super::level::{Level, instantiate};

impl Level {
    /// The largest of `x`; negative infinity when it is empty.
    #[must_use]
    pub fn max(self, x: &[f32]) -> f32 {
        max(self, x)
    }

    /// `Σ exp(x − max)`, in double precision over a fixed order. `max` is at least the largest of `x`.
    #[must_use]
    pub fn exp_sum(self, x: &[f32], max: f32) -> f64 {
        exp_sum(self, x, max)
    }

    /// `out = exp(x − max)`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn exp_into(self, x: &[f32], max: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "exp_into: input and output differ in size");
        exp_into(self, x, max, out);
    }
}

instantiate!(fn max(x: &[f32]) -> f32 = max_body);
instantiate!(fn exp_sum(x: &[f32], max: f32) -> f64 = exp_sum_body);
instantiate!(fn exp_into(x: &[f32], max: f32, out: &mut [f32]) = exp_into_body);

#[inline(always)]
fn max_body(x: &[f32]) -> f32 {
    let mut best = Lanes::splat(f32::NEG_INFINITY);
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        best = Lanes::load(chunk).max(best);
    }
    let rest = chunks.remainder();
    Lanes::load_partial(rest).keep_first(rest.len(), f32::NEG_INFINITY).max(best).max_lane()
}

#[inline(always)]
fn exp_sum_body(x: &[f32], max: f32) -> f64 {
    let shift = Lanes::splat(-max);
    let mut sums = [0.0f64; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        let exps = Lanes::load(chunk).add(shift).exp();
        for lane in 0..LANES {
            sums[lane] += f64::from(exps.0[lane]);
        }
    }
    let rest = chunks.remainder();
    let exps = Lanes::load_partial(rest).add(shift).exp().keep_first(rest.len(), 0.0);
    let mut total = 0.0;
    for lane in 0..LANES {
        total += sums[lane] + f64::from(exps.0[lane]);
    }
    total
}

#[inline(always)]
fn exp_into_body(x: &[f32], max: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = super::lanes::exp(x - max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-20.0f32..20.0, 1..200),
        ) {
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let want: f64 = x.iter().map(|x| f64::from(x - largest).exp()).sum();
            let plain = Level::available()[0];
            for level in Level::available() {
                prop_assert_eq!(level.max(&x), largest);
                let sum = level.exp_sum(&x, largest);
                prop_assert_eq!(sum.to_bits(), plain.exp_sum(&x, largest).to_bits());
                prop_assert!((sum / want - 1.0).abs() < 1e-6);
            }
        }
    }
}
