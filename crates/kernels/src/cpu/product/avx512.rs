//! Products with AVX-512 VNNI: sixteen rows of weights in one register.

use super::super::activations::XBlock;
use super::super::block32::{Codes, Format, Scales};
use super::super::lanes::LANES;
use super::super::tiles::VECTOR;
use super::{Coded, Kernel, Operands, Output};
use std::arch::x86_64::*;

/// The kernel for so many rows and tiles.
pub(super) fn kernel<F: Coded>(rows: usize, tiles: usize) -> Kernel {
    match (tiles, rows) {
        (1, 1) => multiply::<F, 1, 1>,
        (1, 2) => multiply::<F, 2, 1>,
        (1, 3) => multiply::<F, 3, 1>,
        (1, 4) => multiply::<F, 4, 1>,
        (1, 5) => multiply::<F, 5, 1>,
        (1, 6) => multiply::<F, 6, 1>,
        (1, 7) => multiply::<F, 7, 1>,
        (1, 8) => multiply::<F, 8, 1>,
        (2, 1) => multiply::<F, 1, 2>,
        (2, 2) => multiply::<F, 2, 2>,
        (2, 3) => multiply::<F, 3, 2>,
        (2, 4) => multiply::<F, 4, 2>,
        (2, 5) => multiply::<F, 5, 2>,
        (2, 6) => multiply::<F, 6, 2>,
        _ => unreachable!("no kernel for {rows} rows and {tiles} tiles"),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply<F: Coded, const M: usize, const N: usize>(op: &Operands<'_>, out: &mut Output<'_>) {
    op.check::<M, N>(F::FORMAT);
    let format = F::FORMAT;
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for (block, x) in op.x.as_chunks::<M>().0.iter().enumerate() {
        op.prefetch(block);
        if N > 1 {
            op.prefetch_ahead::<M, N>(format, block);
        }
        let codes: [_; N] = std::array::from_fn(|n| {
            op.tiles.as_ptr().wrapping_add(n * op.tile_bytes + block * format.code_bytes())
        });
        let integers = integers::<F, M, N>(&codes, x);
        for n in 0..N {
            let scales = op.tiles.as_ptr().wrapping_add(n * op.tile_bytes + op.scales_at());
            // SAFETY: `check` found room for the scales of all blocks.
            let (scale, second_scale, minimum) = unsafe { factors::<F>(scales, block) };
            for m in 0..M {
                let x_scale = _mm512_set1_ps(x[m].scale);
                let mut add = |scale: __m512, sum: __m512i| {
                    let scale = _mm512_mul_ps(scale, x_scale);
                    sums[m][n] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum), sums[m][n]);
                };
                add(scale, integers[0][m][n]);
                if format.has_half_scales() {
                    add(second_scale, integers[1][m][n]);
                }
                if format.has_minimum() {
                    let x_sum = _mm512_set1_ps(x[m].sum);
                    sums[m][n] = _mm512_fmadd_ps(minimum, x_sum, sums[m][n]);
                }
            }
        }
    }
    for m in 0..M {
        for (out, sums) in out.row(m).chunks_mut(LANES).zip(sums[m]) {
            let mask = u16::MAX >> (LANES - out.len());
            // SAFETY: the mask has a bit for each float of the chunk.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sums) };
        }
    }
}

/// Sums of the products of codes over a block of each tile, for all of it in `[0]`, or for its two halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn integers<F: Coded, const M: usize, const N: usize>(
    codes: &[*const u8; N],
    x: &[XBlock; M],
) -> [[[__m512i; N]; M]; 2] {
    let second = usize::from(F::FORMAT.has_half_scales());
    let mut sums = [[[_mm512_setzero_si512(); N]; M]; 2];
    for m in 0..M {
        let starts = starts(F::FORMAT, &x[m]);
        sums[0][m] = [_mm512_set1_epi32(starts[0]); N];
        sums[1][m] = [_mm512_set1_epi32(starts[1]); N];
    }
    for j in 0..4 {
        // SAFETY: `multiply` checked that whole blocks lie there.
        let words: [_; N] = std::array::from_fn(|n| unsafe { words::<F>(codes[n], j) });
        for m in 0..M {
            let (low, high) =
                (_mm512_set1_epi32(x[m].words[j]), _mm512_set1_epi32(x[m].words[j + 4]));
            for n in 0..N {
                sums[0][m][n] = _mm512_dpbusd_epi32(sums[0][m][n], words[n].0, low);
                sums[second][m][n] = _mm512_dpbusd_epi32(sums[second][m][n], words[n].1, high);
            }
        }
    }
    sums
}

/// What makes the products of unsigned codes those of codes less their offset.
#[inline(always)]
fn starts(format: Format, x: &XBlock) -> [i32; 2] {
    match (format.offset(), format.has_half_scales()) {
        (0, _) => [0; 2],
        (_, true) => x.half_offsets,
        (8, _) => [x.offsets[0], 0],
        (16, _) => [x.offsets[1], 0],
        _ => [x.offsets[2], 0],
    }
}

/// Words `j` and `j + 4` of a block of sixteen rows, as bytes.
///
/// # Safety
/// A block's codes begin at `block`, at a multiple of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn words<F: Coded>(block: *const u8, j: usize) -> (__m512i, __m512i) {
    // SAFETY: `vector` is one of the block's.
    let load = |vector: usize| unsafe { _mm512_load_si512(block.add(vector * VECTOR).cast()) };
    let shift = |bits: __m512i, left: i32| {
        if left >= 0 {
            _mm512_sllv_epi32(bits, _mm512_set1_epi32(left))
        } else {
            _mm512_srlv_epi32(bits, _mm512_set1_epi32(-left))
        }
    };
    if F::FORMAT.codes == Codes::Eight {
        return (load(j), load(j + 4));
    }
    let (bytes, mask) = (load(j), _mm512_set1_epi8(15));
    let low = _mm512_and_si512(bytes, mask);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
    let left = 4 - j as i32;
    match F::FORMAT.codes {
        Codes::Four | Codes::Eight => (low, high),
        Codes::Five => {
            let (bits, bit) = (load(4), _mm512_set1_epi8(0x10));
            (or_and(low, shift(bits, left), bit), or_and(high, shift(bits, left - 4), bit))
        }
        Codes::Six => {
            let (left, two) = (4 - 2 * j as i32, _mm512_set1_epi8(0x30));
            (or_and(low, shift(load(4), left), two), or_and(high, shift(load(5), left), two))
        }
    }
}

/// `a | b & c`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn or_and(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0b1111_1000>(a, b, c)
}

/// The scales of the two halves of a block and its minima, whatever the format has not being 0.
///
/// # Safety
/// A tile's scales begin at `scales`, that of `block` among them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn factors<F: Coded>(scales: *const u8, block: usize) -> (__m512, __m512, __m512) {
    let (scale_at, small_at) = (F::FORMAT.scale_at(block), F::FORMAT.small_at(block));
    // SAFETY: the scales of a tile have room for what the layout puts at `at`.
    let halves = |at| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(scales.add(at).cast())) };
    // SAFETY: as above.
    let small = |at| unsafe { _mm_loadu_si128(scales.add(at).cast()) };
    let unsigned = |at| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(small(at)));
    let signed = |at| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(small(at)));
    let (scale, none) = (halves(scale_at), _mm512_setzero_ps());
    match F::FORMAT.scales {
        Scales::Centred => (scale, none, none),
        Scales::Minimum => (scale, none, halves(scale_at + 32)),
        Scales::SuperMinimum => (
            _mm512_mul_ps(scale, unsigned(small_at)),
            none,
            _mm512_mul_ps(halves(scale_at + 32), unsigned(small_at + 16)),
        ),
        Scales::SuperCentred => (
            _mm512_mul_ps(scale, signed(small_at)),
            _mm512_mul_ps(scale, signed(small_at + 16)),
            none,
        ),
    }
}
