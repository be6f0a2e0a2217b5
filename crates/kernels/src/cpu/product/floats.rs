//! Products with weights that are floats: in their own width, accumulated in single precision.
//!
//! An output element is one chain of fused multiply-adds in the order of the columns, on every level.

use super::super::block_type::BlockType;
use super::super::half_float::{bf16, f16};
use super::super::lanes::{LANES, Lanes};
use super::super::level::{Level, Tier};
use super::Output;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows of activations (`[rows, cols]`) times one tile.
pub(in super::super) fn multiply(
    level: Level,
    dtype: BlockType,
    tile: &[u8],
    x: &[f32],
    cols: usize,
    out: &mut Output<'_>,
) {
    match dtype {
        BlockType::F32 => multiply_tile::<F32>(level, tile, x, cols, out),
        BlockType::F16 => multiply_tile::<F16>(level, tile, x, cols, out),
        BlockType::BF16 => multiply_tile::<BF16>(level, tile, x, cols, out),
        _ => unreachable!("{dtype} has codes"),
    }
}

/// Takes the rows four, two and one at a time.
fn multiply_tile<C: Column>(
    level: Level,
    tile: &[u8],
    x: &[f32],
    cols: usize,
    out: &mut Output<'_>,
) {
    let (rows, mut row) = (x.len() / cols, 0);
    let columns = &tile[..cols * C::BYTES];
    while row < rows {
        let x = &x[row * cols..];
        row += match rows - row {
            4.. => store(out, row, multiply_rows::<C, 4>(level, columns, x)),
            2.. => store(out, row, multiply_rows::<C, 2>(level, columns, x)),
            _ => store(out, row, multiply_rows::<C, 1>(level, columns, x)),
        };
    }
}

/// Writes sums to the rows from `row`; returns how many.
fn store<const M: usize>(out: &mut Output<'_>, row: usize, sums: [Lanes; M]) -> usize {
    for (m, sums) in sums.into_iter().enumerate() {
        sums.store_partial(out.row(row + m));
    }
    M
}

/// `M` rows of activations times the columns of a tile.
fn multiply_rows<C: Column, const M: usize>(level: Level, columns: &[u8], x: &[f32]) -> [Lanes; M] {
    let cols = columns.len() / C::BYTES;
    let x: [&[f32]; M] = std::array::from_fn(|m| &x[m * cols..][..cols]);
    match level.tier() {
        Tier::Plain => plain::<C, M>(columns, x),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Level` of this tier exists only after the CPU reported these features.
        Tier::Avx2 => unsafe { avx2::<C, M>(columns, x) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Tier::Avx512 => unsafe { avx512::<C, M>(columns, x) },
    }
}

fn plain<C: Column, const M: usize>(columns: &[u8], x: [&[f32]; M]) -> [Lanes; M] {
    x.map(|x| {
        let mut sums = Lanes::ZERO;
        for (column, x) in columns.chunks_exact(C::BYTES).zip(x) {
            sums = C::widen(column).mul_add(Lanes::splat(*x), sums);
        }
        sums
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<C: Column, const M: usize>(columns: &[u8], x: [&[f32]; M]) -> [Lanes; M] {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    for (k, column) in columns.chunks_exact(C::BYTES).enumerate() {
        let (low, high) = column.split_at(C::BYTES / 2);
        // SAFETY: these are the instructions of this function, and each half holds eight numbers.
        let column = unsafe { [C::widen_eight(low), C::widen_eight(high)] };
        for m in 0..M {
            // SAFETY: a row has as many elements as there are columns.
            let x = _mm256_set1_ps(unsafe { *x[m].get_unchecked(k) });
            sums[m] = [
                _mm256_fmadd_ps(column[0], x, sums[m][0]),
                _mm256_fmadd_ps(column[1], x, sums[m][1]),
            ];
        }
    }
    sums.map(|[low, high]| {
        let mut lanes = Lanes::ZERO;
        // SAFETY: a `Lanes` is two times eight floats.
        unsafe {
            _mm256_store_ps(lanes.0.as_mut_ptr(), low);
            _mm256_store_ps(lanes.0.as_mut_ptr().add(8), high);
        }
        lanes
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn avx512<C: Column, const M: usize>(columns: &[u8], x: [&[f32]; M]) -> [Lanes; M] {
    let mut sums = [_mm512_setzero_ps(); M];
    for (k, column) in columns.chunks_exact(C::BYTES).enumerate() {
        // SAFETY: these are the instructions of this function, and a column holds sixteen numbers.
        let column = unsafe { C::widen_sixteen(column) };
        for m in 0..M {
            // SAFETY: a row has as many elements as there are columns.
            let x = _mm512_set1_ps(unsafe { *x[m].get_unchecked(k) });
            sums[m] = _mm512_fmadd_ps(column, x, sums[m]);
        }
    }
    sums.map(|sums| {
        let mut lanes = Lanes::ZERO;
        // SAFETY: a `Lanes` is sixteen floats.
        unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), sums) };
        lanes
    })
}

/// The type of a tile's numbers; a column has sixteen.
trait Column {
    /// Bytes of a column.
    const BYTES: usize;

    /// A column in single precision.
    fn widen(bytes: &[u8]) -> Lanes;

    /// Half a column.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C, and the bytes are half a column.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_eight(bytes: &[u8]) -> __m256;

    /// A column.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the bytes are a column.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_sixteen(bytes: &[u8]) -> __m512;
}

struct F32;
struct F16;
struct BF16;

impl Column for F32 {
    const BYTES: usize = 4 * LANES;

    fn widen(bytes: &[u8]) -> Lanes {
        let (numbers, _) = bytes.as_chunks();
        Lanes(std::array::from_fn(|lane| f32::from_le_bytes(numbers[lane])))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen_eight(bytes: &[u8]) -> __m256 {
        // SAFETY: passed on.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen_sixteen(bytes: &[u8]) -> __m512 {
        // SAFETY: passed on.
        unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
    }
}

impl Column for F16 {
    const BYTES: usize = 2 * LANES;

    fn widen(bytes: &[u8]) -> Lanes {
        let (numbers, _) = bytes.as_chunks();
        Lanes(std::array::from_fn(|lane| f16(u16::from_le_bytes(numbers[lane]))))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen_eight(bytes: &[u8]) -> __m256 {
        // SAFETY: passed on.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen_sixteen(bytes: &[u8]) -> __m512 {
        // SAFETY: passed on.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }
}

impl Column for BF16 {
    const BYTES: usize = 2 * LANES;

    fn widen(bytes: &[u8]) -> Lanes {
        let (numbers, _) = bytes.as_chunks();
        Lanes(std::array::from_fn(|lane| bf16(u16::from_le_bytes(numbers[lane]))))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen_eight(bytes: &[u8]) -> __m256 {
        // SAFETY: passed on.
        let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen_sixteen(bytes: &[u8]) -> __m512 {
        // SAFETY: passed on.
        let halves = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
}
