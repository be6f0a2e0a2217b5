//! Products with the 32-element block types: Q4_0, Q4_1 and Q8_0.
//!
//! Activations become 32 eight-bit integers with a scale, as in llama.cpp. Within a block, products are
//! integers and exact. Between blocks, sixteen lanes are sixteen chains in the order of k: lane `j` takes
//! elements `j` and `j + 16`, which are the two nibbles of byte `j`. The lanes are folded by one tree at
//! the end, the minima of Q4_1 are a chain of their own. How many rows are computed together changes none
//! of it.

use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::Columns;
use super::weight::Block;

/// Elements in a block, for weights and activations.
pub(super) const BLOCK: usize = 2 * LANES;

/// Rows of activations that meet a weight block while it is unpacked.
const ROWS: usize = 4;

/// Quantised activations.
pub(super) struct Activations {
    /// Blocks in a row.
    blocks: usize,
    rows: usize,
    /// `[rows, blocks]`: integers in [-127, 127], widened once here instead of at every use.
    codes: Vec<[i16; BLOCK]>,
    /// `[blocks, rows]`, so that rows computed together lie together: what a code is worth.
    scales: Vec<f32>,
    /// `[blocks, rows]`: scale times the sum of the codes, which a weight block's minimum multiplies.
    sums: Vec<f32>,
}

impl Activations {
    /// From codes, scales and sums of each row, all `[rows, blocks]`.
    pub(super) fn new(
        blocks: usize,
        codes: Vec<[i16; BLOCK]>,
        scales: &[f32],
        sums: &[f32],
    ) -> Self {
        let rows = codes.len() / blocks;
        let by_block = |x: &[f32]| {
            (0..blocks).flat_map(|block| x[block..].iter().step_by(blocks).copied()).collect()
        };
        Self { blocks, rows, codes, scales: by_block(scales), sums: by_block(sums) }
    }
}

/// A weight block, unpacked to what the kernel multiplies.
pub(super) trait Format: Block {
    /// Whether [`Format::minimum`] is not always 0.
    const HAS_MINIMUM: bool;
    /// Elements 0–15 and 16–31, as integers of at most 8 bits.
    fn halves(&self) -> ([i16; LANES], [i16; LANES]);
    /// What an integer is worth, in half precision.
    fn scale(&self) -> u16;
    /// What every element has on top, in half precision.
    fn minimum(&self) -> u16;
}

#[repr(C)]
pub(super) struct Q4_0 {
    d: u16,
    q: [u8; LANES],
}

#[repr(C)]
pub(super) struct Q4_1 {
    d: u16,
    m: u16,
    q: [u8; LANES],
}

#[repr(C)]
pub(super) struct Q8_0 {
    d: u16,
    q: [i8; BLOCK],
}

// SAFETY: `repr(C)` with fields of integers and arrays of them only, without padding.
unsafe impl Block for Q4_0 {}
// SAFETY: as above.
unsafe impl Block for Q4_1 {}
// SAFETY: as above.
unsafe impl Block for Q8_0 {}

/// A half-precision number as single. Infinities and NaN, which no scale is, come out finite.
#[inline(always)]
fn half(bits: u16) -> f32 {
    let magnitude =
        f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

#[inline(always)]
fn nibbles(q: &[u8; LANES], offset: i16) -> ([i16; LANES], [i16; LANES]) {
    let (mut low, mut high) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let byte = i16::from(q[lane]);
        low[lane] = (byte & 15) - offset;
        high[lane] = (byte >> 4) - offset;
    }
    (low, high)
}

impl Format for Q4_0 {
    const HAS_MINIMUM: bool = false;

    #[inline(always)]
    fn halves(&self) -> ([i16; LANES], [i16; LANES]) {
        nibbles(&self.q, 8)
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        self.d
    }

    #[inline(always)]
    fn minimum(&self) -> u16 {
        0
    }
}

impl Format for Q4_1 {
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn halves(&self) -> ([i16; LANES], [i16; LANES]) {
        nibbles(&self.q, 0)
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        self.d
    }

    #[inline(always)]
    fn minimum(&self) -> u16 {
        self.m
    }
}

impl Format for Q8_0 {
    const HAS_MINIMUM: bool = false;

    #[inline(always)]
    fn halves(&self) -> ([i16; LANES], [i16; LANES]) {
        let (mut low, mut high) = ([0; LANES], [0; LANES]);
        for lane in 0..LANES {
            low[lane] = i16::from(self.q[lane]);
            high[lane] = i16::from(self.q[lane + LANES]);
        }
        (low, high)
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        self.d
    }

    #[inline(always)]
    fn minimum(&self) -> u16 {
        0
    }
}

instantiate!(
    /// Quantises one row of blocks: `x`: `[blocks · 32]`, the others one entry a block.
    fn quantise_row(x: &[f32], codes: &mut [[i16; BLOCK]], scales: &mut [f32], sums: &mut [f32]) = quantise_row_body
);
instantiate!(fn q4_0_strip(w: &[Q4_0], x: &Activations, out: &mut Columns<'_, f32>) = strip_body);
instantiate!(fn q4_1_strip(w: &[Q4_1], x: &Activations, out: &mut Columns<'_, f32>) = strip_body);
instantiate!(fn q8_0_strip(w: &[Q8_0], x: &Activations, out: &mut Columns<'_, f32>) = strip_body);

#[inline(always)]
fn quantise_row_body(x: &[f32], codes: &mut [[i16; BLOCK]], scales: &mut [f32], sums: &mut [f32]) {
    /// Adding it leaves the nearest integer, ties to even, in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    for (block, codes) in codes.iter_mut().enumerate() {
        let x = &x[block * BLOCK..][..BLOCK];
        let mut largest = Lanes::ZERO;
        for half in [Lanes::load(&x[..LANES]), Lanes::load(&x[LANES..])] {
            let mut magnitude = half;
            for value in &mut magnitude.0 {
                *value = value.abs();
            }
            largest = magnitude.max(largest);
        }
        let scale = largest.max_lane() / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let mut sum = 0i32;
        for (code, x) in codes.iter_mut().zip(x) {
            let rounded = (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            *code = rounded as i16;
            sum += rounded;
        }
        scales[block] = scale;
        sums[block] = scale * sum as f32;
    }
}

/// Some weight rows `[n, blocks]` with their scales and minima as floats: widened once, used by every row of
/// activations.
struct Strip<'a, F> {
    blocks: &'a [F],
    scales: &'a [f32],
    /// Empty when the format has none.
    minima: &'a [f32],
}

/// Half-precision numbers of blocks as single. Copied out first, so that the widening vectorises.
#[inline(always)]
fn widened<F>(w: &[F], number: impl Fn(&F) -> u16) -> Vec<f32> {
    let (mut copied, mut floats) = (vec![0u16; w.len()], vec![0.0; w.len()]);
    let (bits, out) = (&mut copied[..w.len()], &mut floats[..w.len()]);
    for i in 0..w.len() {
        bits[i] = number(&w[i]);
    }
    for i in 0..w.len() {
        out[i] = half(bits[i]);
    }
    floats
}

/// All activation rows times the weight rows of `w` (`[n, blocks]`), into the `n` columns of `out`.
#[inline(always)]
fn strip_body<F: Format>(w: &[F], x: &Activations, out: &mut Columns<'_, f32>) {
    let scales = widened(w, F::scale);
    let minima = if F::HAS_MINIMUM { widened(w, F::minimum) } else { Vec::new() };
    let strip = Strip { blocks: w, scales: &scales, minima: &minima };
    let mut row = 0;
    while row + ROWS <= x.rows {
        columns::<F, 2, ROWS>(&strip, x, row, out);
        row += ROWS;
    }
    while row < x.rows {
        columns::<F, 2, 1>(&strip, x, row, out);
        row += 1;
    }
}

impl<'a, F: Format> Strip<'a, F> {
    /// The blocks `from..from + count`.
    #[inline(always)]
    fn part(&self, from: usize, count: usize) -> Strip<'a, F> {
        let minima = if F::HAS_MINIMUM { &self.minima[from..][..count] } else { &[] };
        Strip {
            blocks: &self.blocks[from..][..count],
            scales: &self.scales[from..][..count],
            minima,
        }
    }
}

/// `M` activation rows times all weight rows, `N` at a time.
#[inline(always)]
fn columns<F: Format, const N: usize, const M: usize>(
    w: &Strip<'_, F>,
    x: &Activations,
    row: usize,
    out: &mut Columns<'_, f32>,
) {
    let rows = w.blocks.len() / x.blocks;
    let mut at = 0;
    while at + N <= rows {
        store(&tile::<F, N, M>(&w.part(at * x.blocks, N * x.blocks), x, row), out, row, at);
        at += N;
    }
    while at < rows {
        store(&tile::<F, 1, M>(&w.part(at * x.blocks, x.blocks), x, row), out, row, at);
        at += 1;
    }
}

#[inline(always)]
fn store<const N: usize, const M: usize>(
    tile: &[[f32; M]; N],
    out: &mut Columns<'_, f32>,
    row: usize,
    column: usize,
) {
    for m in 0..M {
        let target = &mut out.row(row + m)[column..][..N];
        for n in 0..N {
            target[n] = tile[n][m];
        }
    }
}

/// `M` activation rows times `N` weight rows: `N · M` dot products side by side.
#[inline(always)]
fn tile<F: Format, const N: usize, const M: usize>(
    w: &Strip<'_, F>,
    x: &Activations,
    row: usize,
) -> [[f32; M]; N] {
    let blocks = x.blocks;
    let codes = &x.codes[row * blocks..][..M * blocks];
    let mut sums = [[Lanes::ZERO; M]; N];
    let mut minima = [[0.0f32; M]; N];
    for block in 0..blocks {
        let scales = &x.scales[block * x.rows + row..][..M];
        let x_sums = &x.sums[block * x.rows + row..][..M];
        for n in 0..N {
            let index = n * blocks + block;
            let ((low, high), scale) = (w.blocks[index].halves(), w.scales[index]);
            for m in 0..M {
                let code = &codes[m * blocks + block];
                let scale = scale * scales[m];
                let sum = &mut sums[n][m].0;
                for lane in 0..LANES {
                    // At most 2 · 128 · 127 in magnitude: sixteen bits hold it.
                    let product = low[lane] * code[lane] + high[lane] * code[lane + LANES];
                    sum[lane] = scale.mul_add(f32::from(product), sum[lane]);
                }
                if F::HAS_MINIMUM {
                    minima[n][m] = w.minima[index].mul_add(x_sums[m], minima[n][m]);
                }
            }
        }
    }
    // Through memory: seeing the folds below, the compiler would transpose the accumulators in the loop.
    let sums = std::hint::black_box(sums);
    let mut result = [[0.0; M]; N];
    for n in 0..N {
        for m in 0..M {
            result[n][m] = sums[n][m].sum() + minima[n][m];
        }
    }
    result
}
