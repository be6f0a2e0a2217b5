//! Thirty-two quantised elements of one row: what every block type is taken apart into.
//!
//! A GGUF file is read into it ([`Block32::from_gguf`]), tiles are written from it and read back into it
//! ([`super::tiles`]), and [`Block32::values`] is the definition of what the elements are worth.

use super::block_type::BlockType;
use super::half_float::f16;

/// Elements in a block, of weights and of activations.
pub(super) const BLOCK: usize = 32;

/// Blocks that share the half-precision scales of a K-type.
pub(super) const SUPER_BLOCKS: usize = 8;

/// Bits of an element's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codes {
    Four,
    Five,
    Six,
    Eight,
}

/// What codes are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scales {
    /// `scale · (code − half the codes)`.
    Centred,
    /// `scale · code + minimum`.
    Minimum,
    /// As [`Scales::Minimum`]; both are multiplied by a small number of the block's own.
    SuperMinimum,
    /// As [`Scales::Centred`]; the scale is multiplied by a small signed number for each half of the block.
    SuperCentred,
}

/// How a quantised type is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codes: Codes,
    pub(super) scales: Scales,
}

impl Format {
    /// The format of a block type; `None` for floats.
    pub(super) const fn of(dtype: BlockType) -> Option<Self> {
        let (codes, scales) = match dtype {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => return None,
            BlockType::Q4_0 => (Codes::Four, Scales::Centred),
            BlockType::Q4_1 => (Codes::Four, Scales::Minimum),
            BlockType::Q5_0 => (Codes::Five, Scales::Centred),
            BlockType::Q5_1 => (Codes::Five, Scales::Minimum),
            BlockType::Q8_0 => (Codes::Eight, Scales::Centred),
            BlockType::Q4K => (Codes::Four, Scales::SuperMinimum),
            BlockType::Q5K => (Codes::Five, Scales::SuperMinimum),
            BlockType::Q6K => (Codes::Six, Scales::SuperCentred),
        };
        Some(Self { codes, scales })
    }

    /// What is subtracted from a code before it is multiplied.
    pub(super) const fn offset(self) -> i32 {
        match (self.scales, self.codes) {
            (Scales::Minimum | Scales::SuperMinimum, _) => 0,
            (_, Codes::Four) => 8,
            (_, Codes::Five) => 16,
            (_, Codes::Six) => 32,
            (_, Codes::Eight) => 128,
        }
    }

    /// Whether something is added to every element.
    pub(super) const fn has_minimum(self) -> bool {
        matches!(self.scales, Scales::Minimum | Scales::SuperMinimum)
    }

    /// Whether the halves of a block have scales of their own.
    pub(super) const fn has_half_scales(self) -> bool {
        matches!(self.scales, Scales::SuperCentred)
    }
}

/// Thirty-two elements of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block32 {
    /// Unsigned, in the order of the columns.
    pub(super) codes: [u8; BLOCK],
    /// Half precision: the scale, for K-types that of the 256 elements this is a part of.
    pub(super) scale: u16,
    /// Half precision: the minimum, likewise. 0 where there is none.
    pub(super) minimum: u16,
    /// The small numbers of K-types: for scale and minimum, or the (signed) ones of the two halves.
    pub(super) small: [u8; 2],
}

impl Block32 {
    pub(super) const ZERO: Self = Self { codes: [0; BLOCK], scale: 0, minimum: 0, small: [0; 2] };

    /// Block `index` of a row of GGUF blocks.
    #[inline]
    pub(super) fn from_gguf(dtype: BlockType, row: &[u8], index: usize) -> Self {
        let per_block = dtype.elements() / BLOCK;
        let block = &row[index / per_block * dtype.bytes()..][..dtype.bytes()];
        match dtype {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => {
                unreachable!("floats have no blocks")
            }
            BlockType::Q4_0 => {
                Self { codes: nibbles(&block[2..]), scale: half_at(block, 0), ..Self::ZERO }
            }
            BlockType::Q4_1 => Self {
                codes: nibbles(&block[4..]),
                scale: half_at(block, 0),
                minimum: half_at(block, 2),
                small: [0; 2],
            },
            BlockType::Q5_0 => Self {
                codes: fifth_bits(nibbles(&block[6..]), &block[2..]),
                scale: half_at(block, 0),
                ..Self::ZERO
            },
            BlockType::Q5_1 => Self {
                codes: fifth_bits(nibbles(&block[8..]), &block[4..]),
                scale: half_at(block, 0),
                minimum: half_at(block, 2),
                small: [0; 2],
            },
            BlockType::Q8_0 => Self {
                codes: bytes_at(block, 2).map(|byte: u8| byte ^ 0x80),
                scale: half_at(block, 0),
                ..Self::ZERO
            },
            BlockType::Q4K => Self::q4_k(block, index % SUPER_BLOCKS),
            BlockType::Q5K => Self::q5_k(block, index % SUPER_BLOCKS),
            BlockType::Q6K => Self::q6_k(block, index % SUPER_BLOCKS),
        }
    }

    /// `d, dmin: f16; scales: 12; nibbles: 128`, of which a run of 32 bytes holds two sub-blocks.
    fn q4_k(block: &[u8], sub: usize) -> Self {
        let codes = nibble_run(bytes_at(block, 16 + sub / 2 * 32), sub % 2);
        Self { codes, ..Self::scales_k(block, sub) }
    }

    /// `d, dmin: f16; scales: 12; fifth bits: 32, bit i of each for sub-block i; nibbles: 128`.
    fn q5_k(block: &[u8], sub: usize) -> Self {
        let mut codes = nibble_run(bytes_at(block, 48 + sub / 2 * 32), sub % 2);
        let high: [u8; BLOCK] = bytes_at(block, 16);
        for (code, high) in codes.iter_mut().zip(high) {
            *code |= (high >> sub & 1) << 4;
        }
        Self { codes, ..Self::scales_k(block, sub) }
    }

    /// The scales of Q4_K and Q5_K: six bits each for scale and minimum, packed in 12 bytes. The minimum is
    /// subtracted there, so that its sign is turned here.
    fn scales_k(block: &[u8], sub: usize) -> Self {
        let packed = &block[4..16];
        let small = if sub < 4 {
            [packed[sub] & 63, packed[sub + 4] & 63]
        } else {
            let (scale_high, minimum_high) = (packed[sub - 4] >> 6, packed[sub] >> 6);
            [packed[sub + 4] & 15 | scale_high << 4, packed[sub + 4] >> 4 | minimum_high << 4]
        };
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2) ^ 0x8000);
        Self { codes: [0; BLOCK], scale, minimum, small }
    }

    /// `nibbles: 128; upper two bits: 64; scales: 16, one for 16 elements; d: f16`. Each half of the nibbles and of
    /// the upper bits holds four sub-blocks: two in the low nibbles, two in the high ones.
    fn q6_k(block: &[u8], sub: usize) -> Self {
        let (half, quarter) = (sub / 4, sub % 4);
        let mut codes = nibble_run(bytes_at(block, half * 64 + quarter % 2 * 32), quarter / 2);
        let high: [u8; BLOCK] = bytes_at(block, 128 + half * 32);
        for (code, high) in codes.iter_mut().zip(high) {
            *code |= (high >> (2 * quarter) & 3) << 4;
        }
        let small = bytes_at(block, 192 + 2 * sub);
        Self { codes, scale: half_at(block, 208), minimum: 0, small }
    }

    /// Whether scale and minimum are finite numbers, so that the elements are.
    pub(super) fn is_finite(&self) -> bool {
        const EXPONENT: u16 = 0x7c00;
        [self.scale, self.minimum].iter().all(|half| half & EXPONENT != EXPONENT)
    }

    /// What the elements are worth, in the operations and the order that GGUF defines.
    pub(super) fn values(&self, format: Format) -> [f32; BLOCK] {
        let scale = f16(self.scale);
        let (scales, minimum) = match format.scales {
            Scales::Centred => ([scale; 2], None),
            Scales::Minimum => ([scale; 2], Some(f16(self.minimum))),
            Scales::SuperMinimum => (
                [scale * f32::from(self.small[0]); 2],
                Some(f16(self.minimum) * f32::from(self.small[1])),
            ),
            Scales::SuperCentred => {
                (self.small.map(|small| scale * f32::from(small.cast_signed())), None)
            }
        };
        std::array::from_fn(|k| {
            let code = (i32::from(self.codes[k]) - format.offset()) as f32;
            let scaled = scales[k / (BLOCK / 2)] * code;
            minimum.map_or(scaled, |minimum| scaled + minimum)
        })
    }
}

/// `N` bytes from `at`.
fn bytes_at<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    *block[at..].first_chunk().expect("a whole block")
}

/// The little-endian half-precision number at `at`.
fn half_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(block, at))
}

/// Sixteen bytes whose low nibbles are elements 0–15 and whose high ones are 16–31.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    let bytes: [u8; BLOCK / 2] = bytes_at(bytes, 0);
    let mut codes = [0; BLOCK];
    for k in 0..BLOCK / 2 {
        codes[k] = bytes[k] & 15;
        codes[k + BLOCK / 2] = bytes[k] >> 4;
    }
    codes
}

/// The low (`which` 0) or high (1) nibbles of 32 bytes.
fn nibble_run(bytes: [u8; BLOCK], which: usize) -> [u8; BLOCK] {
    bytes.map(|byte| byte >> (4 * which) & 15)
}

/// Adds the fifth bit of element `k`, bit `k` of the four bytes.
fn fifth_bits(mut codes: [u8; BLOCK], bytes: &[u8]) -> [u8; BLOCK] {
    let bits = u32::from_le_bytes(bytes_at(bytes, 0));
    for (k, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> k & 1) as u8) << 4;
    }
    codes
}
