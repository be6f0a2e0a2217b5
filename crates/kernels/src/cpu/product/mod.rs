//! Kernels: a few rows of activations times one or two tiles of weights.
//!
//! An output element is one chain of fused multiply-adds over the blocks of the columns, in their order:
//!
//! ```text
//! sum = fma(scale · x_scale, Σ (code − offset) · x_code, sum)      for a block, or for each half of one
//! sum = fma(minimum, x_sum, sum)                                   where the type has minima
//! ```
//!
//! The inner sum is of integers and exact, so its order is free; everything else is the same in
//! [`scalar`], which is the definition, [`avx2`] and [`avx512`], and on any number of rows, tiles and threads.
//! A scale that is not a number gives products that are not.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(super) mod floats;
mod scalar;

use super::activations::XBlock;
use super::block_type::BlockType;
use super::block32::Format;
use super::level::{Level, Tier};
use super::rows::MatrixBlock;
#[cfg(target_arch = "x86_64")]
use super::tiles::VECTOR;

/// Most rows that a kernel takes.
const ROWS_MAX: usize = 8;

/// Where a kernel writes: a row for each row of activations, as wide as the tiles less their padding.
pub(super) type Output<'a> = MatrixBlock<'a, f32>;

/// What a kernel multiplies.
pub(super) struct Operands<'a> {
    pub(super) format: Format,
    /// One or two tiles side by side, each of `tile_bytes`.
    pub(super) tiles: &'a [u8],
    pub(super) tile_bytes: usize,
    /// Blocks in a row.
    pub(super) blocks: usize,
    /// `[blocks, rows]`.
    pub(super) x: &'a [XBlock],
    pub(super) rows: usize,
    pub(super) prefetch: Prefetch,
}

impl Operands<'_> {
    fn tile_count(&self) -> usize {
        self.tiles.len() / self.tile_bytes
    }

    /// From the start of a tile to its scales.
    fn scales_at(&self) -> usize {
        self.blocks * self.format.code_bytes()
    }

    /// What the unchecked reads of a kernel for `M` rows, `N` tiles and `format` rely on.
    #[cfg(target_arch = "x86_64")]
    fn check<const M: usize, const N: usize>(&self, format: Format) {
        assert!(self.format == format && self.rows == M && self.x.len() == M * self.blocks);
        assert!(self.tiles.len() == N * self.tile_bytes && self.tile_bytes.is_multiple_of(VECTOR));
        assert!(self.tiles.as_ptr().addr().is_multiple_of(VECTOR), "tiles are not aligned");
        assert!(self.scales_at() + format.scale_at(self.blocks) <= self.tile_bytes);
    }
}

/// Weights that will be wanted soon, fetched a little with each block: in one burst they would queue. Fetching never
/// fails, whatever the address, so that a range may reach past the weights.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) enum Prefetch {
    /// Nothing.
    None,
    /// So many cache lines with each block, from here.
    Share { start: *const u8, lines: usize },
    /// For weights that are used once, in a straight line from the tile at `tile`: what lies [`STREAM_AHEAD`].
    Stream { tile: *const u8 },
}

/// How far ahead a stream fetches. More than a tile of the usual small widths, so that its scales, which are wanted
/// from the first block on but lie at its end, are there in time: 4 KiB made Q8_0 a third slower.
#[cfg(target_arch = "x86_64")]
const STREAM_AHEAD: usize = 12 << 10;

/// How many blocks ahead [`Operands::prefetch_ahead`] looks. With it 256 rows of Q4_K took 3 % less time, in the mean of
/// three noisy runs; Q6_K the same as before.
#[cfg(target_arch = "x86_64")]
const BLOCKS_AHEAD: usize = 4;

#[cfg(target_arch = "x86_64")]
impl Operands<'_> {
    /// Fetches the share of `block`.
    #[inline(always)]
    fn prefetch(&self, block: usize) {
        match self.prefetch {
            Prefetch::None => {}
            Prefetch::Share { start, lines } => {
                let start = start.wrapping_add(block * lines * VECTOR);
                (0..lines).for_each(|line| fetch(start.wrapping_add(line * VECTOR)));
            }
            Prefetch::Stream { tile } => {
                let step = self.tile_bytes / self.blocks;
                let ahead = tile.wrapping_add(block * step + STREAM_AHEAD);
                (0..step.div_ceil(VECTOR))
                    .for_each(|line| fetch(ahead.wrapping_add(line * VECTOR)));
            }
        }
    }

    /// Fetches the activations and codes of a later block: for kernels of many rows, whose operands are in the second
    /// cache.
    #[inline(always)]
    fn prefetch_ahead<const M: usize, const N: usize>(&self, format: Format, block: usize) {
        let block = block + BLOCKS_AHEAD;
        let x = self.x.as_ptr().wrapping_add(block * M);
        (0..M).for_each(|row| fetch(x.wrapping_add(row).cast()));
        for tile in 0..N {
            let at = tile * self.tile_bytes + block * format.code_bytes();
            let codes = self.tiles.as_ptr().wrapping_add(at);
            let lines = format.code_bytes() / VECTOR;
            (0..lines).for_each(|line| fetch(codes.wrapping_add(line * VECTOR)));
        }
    }
}

/// Fetches a cache line.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: fetching never faults, and SSE belongs to x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// A product at one level. Unsafe where it needs instructions that not every CPU has.
type Kernel = unsafe fn(&Operands<'_>, &mut Output<'_>);

/// Most rows and tiles that a kernel takes at once, for a product of `rows` rows in all. Few rows wait for memory,
/// and one tile at a time is read in a straight line; many rows wait for the multipliers, and two tiles share
/// the loading of activations.
pub(super) fn shape(level: Level, rows: usize) -> (usize, usize) {
    match level.tier() {
        Tier::Plain => (ROWS_MAX, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => (4, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 if rows <= 16 => (ROWS_MAX, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => (6, 2),
    }
}

/// Multiplies at this level.
pub(super) fn multiply(
    level: Level,
    dtype: BlockType,
    operands: &Operands<'_>,
    out: &mut Output<'_>,
) {
    let (rows, tiles) = (operands.rows, operands.tile_count());
    let kernel: Kernel = match level.tier() {
        Tier::Plain => scalar::multiply,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => by_type!(dtype, F => avx2::kernel::<F>(rows, tiles)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => by_type!(dtype, F => avx512::kernel::<F>(rows, tiles)),
    };
    // SAFETY: a `Level` above the plain one exists only where the CPU reported its features.
    unsafe { kernel(operands, out) }
}

/// A format as a type, so that a kernel is compiled for each.
#[cfg(target_arch = "x86_64")]
trait Coded {
    const FORMAT: Format;
}

#[cfg(target_arch = "x86_64")]
macro_rules! coded {
    ($($name:ident)*) => {$(
        struct $name;
        impl Coded for $name {
            const FORMAT: Format = match Format::of(BlockType::$name) {
                Some(format) => format,
                None => unreachable!(),
            };
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
coded!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K);

/// Evaluates `$body` with `$F` as the format of `$dtype`.
#[cfg(target_arch = "x86_64")]
macro_rules! by_type {
    ($dtype:expr, $F:ident => $body:expr) => {
        by_type!($dtype, $F => $body; Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K)
    };
    ($dtype:expr, $F:ident => $body:expr; $($name:ident)*) => {
        match $dtype {
            $(BlockType::$name => {
                type $F = $name;
                $body
            })*
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => unreachable!("floats have no codes"),
        }
    };
}
#[cfg(target_arch = "x86_64")]
use by_type;
