//! The gated activation of Llama's feed-forward block.

use super::Cpu;
use super::lanes::{LANES, Lanes, exp};
use super::level::instantiate;
use super::rows::SharedRows;

impl Cpu {
    /// SwiGLU (Shazeer, 2020): `out = silu(gate) · up`, where each row of `gate_up` is the gate's half
    /// followed by the other. `gate_up`: `[rows, 2 · width]`; `out`: `[rows, width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn silu_mul(&self, gate_up: &[f32], width: usize, out: &mut [f32]) {
        assert_eq!(gate_up.len(), 2 * out.len(), "silu_mul: the input is not twice the output");
        let rows = out.len() / width;
        let out = SharedRows::new(out, width);
        self.for_rows(rows, 8 * width, &|row| {
            let (gate, up) = gate_up[row * 2 * width..][..2 * width].split_at(width);
            // SAFETY: each row is taken by one part.
            silu_mul(self.level(), gate, up, unsafe { out.row(row) });
        });
    }
}

instantiate!(fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body);

#[inline(always)]
fn silu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let whole = out.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let gate = Lanes::load(&gate[start..]);
        let exps = gate.mul(Lanes::splat(-1.0)).exp();
        let mut value = gate.mul(Lanes::load(&up[start..]));
        for lane in 0..LANES {
            value.0[lane] /= 1.0 + exps.0[lane];
        }
        value.store(&mut out[start..]);
    }
    for i in whole..out.len() {
        out[i] = gate[i] * up[i] / (1.0 + exp(-gate[i]));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-30.0f32..30.0, 2 * 2 * 37),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = vec![0.0; x.len() / 2];
                Cpu::with_level(2, level).unwrap().silu_mul(&x, 37, &mut out);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for (x, out) in x.chunks(74).zip(out.chunks(37)) {
                    for i in 0..37 {
                        let (gate, up) = (f64::from(x[i]), f64::from(x[37 + i]));
                        let want = gate * up / (1.0 + (-gate).exp());
                        prop_assert!((f64::from(out[i]) - want).abs() <= 1e-5 * want.abs().max(1e-3));
                    }
                }
            }
        }
    }
}
