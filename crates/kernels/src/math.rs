//! Elementary functions of our own, in double precision, for the few places outside the lanes.
//!
//! glibc selects `exp`, `log`, `sin` and `cos` by CPU when a program starts, and their last bits differ.
//! These are ordinary argument reductions and Taylor series, good to a few units in the last place of a
//! double over the ranges stated, which is far more than the single precision they feed.

use std::f64::consts::{FRAC_2_PI, LN_2, LOG2_E, SQRT_2};

/// Adding and subtracting `1.5 · 2^52` rounds to an integer, ties to even, without calling `rint`.
const ROUND: f64 = 6_755_399_441_055_744.0;

fn round(x: f64) -> f64 {
    (x + ROUND) - ROUND
}

/// `e^x` for `x` in [-700, 700]; arguments outside are taken as the nearer end.
#[must_use]
pub fn exp(x: f64) -> f64 {
    // LN_2 in two parts, so that n · LN2_HIGH is exact for |n| < 2^11 (Cody and Waite, 1980).
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let x = x.clamp(-700.0, 700.0);
    let n = round(x * LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = 1.0;
    for k in (1..=14).rev() {
        sum = 1.0 + sum * r / f64::from(k);
    }
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// The natural logarithm of a positive, finite, normal `x`.
#[must_use]
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh s, and |s| < 0.172 makes s^24 vanish.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 * LN_2 + 2.0 * s * sum
}

/// `(sin x, cos x)` for |x| below 10^8, the largest angle of a rotary position.
#[must_use]
pub fn sin_cos(x: f64) -> (f64, f64) {
    // π/2 in three parts; n < 2^27 times the first two is exact.
    const PART_1: f64 = 1.570_796_310_901_641_8;
    const PART_2: f64 = 1.589_325_471_229_585_7e-8;
    const PART_3: f64 = 6.123_233_995_736_766e-17;
    let n = round(x * FRAC_2_PI);
    let r = ((x - n * PART_1) - n * PART_2) - n * PART_3;
    let square = r * r;
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..=9).rev() {
        let k = f64::from(k);
        sin = 1.0 - sin * square / ((2.0 * k) * (2.0 * k + 1.0));
        cos = 1.0 - cos * square / ((2.0 * k - 1.0) * (2.0 * k));
    }
    sin *= r;
    match (n as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_agrees_with_the_c_library(x in -690.0..690.0_f64) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-14);
        }

        #[test]
        fn ln_agrees_with_the_c_library(x in 1e-300..1e300_f64) {
            prop_assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0));
        }

        #[test]
        fn sin_cos_agree_with_the_c_library(x in -1e6..1e6_f64) {
            let (sin, cos) = sin_cos(x);
            prop_assert!((sin - x.sin()).abs() < 1e-10 && (cos - x.cos()).abs() < 1e-10);
        }
    }
}
