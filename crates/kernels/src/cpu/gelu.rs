//! The exact Gaussian error linear unit (Hendrycks and Gimpel, 2016): `x · Φ(x)`, by an error function of our
//! own, for the C library's differs by processor.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

impl Cpu {
    /// `x = gelu(x + bias)` in place. `x`: `[rows, width]`; `bias`: `[width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn bias_gelu(&self, x: &mut [f32], bias: &[f32]) {
        let width = bias.len();
        assert!(x.len().is_multiple_of(width), "bias_gelu: the input is not rows of {width}");
        let rows = x.len() / width;
        let x = SharedRows::new(x, width);
        self.for_rows(rows, 8 * width, &|row| {
            // SAFETY: each row is taken by one part.
            bias_gelu(self.level(), unsafe { x.row(row) }, bias);
        });
    }
}

instantiate!(fn bias_gelu(x: &mut [f32], bias: &[f32]) = bias_gelu_body);

#[inline(always)]
fn bias_gelu_body(x: &mut [f32], bias: &[f32]) {
    let mut chunks = x.chunks_exact_mut(LANES);
    let mut biases = bias.chunks_exact(LANES);
    for (chunk, bias) in (&mut chunks).zip(&mut biases) {
        let mut lanes = Lanes::load(chunk).add(Lanes::load(bias));
        for value in &mut lanes.0 {
            *value = gelu(*value);
        }
        lanes.store(chunk);
    }
    for (x, bias) in chunks.into_remainder().iter_mut().zip(biases.remainder()) {
        *x = gelu(*x + bias);
    }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function within 3e-7. An odd rational function, the one of Eigen's `generic_fast_erf_float`, and
/// exactly 1 where that is the nearest float: else `gelu` would grow again far out on the left. No branch and no
/// call, so that it vectorises.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const ONE_FROM: f32 = 3.92;
    let square = x * x;
    let mut p = -2.726_142_3e-10_f32;
    p = p.mul_add(square, 2.770_681_4e-8);
    p = p.mul_add(square, -2.101_024e-6);
    p = p.mul_add(square, -5.692_506_5e-5);
    p = p.mul_add(square, -7.349_906_3e-4);
    p = p.mul_add(square, -2.954_6e-3);
    p = p.mul_add(square, -1.609_603_3e-2);
    let mut q = -1.456_607_2e-5_f32;
    q = q.mul_add(square, -2.133_740_6e-4);
    q = q.mul_add(square, -1.682_827e-3);
    q = q.mul_add(square, -7.373_329e-3);
    q = q.mul_add(square, -1.426_473_9e-2);
    let within = x * p / q;
    let within = if x > ONE_FROM { 1.0 } else { within };
    if x < -ONE_FROM { -1.0 } else { within }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    /// Its Taylor series, in double precision; enough terms for |x| ≤ 4.5.
    fn true_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    proptest! {
        #[test]
        fn erf_is_close_to_the_true_value(x in -4.5f32..4.5) {
            let want = true_erf(f64::from(x));
            prop_assert!((f64::from(erf(x)) - want).abs() < 3e-7, "{} for {x}", erf(x));
        }

        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-12.0f32..6.0, 2 * 37),
            bias in prop::collection::vec(-0.3f32..0.3, 37),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = x.clone();
                Cpu::with_level(2, level).unwrap().bias_gelu(&mut out, &bias);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for (i, out) in out.iter().enumerate() {
                    let x = f64::from(x[i] + bias[i % 37]);
                    let inner = (x * std::f64::consts::FRAC_1_SQRT_2).clamp(-4.5, 4.5);
                    let want = 0.5 * x * (1.0 + true_erf(inner));
                    prop_assert!((f64::from(*out) - want).abs() < 1e-6, "{} for {}", out, x);
                }
            }
        }
    }

    #[test]
    fn far_out_it_is_the_identity_or_nothing() {
        assert_eq!((erf(0.0), erf(4.0), erf(-9.0)), (0.0, 1.0, -1.0));
        assert_eq!((gelu(40.0), gelu(-40.0)), (40.0, 0.0));
        assert!(gelu(f32::NAN).is_nan());
    }
}
