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
use super::lanes::Lanes;
use super::level::{Level, Tier};
use super::tiles::VECTOR;

/// Most sums that a kernel gives: eight rows of one tile, or six of two.
pub(super) const SUMS_MAX: usize = 12;

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
    fn check<const M: usize, const N: usize>(&self, format: Format) {
        assert!(self.format == format && self.rows == M && self.x.len() == M * self.blocks);
        assert!(self.tiles.len() == N * self.tile_bytes && self.tile_bytes.is_multiple_of(VECTOR));
        assert!(self.tiles.as_ptr().addr().is_multiple_of(VECTOR), "tiles are not aligned");
        assert!(self.scales_at() + format.scale_at(self.blocks) <= self.tile_bytes);
    }
}

/// Weights that will be wanted soon, fetched a little with each block: in one burst they would queue.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    /// Only ever fetched into the cache, which any address may be.
    pub(super) start: *const u8,
    /// From one block's share to the next.
    pub(super) step: usize,
    /// Cache lines for each block.
    pub(super) lines: usize,
}

impl Prefetch {
    /// Fetches the share of `block`.
    #[inline(always)]
    fn fetch(self, block: usize) {
        for line in 0..self.lines {
            let address = self.start.wrapping_add(block * self.step + line * 64);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: fetching never faults, and SSE belongs to x86-64.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(address.cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = address;
        }
    }
}

/// Multiplies: `out[row · tiles + tile]`. Unsafe where it needs instructions that not every CPU has.
type Kernel = unsafe fn(&Operands<'_>, &mut [Lanes]);

/// Most rows and tiles that a kernel takes at once, for a product of `rows` rows in all. Few rows wait for memory,
/// and one tile at a time is read in a straight line; many rows wait for the multipliers, and two tiles share
/// the loading of activations.
pub(super) fn shape(level: Level, rows: usize) -> (usize, usize) {
    match level.tier() {
        Tier::Plain => (8, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => (4, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 if rows <= 16 => (8, 1),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => (6, 2),
    }
}

/// Multiplies at this level. `out`: `[rows, tiles]`, of which the first are used.
pub(super) fn multiply(level: Level, dtype: BlockType, operands: &Operands<'_>, out: &mut [Lanes]) {
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
