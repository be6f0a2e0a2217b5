//! The layout of repacked weights.
//!
//! A tile is sixteen rows, so that one 512-bit register (or two of 256) holds a number of each row and an output
//! element stays in one lane. Rows are padded to sixteen with zeros.
//!
//! A quantised tile is its codes, block after block, then its scales, then padding to 64 bytes:
//!
//! * **Codes.** The unit is a *word*: the codes of four consecutive columns of one row, which is what a
//!   `vpdpbusd` lane multiplies; a *vector* is the same word of all 16 rows, 64 bytes. A block of 32 columns has
//!   eight words a row. With eight bits a code, they are eight vectors. Otherwise vector `j` of four
//!   holds words `j` in its low nibbles and `j + 4` in its high ones, and one vector (the fifth bits) or two (the
//!   fifth and sixth, for words 0–3 and 4–7) follow; see [`upper_bits`].
//! * **Scales.** [`Scales::Centred`]: 16 half-precision scales a block. [`Scales::Minimum`]: 16 minima after
//!   them. K-types: for each eight blocks 16 scales (and 16 minima), then for each block two times 16 bytes, the
//!   small numbers.
//!
//! The bits are those of the file, transposed; only the 6-bit scales of Q4_K and Q5_K grow to bytes.
//!
//! A tile of floats is, for each column, the numbers of the 16 rows.

use super::block_type::BlockType;
use super::block32::{BLOCK, Block32, Codes, Format, SUPER_BLOCKS, Scales};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Bytes of a vector, and what tiles are aligned to.
pub(super) const VECTOR: usize = 64;

impl Format {
    /// Bytes of a block's codes, for all rows of a tile.
    pub(super) const fn code_bytes(self) -> usize {
        VECTOR
            * match self.codes {
                Codes::Four => 4,
                Codes::Five => 5,
                Codes::Six => 6,
                Codes::Eight => 8,
            }
    }

    /// Where the half-precision scales of a block begin, from the start of the scales. The minima follow.
    pub(super) const fn scale_at(self, block: usize) -> usize {
        match self.scales {
            Scales::Centred => block * 32,
            Scales::Minimum => block * 64,
            Scales::SuperMinimum => block / SUPER_BLOCKS * (64 + SUPER_BLOCKS * 32),
            Scales::SuperCentred => block / SUPER_BLOCKS * (32 + SUPER_BLOCKS * 32),
        }
    }

    /// Where the small numbers of a block of a K-type begin, from the start of the scales.
    pub(super) const fn small_at(self, block: usize) -> usize {
        let halves = if self.has_minimum() { 64 } else { 32 };
        self.scale_at(block) + halves + block % SUPER_BLOCKS * 32
    }

    /// Bytes of a tile of this many blocks a row.
    const fn tile_bytes(self, blocks: usize) -> usize {
        (blocks * self.code_bytes() + self.scale_at(blocks)).next_multiple_of(VECTOR)
    }
}

/// Bytes that a tile of this type with `cols` columns takes.
pub(super) fn tile_bytes(dtype: BlockType, cols: usize) -> usize {
    match Format::of(dtype) {
        Some(format) => format.tile_bytes(cols / BLOCK),
        None => (cols * TILE_ROWS * dtype.bytes()).next_multiple_of(VECTOR),
    }
}

/// Writes up to sixteen rows of GGUF bytes into a tile of zeros. Gives row and column of a block, if there is one, that
/// holds what is not a finite number: the first of its row, and no row above has one.
pub(super) fn pack<'a>(
    dtype: BlockType,
    cols: usize,
    rows: impl Iterator<Item = &'a [u8]>,
    tile: &mut [u8],
) -> Option<(usize, usize)> {
    let mut odd = None;
    for (lane, row) in rows.enumerate() {
        match Format::of(dtype) {
            Some(format) => {
                for index in 0..cols / BLOCK {
                    let block = Block32::from_gguf(dtype, row, index);
                    write_block(format, tile, cols / BLOCK, lane, index, &block);
                    if !block.is_finite() {
                        odd = odd.or(Some((lane, index * BLOCK)));
                    }
                }
            }
            None => {
                let bytes = dtype.bytes();
                for (column, element) in row.chunks_exact(bytes).enumerate() {
                    tile[(column * TILE_ROWS + lane) * bytes..][..bytes].copy_from_slice(element);
                    if !is_finite(dtype, element) {
                        odd = odd.or(Some((lane, column)));
                    }
                }
            }
        }
    }
    odd
}

/// Whether the little-endian float is a finite number: its exponent is not all ones.
fn is_finite(dtype: BlockType, element: &[u8]) -> bool {
    let high = u16::from_le_bytes([element[element.len() - 2], element[element.len() - 1]]);
    let exponent = if dtype == BlockType::F16 { 0x7c00 } else { 0x7f80 };
    high & exponent != exponent
}

/// The bytes of one element of a tile of floats.
pub(super) fn float_bytes(dtype: BlockType, tile: &[u8], lane: usize, column: usize) -> &[u8] {
    &tile[(column * TILE_ROWS + lane) * dtype.bytes()..][..dtype.bytes()]
}

/// The words of a block: four codes each, the first in the lowest byte.
fn words(codes: &[u8; BLOCK]) -> [u32; 8] {
    std::array::from_fn(|j| u32::from_le_bytes(std::array::from_fn(|c| codes[4 * j + c])))
}

/// Where bits above the nibble lie: `(vector after the nibbles, shift)` of word `j`, so that
/// `vector >> shift & mask` in each byte are those bits.
pub(super) const fn upper_bits(codes: Codes, j: usize) -> (usize, usize) {
    match codes {
        Codes::Six => (j / 4, 2 * (j % 4)),
        _ => (0, j),
    }
}

/// Ones in each byte for the bits above the nibble.
const fn upper_mask(codes: Codes) -> u32 {
    match codes {
        Codes::Four | Codes::Eight => 0,
        Codes::Five => 0x0101_0101,
        Codes::Six => 0x0303_0303,
    }
}

/// Writes block `index` of row `lane` into a tile of zeros.
fn write_block(
    format: Format,
    tile: &mut [u8],
    blocks: usize,
    lane: usize,
    index: usize,
    block: &Block32,
) {
    let (codes, scales) = tile.split_at_mut(blocks * format.code_bytes());
    let codes = &mut codes[index * format.code_bytes()..][..format.code_bytes()];
    let words = words(&block.codes);
    let mut put = |vector: usize, word: u32| {
        codes[vector * VECTOR + 4 * lane..][..4].copy_from_slice(&word.to_le_bytes());
    };
    if format.codes == Codes::Eight {
        (0..8).for_each(|j| put(j, words[j]));
    } else {
        let mut upper = [0; 2];
        for j in 0..4 {
            put(j, words[j] & 0x0f0f_0f0f | (words[j + 4] & 0x0f0f_0f0f) << 4);
        }
        for j in 0..8 {
            let (vector, shift) = upper_bits(format.codes, j);
            upper[vector] |= (words[j] >> 4 & upper_mask(format.codes)) << shift;
        }
        (4..format.code_bytes() / VECTOR).for_each(|vector| put(vector, upper[vector - 4]));
    }
    let mut put = |at: usize, bytes: &[u8]| scales[at..][..bytes.len()].copy_from_slice(bytes);
    let scale_at = format.scale_at(index);
    put(scale_at + 2 * lane, &block.scale.to_le_bytes());
    if format.has_minimum() {
        put(scale_at + 32 + 2 * lane, &block.minimum.to_le_bytes());
    }
    if matches!(format.scales, Scales::SuperMinimum | Scales::SuperCentred) {
        put(format.small_at(index) + lane, &block.small[..1]);
        put(format.small_at(index) + 16 + lane, &block.small[1..]);
    }
}

/// Reads block `index` of row `lane` back.
pub(super) fn read_block(
    format: Format,
    tile: &[u8],
    blocks: usize,
    lane: usize,
    index: usize,
) -> Block32 {
    let (codes, scales) = tile.split_at(blocks * format.code_bytes());
    let codes = &codes[index * format.code_bytes()..][..format.code_bytes()];
    let word = |vector: usize| {
        u32::from_le_bytes(std::array::from_fn(|c| codes[vector * VECTOR + 4 * lane + c]))
    };
    let mut block = Block32::ZERO;
    for j in 0..8 {
        let codes = if format.codes == Codes::Eight {
            word(j)
        } else {
            let nibbles = word(j % 4) >> (4 * (j / 4)) & 0x0f0f_0f0f;
            let (vector, shift) = upper_bits(format.codes, j);
            match upper_mask(format.codes) {
                0 => nibbles,
                mask => nibbles | (word(4 + vector) >> shift & mask) << 4,
            }
        };
        block.codes[4 * j..][..4].copy_from_slice(&codes.to_le_bytes());
    }
    let half = |at: usize| u16::from_le_bytes([scales[at], scales[at + 1]]);
    let scale_at = format.scale_at(index);
    block.scale = half(scale_at + 2 * lane);
    if format.has_minimum() {
        block.minimum = half(scale_at + 32 + 2 * lane);
    }
    if matches!(format.scales, Scales::SuperMinimum | Scales::SuperCentred) {
        let small_at = format.small_at(index) + lane;
        block.small = [scales[small_at], scales[small_at + 16]];
    }
    block
}
