//! Half-precision numbers, widened without a branch so that it vectorises.

/// IEEE half precision as single, exactly: subnormals, infinities and NaN included.
#[inline(always)]
pub(super) fn f16(bits: u16) -> f32 {
    /// What moves a half's exponent, read as a single's, to where it belongs.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let shifted = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(shifted) * REBIAS).to_bits();
    // The largest exponent stands for infinities and NaN in both.
    let magnitude = if bits & 0x7c00 == 0x7c00 { shifted | 0x7f80_0000 } else { finite };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

/// A bfloat16 as single: its upper half.
#[inline(always)]
pub(super) fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f32();
            let got = f16(bits);
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{bits:#06x}"
            );
            let want = half::bf16::from_bits(bits).to_f32();
            let got = bf16(bits);
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{bits:#06x}"
            );
        }
    }
}
