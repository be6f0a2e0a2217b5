//! The definition of a product, in plain Rust; what the other levels are compared with, and what runs on CPUs that
//! have none of them.

use super::super::activations::XBlock;
use super::super::block32::{BLOCK, Block32, Format, Scales};
use super::super::half_float::f16;
use super::super::lanes::{LANES, Lanes};
use super::super::tiles::read_block;
use super::Operands;

/// Multiplies any number of rows and tiles.
pub(super) fn multiply(op: &Operands<'_>, out: &mut [Lanes]) {
    let tiles = op.tile_count();
    out[..op.rows * tiles].fill(Lanes::ZERO);
    for (n, tile) in op.tiles.chunks_exact(op.tile_bytes).enumerate() {
        for (block, x) in op.x.chunks_exact(op.rows).enumerate() {
            op.prefetch.fetch(block);
            let weights = Weights::read(op.format, tile, op.blocks, block);
            for (row, x) in x.iter().enumerate() {
                weights.add_product(op.format, x, &mut out[row * tiles + n]);
            }
        }
    }
}

/// A block of all rows of a tile.
struct Weights {
    /// `[column, row]`, the offset subtracted.
    codes: [[i32; LANES]; BLOCK],
    /// For each half of the block.
    scales: [[f32; LANES]; 2],
    minima: [f32; LANES],
}

impl Weights {
    fn read(format: Format, tile: &[u8], blocks: usize, index: usize) -> Self {
        let mut weights =
            Self { codes: [[0; LANES]; BLOCK], scales: [[0.0; LANES]; 2], minima: [0.0; LANES] };
        for lane in 0..LANES {
            let block = read_block(format, tile, blocks, lane, index);
            for k in 0..BLOCK {
                weights.codes[k][lane] = i32::from(block.codes[k]) - format.offset();
            }
            let (scales, minimum) = factors(format, &block);
            (weights.scales[0][lane], weights.scales[1][lane]) = scales;
            weights.minima[lane] = minimum;
        }
        weights
    }

    /// Continues the chains of one row of activations.
    fn add_product(&self, format: Format, x: &XBlock, sums: &mut Lanes) {
        let codes =
            x.words.map(|word| word.to_le_bytes().map(|code| i32::from(code.cast_signed())));
        let codes = codes.as_flattened();
        let (first, second) = (self.integers(codes, 0), self.integers(codes, BLOCK / 2));
        for lane in 0..LANES {
            let sum = &mut sums.0[lane];
            let [scale, second_scale] = self.scales.map(|scales| scales[lane] * x.scale);
            if format.has_half_scales() {
                *sum = scale.mul_add(first[lane] as f32, *sum);
                *sum = second_scale.mul_add(second[lane] as f32, *sum);
            } else {
                *sum = scale.mul_add((first[lane] + second[lane]) as f32, *sum);
            }
            if format.has_minimum() {
                *sum = self.minima[lane].mul_add(x.sum, *sum);
            }
        }
    }

    /// Sums of the products of codes over half a block.
    fn integers(&self, x: &[i32], from: usize) -> [i32; LANES] {
        let mut sums = [0; LANES];
        for k in from..from + BLOCK / 2 {
            for lane in 0..LANES {
                sums[lane] += self.codes[k][lane] * x[k];
            }
        }
        sums
    }
}

/// The scales of the two halves, and the minimum. The products are exact.
fn factors(format: Format, block: &Block32) -> ((f32, f32), f32) {
    let (scale, minimum) = (f16(block.scale), f16(block.minimum));
    match format.scales {
        Scales::Centred | Scales::Minimum => ((scale, scale), minimum),
        Scales::SuperMinimum => {
            let scale = scale * f32::from(block.small[0]);
            ((scale, scale), minimum * f32::from(block.small[1]))
        }
        Scales::SuperCentred => {
            let [first, second] = block.small.map(|small| scale * f32::from(small.cast_signed()));
            ((first, second), 0.0)
        }
    }
}
