//! Gated activations of feed-forward blocks (Shazeer, 2020), and the softcap of logits.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

/// What the gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU by its usual approximation with a hyperbolic tangent (Hendrycks and Gimpel, 2016).
    GeluTanh,
}

impl Cpu {
    /// `out = activation(gate) · up`, where each row of `gate_up` is the gate's half followed by the other.
    /// `gate_up`: `[rows, 2 · width]`; `out`: `[rows, width]`.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    pub fn gated(&self, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
        assert_eq!(gate_up.len(), 2 * out.len(), "gated: the input is not twice the output");
        let rows = out.len() / width;
        let out = SharedRows::new(out, width);
        self.for_rows(rows, 8 * width, &|row| {
            let (gate, up) = gate_up[row * 2 * width..][..2 * width].split_at(width);
            // SAFETY: each row is taken by one part.
            let out = unsafe { out.row(row) };
            match activation {
                Activation::Silu => silu_mul(self.level(), gate, up, out),
                Activation::GeluTanh => gelu_mul(self.level(), gate, up, out),
            }
        });
    }

    /// `x = cap · tanh(x / cap)`, so that no element is larger than `cap` in magnitude.
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        /// Elements of a part.
        const CHUNK: usize = 4096;
        let (whole, rest) = x.split_at_mut(x.len() / CHUNK * CHUNK);
        softcap(self.level(), rest, cap);
        let rows = whole.len() / CHUNK;
        let whole = SharedRows::new(whole, CHUNK);
        self.for_rows(rows, 8 * CHUNK, &|row| {
            // SAFETY: each row is taken by one part.
            softcap(self.level(), unsafe { whole.row(row) }, cap);
        });
    }
}

instantiate!(fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body);
instantiate!(fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_mul_body);
instantiate!(fn softcap(x: &mut [f32], cap: f32) = softcap_body);

/// `x / (1 + e^exponent(x))`. Not a closure: one that is not inlined is compiled for any processor.
trait Gate {
    fn exponent(gate: Lanes) -> Lanes;
}

struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn exponent(gate: Lanes) -> Lanes {
        gate.mul(Lanes::splat(-1.0))
    }
}

/// `0.5 · (1 + tanh u)` is `1 / (1 + e^−2u)`, so that GELU is a SiLU with another exponent.
struct GeluTanh;

impl Gate for GeluTanh {
    #[inline(always)]
    fn exponent(gate: Lanes) -> Lanes {
        /// −2 · √(2/π).
        const SLOPE: f32 = -2.0 * 0.797_884_6;
        let cubic = gate.mul(gate).mul_add(Lanes::splat(0.044_715), Lanes::splat(1.0));
        gate.mul(Lanes::splat(SLOPE)).mul(cubic)
    }
}

#[inline(always)]
fn silu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    gated_body::<Silu>(gate, up, out);
}

#[inline(always)]
fn gelu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    gated_body::<GeluTanh>(gate, up, out);
}

#[inline(always)]
fn gated_body<G: Gate>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let whole = out.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let value = gated_lanes::<G>(Lanes::load(&gate[start..]), Lanes::load(&up[start..]));
        value.store(&mut out[start..]);
    }
    let (gate, up) = (Lanes::load_partial(&gate[whole..]), Lanes::load_partial(&up[whole..]));
    for (out, value) in out[whole..].iter_mut().zip(gated_lanes::<G>(gate, up).0) {
        *out = value;
    }
}

/// `up · gate / (1 + e^exponent(gate))`.
#[inline(always)]
fn gated_lanes<G: Gate>(gate: Lanes, up: Lanes) -> Lanes {
    let exps = G::exponent(gate).exp();
    let mut value = gate.mul(up);
    for lane in 0..LANES {
        value.0[lane] /= 1.0 + exps.0[lane];
    }
    value
}

#[inline(always)]
fn softcap_body(x: &mut [f32], cap: f32) {
    let (down, up) = (Lanes::splat(1.0 / cap), Lanes::splat(cap));
    let whole = x.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        Lanes::load(&x[start..]).mul(down).tanh().mul(up).store(&mut x[start..]);
    }
    let rest = Lanes::load_partial(&x[whole..]).mul(down).tanh().mul(up);
    for (x, value) in x[whole..].iter_mut().zip(rest.0) {
        *x = value;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    fn reference(activation: Activation, gate: f64) -> f64 {
        match activation {
            Activation::Silu => gate / (1.0 + (-gate).exp()),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
                0.5 * gate * (1.0 + inner.tanh())
            }
        }
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_the_true_value(
            x in prop::collection::vec(-30.0f32..30.0, 2 * 2 * 37),
            activation in prop::sample::select(vec![Activation::Silu, Activation::GeluTanh]),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = vec![0.0; x.len() / 2];
                Cpu::with_level(2, level).unwrap().gated(activation, &x, 37, &mut out);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for (x, out) in x.chunks(74).zip(out.chunks(37)) {
                    for i in 0..37 {
                        let want = reference(activation, f64::from(x[i])) * f64::from(x[37 + i]);
                        let error = (f64::from(out[i]) - want).abs();
                        prop_assert!(error <= 1e-5 * want.abs().max(1e-2), "{} not {want}", out[i]);
                    }
                }
            }
        }

        #[test]
        fn a_softcap_bends_alike_on_every_level(
            x in prop::collection::vec(-300.0f32..300.0, 4096 + 37),
            cap in 10.0f32..60.0,
        ) {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut out = x.clone();
                Cpu::with_level(2, level).unwrap().softcap(&mut out, cap);
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", level);
                for (x, out) in x.iter().zip(out) {
                    let want = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
                    prop_assert!((f64::from(out) - want).abs() < 2e-5, "{out} is not {want}");
                }
            }
        }
    }
}
