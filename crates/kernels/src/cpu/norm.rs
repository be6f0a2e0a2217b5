//! Root-mean-square normalisation (Zhang and Sennrich, 2019), with and without a residual.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

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

    /// Adds `delta` to `residual` in place, then normalises the sum into `out`. All `[rows, width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn add_rms_norm(
        &self,
        residual: &mut [f32],
        delta: &[f32],
        weight: &[f32],
        eps: f32,
        out: &mut [f32],
    ) {
        let width = weight.len();
        assert_eq!(residual.len(), delta.len(), "add_rms_norm: residual and delta differ in size");
        assert_eq!(residual.len(), out.len(), "add_rms_norm: residual and output differ in size");
        let rows = residual.len() / width;
        let (residual, out) = (SharedRows::new(residual, width), SharedRows::new(out, width));
        self.for_rows(rows, 4 * width, &|row| {
            // SAFETY: each row of both matrices is taken by one part.
            let (residual, out) = unsafe { (residual.row(row), out.row(row)) };
            add(self.level(), residual, &delta[row * width..][..width]);
            rms_norm(self.level(), residual, weight, eps, out);
        });
    }

    /// Adds `delta` to `residual` in place.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn add(&self, residual: &mut [f32], delta: &[f32]) {
        assert_eq!(residual.len(), delta.len(), "add: residual and delta differ in size");
        add(self.level(), residual, delta);
    }
}

instantiate!(fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body);
instantiate!(fn add(x: &mut [f32], y: &[f32]) = add_body);

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut squares = Lanes::ZERO;
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        let chunk = Lanes::load(chunk);
        squares = chunk.mul_add(chunk, squares);
    }
    let rest = Lanes::load_partial(chunks.remainder());
    squares = rest.mul_add(rest, squares);
    let scale = 1.0 / (squares.sum() / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-4.0f32..4.0, 3 * 50),
            weight in prop::collection::vec(-2.0f32..2.0, 50),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let cpu = Cpu::with_level(2, level).unwrap();
                let (mut residual, mut out) = (x.clone(), vec![0.0; x.len()]);
                cpu.add_rms_norm(&mut residual, &x, &weight, 1e-5, &mut out);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for (row, out) in residual.chunks(50).zip(out.chunks(50)) {
                    let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 50.0;
                    for i in 0..50 {
                        let want = f64::from(row[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                        prop_assert!((f64::from(out[i]) - want).abs() < 1e-4);
                    }
                }
            }
        }
    }
}
