//! Activations as eight-bit integers.
//!
//! A block of 32 becomes codes in [-127, 127] and a scale, the largest magnitude over 127; ties round to even.
//! What a weight's format asks of the block beside its codes is worked out here, once.

use super::block32::BLOCK;
use super::lanes::LANES;
use super::simd::{Simd, instantiate_simd};
use std::ops::Range;

/// Below this a block is taken for zeros: its reciprocal would leave the range of a float.
const TINY: f32 = 1e-30;

/// Thirty-two activations of one row: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct XBlock {
    /// Four codes each, the first in the lowest byte.
    pub(super) words: [i32; 8],
    /// What a code is worth. Not a number where an activation is not finite, so that the product is not one either.
    pub(super) scale: f32,
    /// The scale times the sum of the codes: what a weight block's minimum multiplies.
    pub(super) sum: f32,
    /// The sum of the codes times -8, -16 and -128: what is added for the offset of a weight's codes.
    pub(super) offsets: [i32; 3],
    /// The sums of the two halves times -32.
    pub(super) half_offsets: [i32; 2],
}

impl XBlock {
    const ZERO: Self =
        Self { words: [0; 8], scale: 0.0, sum: 0.0, offsets: [0; 3], half_offsets: [0; 2] };

    #[inline(always)]
    fn quantise<S: Simd>(simd: S, x: &[f32; BLOCK]) -> Self {
        let [low, high] = [0, 1].map(|half| simd.load(&x.as_chunks::<LANES>().0[half]));
        let largest = simd.largest_magnitude(low, high);
        if !largest.is_finite() {
            return Self { scale: f32::NAN, sum: f32::NAN, ..Self::ZERO };
        }
        if largest < TINY {
            return Self::ZERO;
        }
        let (scale, inverse) = (largest / 127.0, simd.splat(127.0 / largest));
        let mut codes = [[0; LANES]; 2];
        let halves =
            [simd.bytes(low, inverse, &mut codes[0]), simd.bytes(high, inverse, &mut codes[1])];
        let codes = codes.as_flattened().as_chunks::<4>().0;
        let words = std::array::from_fn(|j| i32::from_le_bytes(codes[j]));
        let sum = halves[0] + halves[1];
        Self {
            words,
            scale,
            sum: scale * sum as f32,
            offsets: [-8 * sum, -16 * sum, -128 * sum],
            half_offsets: halves.map(|half| -32 * half),
        }
    }
}

instantiate_simd!(
    /// Quantises one row, block `b` of which becomes `out[b · width + at]`.
    fn quantise_row(x: &[f32], out: &mut [XBlock], width: usize, at: usize) = quantise_row_body
);

#[inline(always)]
fn quantise_row_body<S: Simd>(simd: S, x: &[f32], out: &mut [XBlock], width: usize, at: usize) {
    for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        out[block * width + at] = XBlock::quantise(simd, x);
    }
}

/// Rows dealt out evenly in groups that a kernel takes at once. The blocks of a group lie together, block after block
/// and in each of them row after row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    rows: usize,
    pub(super) count: usize,
}

impl Groups {
    /// Groups of at most `most` of `rows` rows.
    pub(super) fn new(rows: usize, most: usize) -> Self {
        Self { rows, count: rows.div_ceil(most) }
    }

    /// The rows of a group.
    pub(super) fn rows(&self, group: usize) -> Range<usize> {
        group * self.rows / self.count..(group + 1) * self.rows / self.count
    }
}

/// Memory for quantised activations, kept from product to product.
#[derive(Default)]
pub(super) struct Scratch(Vec<XBlock>);

impl Scratch {
    /// Room for `blocks`, whatever is in it.
    pub(super) fn blocks(&mut self, blocks: usize) -> &mut [XBlock] {
        if self.0.len() < blocks {
            self.0.resize(blocks, XBlock::ZERO);
        }
        &mut self.0[..blocks]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    fn quantised(level: Level, x: &[f32; BLOCK]) -> XBlock {
        let mut out = [XBlock::ZERO];
        quantise_row(level, x, &mut out, 1, 0);
        out[0]
    }

    fn codes(block: &XBlock) -> Vec<i8> {
        block.words.iter().flat_map(|word| word.to_le_bytes().map(u8::cast_signed)).collect()
    }

    proptest! {
        #[test]
        fn codes_are_the_nearest_and_alike_on_all_levels(
            x in proptest::array::uniform32(-8.0f32..8.0), exponent in -90i32..90,
        ) {
            let x = x.map(|x| x * 2.0f32.powi(exponent));
            let plain = quantised(Level::available()[0], &x);
            let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            prop_assert_eq!(plain.scale, largest / 127.0);
            for (code, x) in codes(&plain).iter().zip(x) {
                prop_assert_eq!(f32::from(*code), (x * (127.0 / largest)).round_ties_even());
            }
            let sum: i32 = codes(&plain).into_iter().map(i32::from).sum();
            prop_assert_eq!(plain.offsets, [-8 * sum, -16 * sum, -128 * sum]);
            prop_assert_eq!(plain.half_offsets.iter().sum::<i32>(), -32 * sum);
            for level in Level::available() {
                prop_assert_eq!(format!("{:?}", quantised(level, &x)), format!("{plain:?}"));
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows_and_what_is_tiny_is_zero() {
        for level in Level::available() {
            for odd in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = [1.0; BLOCK];
                x[19] = odd;
                let block = quantised(level, &x);
                assert!(block.scale.is_nan() && block.sum.is_nan() && block.words == [0; 8]);
            }
            for tiny in [0.0, 1e-31, f32::MIN_POSITIVE / 2.0] {
                let block = quantised(level, &[tiny; BLOCK]);
                assert!(block.scale == 0.0 && block.words == [0; 8]);
            }
        }
    }

    #[test]
    fn groups_cover_all_rows_evenly() {
        for rows in 1..100 {
            let groups = Groups::new(rows, 6);
            let sizes: Vec<usize> = (0..groups.count).map(|g| groups.rows(g).len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), rows);
            assert!(sizes.iter().all(|size| (1..=6).contains(size)));
            assert_eq!(groups.rows(0).start, 0);
        }
    }
}
