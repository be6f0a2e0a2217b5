//! Products with AVX2: the sixteen rows of a tile as two times eight.
//!
//! `vpmaddubsw` adds two products in sixteen bits and saturates, so how many of its results may be added before
//! they are widened is what the formats differ in: each is at most `2 · code · 127`.

use super::super::activations::XBlock;
use super::super::block32::{Codes, Format, Scales};
use super::super::lanes::Lanes;
use super::super::tiles::VECTOR;
use super::{Coded, Kernel, Operands};
use std::arch::x86_64::*;

/// The kernel for so many rows.
pub(super) fn kernel<F: Coded>(rows: usize, tiles: usize) -> Kernel {
    match (tiles, rows) {
        (1, 1) => multiply::<F, 1>,
        (1, 2) => multiply::<F, 2>,
        (1, 3) => multiply::<F, 3>,
        (1, 4) => multiply::<F, 4>,
        _ => unreachable!("no kernel for {rows} rows and {tiles} tiles"),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<F: Coded, const M: usize>(op: &Operands<'_>, out: &mut [Lanes]) {
    op.check::<M, 1>(F::FORMAT);
    for eight in 0..2 {
        let sums = multiply_eight::<F, M>(op, eight);
        for m in 0..M {
            // SAFETY: these are eight of the sixteen floats of a `Lanes`.
            unsafe { _mm256_storeu_ps(out[m].0.as_mut_ptr().add(8 * eight), sums[m]) };
        }
    }
}

/// The products with the first or second eight rows of the tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_eight<F: Coded, const M: usize>(op: &Operands<'_>, eight: usize) -> [__m256; M] {
    let format = F::FORMAT;
    let mut sums = [_mm256_setzero_ps(); M];
    for (block, x) in op.x.as_chunks::<M>().0.iter().enumerate() {
        if eight == 0 {
            op.prefetch.fetch(block);
        }
        let codes = op.tiles.as_ptr().wrapping_add(block * format.code_bytes() + 32 * eight);
        let scales = op.tiles.as_ptr().wrapping_add(op.scales_at());
        // SAFETY: `check` found whole blocks and their scales in the tile.
        let (integers, factors) =
            unsafe { (integers::<F, M>(codes, x), factors::<F>(scales, block, eight)) };
        let (scale, second_scale, minimum) = factors;
        for m in 0..M {
            let x_scale = _mm256_set1_ps(x[m].scale);
            let mut add = |scale: __m256, sum: __m256i| {
                let scale = _mm256_mul_ps(scale, x_scale);
                sums[m] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), sums[m]);
            };
            add(scale, integers[0][m]);
            if format.has_half_scales() {
                add(second_scale, integers[1][m]);
            }
            if format.has_minimum() {
                sums[m] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(x[m].sum), sums[m]);
            }
        }
    }
    sums
}

/// How many pairs of words (`j` and `j + 4`) are added up in sixteen bits: `vpmaddubsw` results of at most 3,810,
/// 7,874 and 16,002 for four, five and six bits, and at most 32,767 in a sum. The two words of a pair go into one
/// sum, or into one for each half of the block.
const fn pairs_narrow(codes: Codes) -> usize {
    match codes {
        Codes::Four => 4,
        Codes::Five | Codes::Six => 2,
        Codes::Eight => 0,
    }
}

/// Sums of the products of codes over a block, for all of it in `[0]`, or for its two halves.
///
/// # Safety
/// Eight rows of a block's codes begin at `codes`, at a multiple of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn integers<F: Coded, const M: usize>(
    codes: *const u8,
    x: &[XBlock; M],
) -> [[__m256i; M]; 2] {
    let second = usize::from(F::FORMAT.has_half_scales());
    let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
    let mut wide = [[zero; M]; 2];
    for m in 0..M {
        wide[0][m] = _mm256_set1_epi32(starts(F::FORMAT, &x[m])[0]);
        wide[1][m] = _mm256_set1_epi32(starts(F::FORMAT, &x[m])[1]);
    }
    let mut narrow = [[zero; M]; 2];
    for j in 0..4 {
        // SAFETY: passed on.
        let (low, high) = unsafe { words::<F>(codes, j) };
        for m in 0..M {
            let x_low = _mm256_set1_epi32(x[m].words[j]);
            let x_high = _mm256_set1_epi32(x[m].words[j + 4]);
            if F::FORMAT.codes == Codes::Eight {
                let product = _mm256_madd_epi16(signed_products(low, x_low), ones);
                wide[0][m] = _mm256_add_epi32(wide[0][m], product);
                let product = _mm256_madd_epi16(signed_products(high, x_high), ones);
                wide[0][m] = _mm256_add_epi32(wide[0][m], product);
                continue;
            }
            narrow[0][m] = _mm256_add_epi16(narrow[0][m], _mm256_maddubs_epi16(low, x_low));
            let product = _mm256_maddubs_epi16(high, x_high);
            narrow[second][m] = _mm256_add_epi16(narrow[second][m], product);
            if (j + 1) % pairs_narrow(F::FORMAT.codes) == 0 {
                for half in 0..=second {
                    let product = _mm256_madd_epi16(narrow[half][m], ones);
                    wide[half][m] = _mm256_add_epi32(wide[half][m], product);
                    narrow[half][m] = zero;
                }
            }
        }
    }
    wide
}

/// Pairs of products of signed bytes. `vpmaddubsw` wants one factor unsigned, so the sign moves to the other: at
/// most 2 · 128 · 127 in magnitude, as activations are never -128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_products(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
}

/// What makes the products of unsigned codes those of codes less their offset; codes of eight bits are signed
/// here.
#[inline(always)]
fn starts(format: Format, x: &XBlock) -> [i32; 2] {
    match (format.offset(), format.has_half_scales()) {
        (_, true) => x.half_offsets,
        (8, _) => [x.offsets[0], 0],
        (16, _) => [x.offsets[1], 0],
        _ => [0; 2],
    }
}

/// Words `j` and `j + 4` of a block of eight rows, as bytes: unsigned, but signed where they have eight bits.
///
/// # Safety
/// Eight rows of a block's codes begin at `block`, at a multiple of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn words<F: Coded>(block: *const u8, j: usize) -> (__m256i, __m256i) {
    // SAFETY: `vector` is one of the block's.
    let load = |vector: usize| unsafe { _mm256_load_si256(block.add(vector * VECTOR).cast()) };
    let shift = |bits: __m256i, left: i32| {
        if left >= 0 {
            _mm256_sllv_epi32(bits, _mm256_set1_epi32(left))
        } else {
            _mm256_srlv_epi32(bits, _mm256_set1_epi32(-left))
        }
    };
    let or_and = |a, b, c| _mm256_or_si256(a, _mm256_and_si256(b, c));
    if F::FORMAT.codes == Codes::Eight {
        let sign = _mm256_set1_epi8(-128);
        return (_mm256_xor_si256(load(j), sign), _mm256_xor_si256(load(j + 4), sign));
    }
    let (bytes, mask) = (load(j), _mm256_set1_epi8(15));
    let low = _mm256_and_si256(bytes, mask);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
    let left = 4 - j as i32;
    match F::FORMAT.codes {
        Codes::Four | Codes::Eight => (low, high),
        Codes::Five => {
            let (bits, bit) = (load(4), _mm256_set1_epi8(0x10));
            (or_and(low, shift(bits, left), bit), or_and(high, shift(bits, left - 4), bit))
        }
        Codes::Six => {
            let (left, two) = (4 - 2 * j as i32, _mm256_set1_epi8(0x30));
            (or_and(low, shift(load(4), left), two), or_and(high, shift(load(5), left), two))
        }
    }
}

/// The scales of the two halves of a block of eight rows and its minima, whatever the format has not being 0.
///
/// # Safety
/// A tile's scales begin at `scales`, that of `block` among them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn factors<F: Coded>(
    scales: *const u8,
    block: usize,
    eight: usize,
) -> (__m256, __m256, __m256) {
    let scale_at = F::FORMAT.scale_at(block) + 16 * eight;
    let small_at = F::FORMAT.small_at(block) + 8 * eight;
    // SAFETY: the scales of a tile have room for what the layout puts at `at`.
    let halves = |at| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(scales.add(at).cast())) };
    // SAFETY: as above.
    let small = |at| unsafe { _mm_loadl_epi64(scales.add(at).cast()) };
    let unsigned = |at| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small(at)));
    let signed = |at| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(small(at)));
    let (scale, none) = (halves(scale_at), _mm256_setzero_ps());
    match F::FORMAT.scales {
        Scales::Centred => (scale, none, none),
        Scales::Minimum => (scale, none, halves(scale_at + 32)),
        Scales::SuperMinimum => (
            _mm256_mul_ps(scale, unsigned(small_at)),
            none,
            _mm256_mul_ps(halves(scale_at + 32), unsigned(small_at + 16)),
        ),
        Scales::SuperCentred => (
            _mm256_mul_ps(scale, signed(small_at)),
            _mm256_mul_ps(scale, signed(small_at + 16)),
            none,
        ),
    }
}
