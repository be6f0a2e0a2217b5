//! Rotary position embedding (Su et al., 2021).

use super::Cpu;
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

/// How some layers turn their heads. Only the first `2 · frequencies` elements of a head turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per token, one a pair of elements.
    pub frequencies: Vec<f64>,
    /// What the turned elements are multiplied with: 1 but for YaRN and LongRoPE.
    pub magnitude: f64,
    /// Which elements are pairs.
    pub layout: RopeLayout,
}

/// Cosines and sines for the positions of one batch: computed once a step, used by every layer that turns
/// alike, in buffers that stay.
#[derive(Debug)]
pub struct RopeAngles {
    /// `[rows, pairs]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
    layout: RopeLayout,
}

impl Default for RopeAngles {
    fn default() -> Self {
        Self { cos: Vec::new(), sin: Vec::new(), pairs: 0, layout: RopeLayout::Halves }
    }
}

impl RopeAngles {
    /// Cosines, sines and layout of row `row`.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Turn<'_> {
        let at = row * self.pairs;
        Turn {
            cos: &self.cos[at..][..self.pairs],
            sin: &self.sin[at..][..self.pairs],
            layout: self.layout,
        }
    }

    /// Elements of a head that turn.
    pub(super) fn width(&self) -> usize {
        2 * self.pairs
    }
}

impl Cpu {
    /// The angles of `rope` at `positions`, into `angles`.
    pub fn rope_angles(&self, angles: &mut RopeAngles, positions: &[u32], rope: &Rope) {
        /// Floats that could be touched in the time of one sine and cosine.
        const COST: usize = 32;
        let pairs = rope.frequencies.len();
        (angles.pairs, angles.layout) = (pairs, rope.layout);
        angles.cos.resize(positions.len() * pairs, 0.0);
        angles.sin.resize(positions.len() * pairs, 0.0);
        let cos = SharedRows::new(&mut angles.cos, pairs);
        let sin = SharedRows::new(&mut angles.sin, pairs);
        self.for_rows(positions.len(), COST * pairs, &|row| {
            // SAFETY: each row of both is taken by one part.
            let (cos, sin) = unsafe { (cos.row(row), sin.row(row)) };
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&rope.frequencies) {
                let (s, c) = math::sin_cos(f64::from(positions[row]) * frequency);
                (*cos, *sin) = ((c * rope.magnitude) as f32, (s * rope.magnitude) as f32);
            }
        });
    }
}

/// How the heads of one row turn.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    layout: RopeLayout,
}

impl Turn<'_> {
    /// Turns each head of `heads` (`[heads, head_dim]`) in place.
    #[inline(always)]
    pub(super) fn apply(self, heads: &mut [f32], head_dim: usize) {
        for head in heads.chunks_exact_mut(head_dim) {
            match self.layout {
                RopeLayout::Interleaved => self.interleaved(head),
                RopeLayout::Halves => self.halves(head),
            }
        }
    }

    #[inline(always)]
    fn interleaved(self, head: &mut [f32]) {
        for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(self.cos).zip(self.sin)
        {
            (pair[0], pair[1]) = rotate(pair[0], pair[1], *cos, *sin);
        }
    }

    #[inline(always)]
    fn halves(self, head: &mut [f32]) {
        let (low, high) = head.split_at_mut(self.cos.len());
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(self.cos).zip(self.sin) {
            (*a, *b) = rotate(*a, *b, *cos, *sin);
        }
    }
}

#[inline(always)]
fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos))
}
