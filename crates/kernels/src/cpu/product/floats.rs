//! Products with weights that are floats: in their own width, accumulated in single precision.
//!
//! An output element is one chain of fused multiply-adds in the order of the columns.

use super::super::block_type::BlockType;
use super::super::half_float::{bf16, f16};
use super::super::lanes::{LANES, Lanes};
use super::super::level::{Level, instantiate};

/// Rows that meet a weight while it is widened.
const ROWS: usize = 4;

/// Rows of activations (`[rows, cols]`) times one tile; `out`: `[rows]`.
pub(in super::super) fn multiply(
    level: Level,
    dtype: BlockType,
    tile: &[u8],
    x: &[f32],
    cols: usize,
    out: &mut [Lanes],
) {
    match dtype {
        BlockType::F32 => f32_tile(level, tile, x, cols, out),
        BlockType::F16 => f16_tile(level, tile, x, cols, out),
        BlockType::BF16 => bf16_tile(level, tile, x, cols, out),
        _ => unreachable!("{dtype} has codes"),
    }
}

instantiate!(fn f32_tile(tile: &[u8], x: &[f32], cols: usize, out: &mut [Lanes]) = tile_body::<F32, 64>);
instantiate!(fn f16_tile(tile: &[u8], x: &[f32], cols: usize, out: &mut [Lanes]) = tile_body::<F16, 32>);
instantiate!(fn bf16_tile(tile: &[u8], x: &[f32], cols: usize, out: &mut [Lanes]) = tile_body::<BF16, 32>);

/// A column of a tile in `BYTES` bytes.
trait Column<const BYTES: usize> {
    fn widen(bytes: &[u8; BYTES]) -> Lanes;
}

struct F32;
struct F16;
struct BF16;

impl Column<64> for F32 {
    #[inline(always)]
    fn widen(bytes: &[u8; 64]) -> Lanes {
        let mut lanes = [0.0; LANES];
        for lane in 0..LANES {
            let at = 4 * lane;
            lanes[lane] =
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        }
        Lanes(lanes)
    }
}

impl Column<32> for F16 {
    #[inline(always)]
    fn widen(bytes: &[u8; 32]) -> Lanes {
        let mut lanes = [0.0; LANES];
        for lane in 0..LANES {
            lanes[lane] = f16(u16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]));
        }
        Lanes(lanes)
    }
}

impl Column<32> for BF16 {
    #[inline(always)]
    fn widen(bytes: &[u8; 32]) -> Lanes {
        let mut lanes = [0.0; LANES];
        for lane in 0..LANES {
            lanes[lane] = bf16(u16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]));
        }
        Lanes(lanes)
    }
}

#[inline(always)]
fn tile_body<C: Column<BYTES>, const BYTES: usize>(
    tile: &[u8],
    x: &[f32],
    cols: usize,
    out: &mut [Lanes],
) {
    let columns = &tile.as_chunks::<BYTES>().0[..cols];
    let (mut x, mut out) = (x, &mut out[..x.len() / cols]);
    while out.len() >= ROWS {
        let (now, later) = x.split_at(ROWS * cols);
        out[..ROWS].copy_from_slice(&rows_body::<C, BYTES, ROWS>(columns, now));
        (x, out) = (later, &mut out[ROWS..]);
    }
    for (x, out) in x.chunks_exact(cols).zip(out) {
        [*out] = rows_body::<C, BYTES, 1>(columns, x);
    }
}

/// `M` rows of activations.
#[inline(always)]
fn rows_body<C: Column<BYTES>, const BYTES: usize, const M: usize>(
    columns: &[[u8; BYTES]],
    x: &[f32],
) -> [Lanes; M] {
    let x: [&[f32]; M] = std::array::from_fn(|m| &x[m * columns.len()..][..columns.len()]);
    let mut sums = [Lanes::ZERO; M];
    for (k, column) in columns.iter().enumerate() {
        let column = C::widen(column);
        for m in 0..M {
            sums[m] = column.mul_add(Lanes::splat(x[m][k]), sums[m]);
        }
    }
    sums
}
