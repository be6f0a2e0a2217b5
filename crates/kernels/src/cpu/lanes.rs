//! Sixteen floats side by side: the unit in which the order of summation is written down.
//!
//! The compiler turns these loops into one 512-bit, two 256-bit or four 128-bit instructions. Each lane
//! is a chain of its own and the chains are folded by one fixed tree, so the width never shows.

/// Floats in a [`Lanes`].
pub(super) const LANES: usize = 16;

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    /// The first [`LANES`] floats of `x`. (Not by `copy_from_slice`, which stays a call here.)
    #[inline(always)]
    pub(super) fn load(x: &[f32]) -> Self {
        Self(*x.first_chunk().expect("enough floats for all lanes"))
    }

    /// At most [`LANES`] floats, the missing ones 0.
    #[inline(always)]
    pub(super) fn load_partial(x: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = *x;
        }
        Self(lanes)
    }

    #[inline(always)]
    pub(super) fn store(self, out: &mut [f32]) {
        *out.first_chunk_mut().expect("room for all lanes") = self.0;
    }

    /// `self · b + c` with one rounding.
    #[inline(always)]
    pub(super) fn mul_add(self, b: Self, c: Self) -> Self {
        let mut out = c.0;
        for lane in 0..LANES {
            out[lane] = self.0[lane].mul_add(b.0[lane], c.0[lane]);
        }
        Self(out)
    }

    #[inline(always)]
    pub(super) fn add(self, b: Self) -> Self {
        let mut out = self.0;
        for lane in 0..LANES {
            out[lane] += b.0[lane];
        }
        Self(out)
    }

    #[inline(always)]
    pub(super) fn mul(self, b: Self) -> Self {
        let mut out = self.0;
        for lane in 0..LANES {
            out[lane] *= b.0[lane];
        }
        Self(out)
    }

    /// The larger of each pair; `b` where the lane of `self` is not a number.
    #[inline(always)]
    pub(super) fn max(self, b: Self) -> Self {
        let mut out = b.0;
        for lane in 0..LANES {
            out[lane] = if self.0[lane] > b.0[lane] { self.0[lane] } else { b.0[lane] };
        }
        Self(out)
    }

    /// The first `count` lanes, the others replaced by `fill`.
    #[inline(always)]
    pub(super) fn keep_first(self, count: usize, fill: f32) -> Self {
        let mut out = self.0;
        for (lane, value) in out.iter_mut().enumerate() {
            *value = if lane < count { *value } else { fill };
        }
        Self(out)
    }

    /// All lanes, added by halves: 16 to 8 to 4 to 2 to 1.
    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        let mut tree = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                tree[lane] += tree[lane + half];
            }
            half /= 2;
        }
        tree[0]
    }

    /// The largest lane.
    #[inline(always)]
    pub(super) fn max_lane(self) -> f32 {
        let mut tree = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                if tree[lane + half] > tree[lane] {
                    tree[lane] = tree[lane + half];
                }
            }
            half /= 2;
        }
        tree[0]
    }

    /// `e^x` in each lane, see [`exp`].
    #[inline(always)]
    pub(super) fn exp(self) -> Self {
        let mut out = self.0;
        for value in &mut out {
            *value = exp(*value);
        }
        Self(out)
    }

    /// The hyperbolic tangent in each lane, within 2e-7 of the true value.
    #[inline(always)]
    pub(super) fn tanh(self) -> Self {
        let mut out = self.0;
        for value in &mut out {
            *value = tanh(*value);
        }
        Self(out)
    }
}

/// The hyperbolic tangent, `1 − 2 / (1 + e^2x)`, within 2e-7 of the true value.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// `e^x` within 2 units in the last place for x in [-87, 88]; 0 below, e^88 above.
///
/// Reduction by multiples of ln 2 and the degree-6 polynomial of Cephes' `expf` (Moshier, 1989). No
/// branch and no call, so that it vectorises.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let below = x < -87.0;
    let x = if below { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569e-4_f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_6e-1);
    p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let scale = f32::from_bits((n.wrapping_add(127) as u32) << 23);
    if below { 0.0 } else { p * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_close_to_the_true_value(x in -86.9f32..88.0) {
            let want = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) / want - 1.0).abs() < 2.5e-7, "{} for {x}", exp(x));
        }
    }

    proptest! {
        #[test]
        fn tanh_is_close_to_the_true_value(x in -60.0f32..60.0) {
            prop_assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 2e-7, "{}", tanh(x));
        }
    }

    #[test]
    fn exp_at_its_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn folding_covers_every_lane() {
        let lanes = Lanes(std::array::from_fn(|lane| (lane + 1) as f32));
        assert_eq!(lanes.sum(), 136.0);
        assert_eq!(lanes.max_lane(), 16.0);
        assert_eq!(lanes.keep_first(3, 0.0).sum(), 6.0);
    }
}
