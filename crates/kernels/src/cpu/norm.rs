//! Root-mean-square normalisation (Zhang and Sennrich, 2019), alone and around a residual.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

/// What becomes of a block's output on its way into the residual, and what the next block reads.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// The norm of the block's output (Gemma 2 and 3, OLMo 2), `[width]`.
    pub post: Option<&'a [f32]>,
    /// What the output is then multiplied with: 1 but for Granite.
    pub scale: f32,
    /// The norm of the sum for the next block; `None` where that reads the residual as it is (OLMo 2).
    pub pre: Option<&'a [f32]>,
    /// Added to the mean square in both norms.
    pub eps: f32,
}

impl Cpu {
    /// `out[r] = x[r] / rms(x[r]) · weight` for each row. `x`, `out`: `[rows, width]`; `weight`: `[width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        assert_eq!(x.len(), out.len(), "rms_norm: input and output differ in size");
        let out = SharedRows::new(out, width);
        self.for_rows(x.len() / width, 2 * width, &|row| {
            // SAFETY: each row is taken by one part.
            let out = unsafe { out.row(row) };
            rms_norm(self.level(), &x[row * width..][..width], weight, eps, out);
        });
    }

    /// Adds a block's output `delta` to `residual` in place and leaves the next block's input in `out`. All
    /// `[rows, width]`; `delta` is used up.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn add_to_residual(
        &self,
        residual: &mut [f32],
        delta: &mut [f32],
        width: usize,
        norms: &Residual<'_>,
        out: &mut [f32],
    ) {
        assert_eq!(
            residual.len(),
            delta.len(),
            "add_to_residual: residual and delta differ in size"
        );
        assert_eq!(
            residual.len(),
            out.len(),
            "add_to_residual: residual and output differ in size"
        );
        for norm in [norms.pre, norms.post].into_iter().flatten() {
            assert_eq!(norm.len(), width, "add_to_residual: a norm of another width");
        }
        let rows = residual.len() / width;
        let (residual, delta, out) = (
            SharedRows::new(residual, width),
            SharedRows::new(delta, width),
            SharedRows::new(out, width),
        );
        self.for_rows(rows, 4 * width, &|row| {
            // SAFETY: each row of the three matrices is taken by one part.
            let (residual, delta, out) =
                unsafe { (residual.row(row), delta.row(row), out.row(row)) };
            add_to_residual(self.level(), residual, delta, norms, out);
        });
    }
}

instantiate!(fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body);
instantiate!(
    fn add_to_residual(
        residual: &mut [f32],
        delta: &mut [f32],
        norms: &Residual<'_>,
        out: &mut [f32],
    ) = add_to_residual_body
);

/// `1 / rms(x)`.
#[inline(always)]
pub(super) fn rms_scale(x: &[f32], eps: f32) -> f32 {
    let mut squares = Lanes::ZERO;
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        let chunk = Lanes::load(chunk);
        squares = chunk.mul_add(chunk, squares);
    }
    let rest = Lanes::load_partial(chunks.remainder());
    squares = rest.mul_add(rest, squares);
    1.0 / (squares.sum() / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = rms_scale(x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn add_to_residual_body(
    residual: &mut [f32],
    delta: &mut [f32],
    norms: &Residual<'_>,
    out: &mut [f32],
) {
    if let Some(weight) = norms.post {
        let scale = rms_scale(delta, norms.eps);
        delta.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
    }
    for (residual, delta) in residual.iter_mut().zip(delta) {
        *residual = delta.mul_add(norms.scale, *residual);
    }
    match norms.pre {
        Some(weight) => rms_norm_body(residual, weight, norms.eps, out),
        None => out.copy_from_slice(residual),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    const WIDTH: usize = 50;

    /// By definition, in double precision.
    fn normed(x: &[f64], weight: &[f32]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(weight).map(|(x, w)| x / (mean + 1e-5).sqrt() * f64::from(*w)).collect()
    }

    /// The new residual of a row, and what the next block reads.
    fn reference(residual: &[f32], delta: &[f32], norms: &Residual<'_>) -> (Vec<f64>, Vec<f64>) {
        let delta: Vec<f64> = delta.iter().copied().map(f64::from).collect();
        let delta = norms.post.map_or(delta.clone(), |weight| normed(&delta, weight));
        let scale = f64::from(norms.scale);
        let sum = residual.iter().zip(delta).map(|(x, d)| f64::from(*x) + scale * d);
        let sum: Vec<f64> = sum.collect();
        let out = norms.pre.map_or(sum.clone(), |weight| normed(&sum, weight));
        (sum, out)
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-4.0f32..4.0, 3 * WIDTH),
            y in prop::collection::vec(-4.0f32..4.0, 3 * WIDTH),
            weight in prop::collection::vec(-2.0f32..2.0, 2 * WIDTH),
            (pre, post) in any::<(bool, bool)>(),
            scale in prop::sample::select(vec![1.0f32, 0.22]),
        ) {
            let norms = Residual {
                post: post.then_some(&weight[WIDTH..]),
                pre: pre.then_some(&weight[..WIDTH]),
                scale,
                eps: 1e-5,
            };
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let cpu = Cpu::with_level(2, level).unwrap();
                let (mut residual, mut delta, mut out) = (x.clone(), y.clone(), vec![0.0; x.len()]);
                cpu.add_to_residual(&mut residual, &mut delta, WIDTH, &norms, &mut out);
                let bits = residual.iter().chain(&out).map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for row in 0..3 {
                    let at = row * WIDTH..(row + 1) * WIDTH;
                    let want = reference(&x[at.clone()], &y[at.clone()], &norms);
                    for (i, at) in at.enumerate() {
                        prop_assert!((f64::from(residual[at]) - want.0[i]).abs() < 1e-4);
                        prop_assert!((f64::from(out[at]) - want.1[i]).abs() < 1e-4);
                    }
                }
            }
        }

        #[test]
        fn a_norm_alone_is_that_of_a_sum_with_nothing(
            x in prop::collection::vec(-4.0f32..4.0, WIDTH),
            weight in prop::collection::vec(-2.0f32..2.0, WIDTH),
        ) {
            let norms = Residual { post: None, pre: Some(&weight), scale: 1.0, eps: 1e-5 };
            let (mut residual, mut out, mut alone) =
                (x.clone(), vec![0.0; WIDTH], vec![0.0; WIDTH]);
            let cpu = Cpu::new(1).unwrap();
            cpu.add_to_residual(&mut residual, &mut [0.0; WIDTH], WIDTH, &norms, &mut out);
            cpu.rms_norm(&x, &weight, 1e-5, &mut alone);
            prop_assert_eq!(out, alone);
        }
    }
}
