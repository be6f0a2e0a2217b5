//! Rotary position embedding (Su et al., 2021).

use super::Cpu;
use super::level::instantiate;
use super::rows::SharedRows;
use crate::math;

/// Which two elements of a head a rotation turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Neighbours, `(2i, 2i + 1)`: what GGUF files of the `llama` architecture are stored for.
    Interleaved,
    /// One from each half, `(i, i + width/2)`, as in GPT-NeoX.
    Halves,
}

/// Cosines and sines for the positions of one batch: computed once a step, used by every layer.
pub struct RopeAngles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
    layout: RopeLayout,
}

impl RopeAngles {
    /// The angles of `positions` under `frequencies`, in radians per token, one a pair of elements.
    #[must_use]
    pub fn new(
        positions: impl Iterator<Item = u32>,
        frequencies: &[f64],
        layout: RopeLayout,
    ) -> Self {
        let (cos, sin) = positions
            .flat_map(|position| frequencies.iter().map(move |f| f64::from(position) * f))
            .map(|angle| {
                let (sin, cos) = math::sin_cos(angle);
                (cos as f32, sin as f32)
            })
            .unzip();
        Self { cos, sin, pairs: frequencies.len(), layout }
    }
}

impl Cpu {
    /// Rotates the first `heads` heads of each row in place; only the first `2 · pairs` elements of a
    /// head turn, the others pass. `x`: `[rows, width]`, `width ≥ heads · head_dim`.
    ///
    /// # Panics
    /// When `x` is not as many rows as there are angles, or the heads do not fit a row or the pairs a head.
    pub fn rope(
        &self,
        x: &mut [f32],
        width: usize,
        heads: usize,
        head_dim: usize,
        angles: &RopeAngles,
    ) {
        let pairs = angles.pairs;
        assert!(heads * head_dim <= width, "rope: {heads} heads do not fit a row of {width}");
        assert!(2 * pairs <= head_dim, "rope: {pairs} pairs do not fit a head of {head_dim}");
        let rows = x.len() / width;
        assert_eq!(rows * pairs, angles.cos.len(), "rope: rows and angles differ in number");
        let x = SharedRows::new(x, width);
        self.for_rows(rows, 2 * heads * head_dim, &|row| {
            // SAFETY: each row is taken by one part.
            let row_heads = unsafe { x.range(row, 0, heads * head_dim) };
            let (cos, sin) =
                (&angles.cos[row * pairs..][..pairs], &angles.sin[row * pairs..][..pairs]);
            match angles.layout {
                RopeLayout::Interleaved => interleaved(self.level(), row_heads, head_dim, cos, sin),
                RopeLayout::Halves => halves(self.level(), row_heads, head_dim, cos, sin),
            }
        });
    }
}

instantiate!(fn interleaved(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) = interleaved_body);
instantiate!(fn halves(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) = halves_body);

#[inline(always)]
fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos))
}

#[inline(always)]
fn interleaved_body(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(head_dim) {
        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            (pair[0], pair[1]) = rotate(pair[0], pair[1], *cos, *sin);
        }
    }
}

#[inline(always)]
fn halves_body(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(head_dim) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*a, *b) = rotate(*a, *b, *cos, *sin);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    const FREQUENCIES: [f64; 4] = [1.0, 0.3, 0.05, 0.001];

    fn rotated(level: Level, x: &[f32], layout: RopeLayout) -> Vec<f32> {
        let angles = RopeAngles::new([7, 4095].into_iter(), &FREQUENCIES, layout);
        let mut out = x.to_vec();
        // Two heads of 10, of which the first 8 turn, then 5 elements that are none of rope's business.
        Cpu::with_level(1, level).unwrap().rope(&mut out, 25, 2, 10, &angles);
        out
    }

    #[test]
    #[should_panic(expected = "do not fit a row")]
    fn heads_wider_than_a_row_are_refused() {
        let angles = RopeAngles::new([0, 1].into_iter(), &FREQUENCIES, RopeLayout::Halves);
        Cpu::new(1).unwrap().rope(&mut [0.0; 40], 20, 3, 10, &angles);
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_rotation(
            x in prop::collection::vec(-4.0f32..4.0, 50),
        ) {
            for layout in [RopeLayout::Interleaved, RopeLayout::Halves] {
                let plain = rotated(Level::available()[0], &x, layout);
                for level in Level::available() {
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    prop_assert_eq!(bits(&plain), bits(&rotated(level, &x, layout)), "{}", level);
                }
                for (row, position) in [7.0, 4095.0].into_iter().enumerate() {
                    for head in 0..2 {
                        let at = row * 25 + head * 10;
                        for (pair, frequency) in FREQUENCIES.iter().enumerate() {
                            let (i, j) = match layout {
                                RopeLayout::Interleaved => (at + 2 * pair, at + 2 * pair + 1),
                                RopeLayout::Halves => (at + pair, at + 4 + pair),
                            };
                            let (sin, cos) = f64::sin_cos(position * frequency);
                            let want = f64::from(x[i]) * cos - f64::from(x[j]) * sin;
                            prop_assert!((f64::from(plain[i]) - want).abs() < 1e-5);
                            let want = f64::from(x[i]) * sin + f64::from(x[j]) * cos;
                            prop_assert!((f64::from(plain[j]) - want).abs() < 1e-5);
                        }
                        prop_assert_eq!(&plain[at + 8..at + 10], &x[at + 8..at + 10]);
                    }
                    prop_assert_eq!(&plain[row * 25 + 20..][..5], &x[row * 25 + 20..][..5]);
                }
            }
        }
    }
}
