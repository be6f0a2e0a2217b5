//! Layer normalisation (Ba, Kiros and Hinton, 2016), alone and over a sum with a block's output.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

/// The parameters of one normalisation, `[width]` each.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// The scale.
    pub weight: &'a [f32],
    /// The shift.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

impl Cpu {
    /// `x[r] = (x[r] − mean) / √(variance + eps) · weight + bias` in place, for each row of `[rows, width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn layer_norm(&self, x: &mut [f32], norm: LayerNorm<'_>) {
        let (rows, width) = check(x, norm);
        let x = SharedRows::new(x, width);
        self.for_rows(rows, 3 * width, &|row| {
            // SAFETY: each row is taken by one part.
            layer_norm(self.level(), unsafe { x.row(row) }, norm);
        });
    }

    /// As [`Cpu::layer_norm`] of `x + delta + delta_bias`, the way a post-norm block ends. `x`, `delta`:
    /// `[rows, width]`; `delta_bias`: `[width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn add_layer_norm(
        &self,
        x: &mut [f32],
        delta: &[f32],
        delta_bias: &[f32],
        norm: LayerNorm<'_>,
    ) {
        let (rows, width) = check(x, norm);
        assert_eq!(x.len(), delta.len(), "add_layer_norm: x and delta differ in size");
        assert_eq!(delta_bias.len(), width, "add_layer_norm: the delta's bias has another width");
        let x = SharedRows::new(x, width);
        self.for_rows(rows, 5 * width, &|row| {
            // SAFETY: each row is taken by one part.
            let x = unsafe { x.row(row) };
            add_biased(self.level(), x, &delta[row * width..][..width], delta_bias);
            layer_norm(self.level(), x, norm);
        });
    }
}

/// `(rows, width)`.
fn check(x: &[f32], norm: LayerNorm<'_>) -> (usize, usize) {
    let width = norm.weight.len();
    assert_eq!(norm.bias.len(), width, "layer_norm: weight and bias differ in size");
    assert!(x.len().is_multiple_of(width), "layer_norm: the input is not rows of {width}");
    (x.len() / width, width)
}

instantiate!(fn layer_norm(x: &mut [f32], norm: LayerNorm<'_>) = layer_norm_body);
instantiate!(fn add_biased(x: &mut [f32], y: &[f32], bias: &[f32]) = add_biased_body);

#[inline(always)]
fn layer_norm_body(x: &mut [f32], norm: LayerNorm<'_>) {
    let width = x.len() as f32;
    let mean = sum_of(x, |lanes| lanes) / width;
    for x in x.iter_mut() {
        *x -= mean;
    }
    let variance = sum_of(x, |lanes| lanes.mul(lanes)) / width;
    let scale = 1.0 / (variance + norm.eps).sqrt();
    for ((x, weight), bias) in x.iter_mut().zip(norm.weight).zip(norm.bias) {
        *x = *x * scale * weight + bias;
    }
}

/// `Σ of(x)`, where `of(0)` is 0.
#[inline(always)]
fn sum_of(x: &[f32], of: impl Fn(Lanes) -> Lanes) -> f32 {
    let mut sums = Lanes::ZERO;
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        sums = sums.add(of(Lanes::load(chunk)));
    }
    sums.add(of(Lanes::load_partial(chunks.remainder()))).sum()
}

#[inline(always)]
fn add_biased_body(x: &mut [f32], y: &[f32], bias: &[f32]) {
    for ((x, y), bias) in x.iter_mut().zip(y).zip(bias) {
        *x += y + bias;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    const WIDTH: usize = 50;

    fn reference(x: &[f64], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scaled = x.iter().map(|x| (x - mean) / (variance + eps).sqrt());
        scaled.zip(weight).zip(bias).map(|((x, w), b)| x * f64::from(*w) + f64::from(*b)).collect()
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-4.0f32..4.0, 3 * WIDTH),
            delta in prop::collection::vec(-4.0f32..4.0, 3 * WIDTH),
            weight in prop::collection::vec(-2.0f32..2.0, WIDTH),
            bias in prop::collection::vec(-2.0f32..2.0, WIDTH),
        ) {
            let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-5 };
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = x.clone();
                let cpu = Cpu::with_level(2, level).unwrap();
                cpu.add_layer_norm(&mut out, &delta, &weight, norm);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                let (x, delta) = (x.chunks(WIDTH), delta.chunks(WIDTH));
                for ((x, delta), out) in x.zip(delta).zip(out.chunks(WIDTH)) {
                    let sum = |i: usize| f64::from(x[i]) + f64::from(delta[i]) + f64::from(weight[i]);
                    let sums: Vec<f64> = (0..WIDTH).map(sum).collect();
                    for (out, want) in out.iter().zip(reference(&sums, &weight, &bias, 1e-5)) {
                        prop_assert!((f64::from(*out) - want).abs() < 1e-5, "{} {}", out, want);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_equal_numbers_become_the_bias() {
        let (weight, bias) = ([3.0; 20], [0.25; 20]);
        let mut x = [7.0; 40];
        let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-12 };
        Cpu::new(1).unwrap().layer_norm(&mut x, norm);
        assert_eq!(x, [0.25; 40]);
    }
}
