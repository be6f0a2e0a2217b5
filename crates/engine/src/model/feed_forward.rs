//! The feed-forward block: one gated network, or a mixture of them.

use super::config::DecoderConfig;
use super::moe::Mixture;
use super::scratch::{Scratch, sized};
use inferno_kernels::Cpu;
use inferno_kernels::cpu::{Activation, Weight};

/// What stands between attention and the next layer.
pub(super) enum FeedForward {
    /// The same for every token.
    Dense(Gated),
    /// Chosen for each token.
    Mixture(Mixture),
}

/// A gated network: `down · (activation(gate · x) ∘ up · x)`.
pub(super) struct Gated {
    /// Gate and up, `[width, hidden]` each: two matrices, or one where the file fuses them.
    pub(super) gate_up: Vec<Weight>,
    /// `[hidden, width]`.
    pub(super) down: [Weight; 1],
}

/// Where a network keeps what is between its matrices.
pub(super) struct GatedBuffers<'a> {
    pub(super) gate_up: &'a mut Vec<f32>,
    pub(super) activated: &'a mut Vec<f32>,
}

impl FeedForward {
    /// All matrices.
    pub(super) fn weights(&self) -> Vec<&Weight> {
        match self {
            Self::Dense(gated) => gated.weights().collect(),
            Self::Mixture(mixture) => mixture.weights().collect(),
        }
    }

    /// Reads `normed` and leaves the block's output in `delta`.
    pub(super) fn compute(
        &self,
        cpu: &Cpu,
        config: &DecoderConfig,
        rows: usize,
        scratch: &mut Scratch,
    ) {
        let normed = sized(&mut scratch.normed, rows * config.hidden);
        let delta = sized(&mut scratch.delta, rows * config.hidden);
        let buffers =
            GatedBuffers { gate_up: &mut scratch.gate_up, activated: &mut scratch.activated };
        match self {
            Self::Dense(gated) => gated.compute(cpu, config.activation, normed, buffers, delta),
            Self::Mixture(mixture) => {
                mixture.compute(cpu, config, normed, &mut scratch.routing, buffers, delta);
            }
        }
    }
}

impl Gated {
    /// All matrices.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.gate_up.iter().chain(&self.down)
    }

    /// `x`, `out`: `[rows, hidden]`.
    pub(super) fn compute(
        &self,
        cpu: &Cpu,
        activation: Activation,
        x: &[f32],
        buffers: GatedBuffers<'_>,
        out: &mut [f32],
    ) {
        let (rows, width) = (out.len() / self.down[0].rows(), self.down[0].cols());
        let gate_up = sized(buffers.gate_up, rows * 2 * width);
        cpu.matmul(&self.gate_up, x, gate_up);
        let activated = sized(buffers.activated, rows * width);
        cpu.gated(activation, gate_up, width, activated);
        cpu.matmul(&self.down, activated, out);
    }
}
