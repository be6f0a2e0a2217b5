//! A mixture of experts (Shazeer et al., 2017): a router sends each token through a few of many networks.
//!
//! The rows of an expert are gathered and go through it together. Its products give each row the same bits
//! whatever the others are, and a row's experts are added in the order of their rank, so that a token's result
//! does not depend on its neighbours.

use super::config::{DecoderConfig, Experts};
use super::feed_forward::{Gated, GatedBuffers};
use super::scratch::sized;
use inferno_kernels::cpu::Weight;
use inferno_kernels::{Cpu, math};

/// The weights of a mixture.
pub(super) struct Mixture {
    pub(super) experts: Experts,
    /// `[experts, hidden]`.
    pub(super) router: [Weight; 1],
    pub(super) networks: Vec<Gated>,
    /// The network that every token goes through, and its gate `[1, hidden]`.
    pub(super) shared: Option<(Gated, [Weight; 1])>,
}

/// Buffers of a mixture, kept from step to step.
#[derive(Default)]
pub(super) struct Routing {
    /// The router's scores, `[rows, experts]`.
    scores: Vec<f32>,
    /// The experts of each row by rank, `[rows, used]`, and their weights.
    chosen: Vec<(usize, f32)>,
    /// The inputs of one expert, `[its rows, hidden]`.
    gathered: Vec<f32>,
    /// What one expert gives.
    given: Vec<f32>,
    /// What the experts of each row give, `[rows, used, hidden]`.
    outputs: Vec<f32>,
}

impl Mixture {
    /// All matrices.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Weight> {
        let shared = self.shared.iter().flat_map(|(network, gate)| network.weights().chain(gate));
        self.router.iter().chain(self.networks.iter().flat_map(Gated::weights)).chain(shared)
    }

    /// `x`, `out`: `[rows, hidden]`.
    pub(super) fn compute(
        &self,
        cpu: &Cpu,
        config: &DecoderConfig,
        x: &[f32],
        routing: &mut Routing,
        mut buffers: GatedBuffers<'_>,
        out: &mut [f32],
    ) {
        let (hidden, used) = (config.hidden, self.experts.used);
        self.route(cpu, x, hidden, routing);
        sized(&mut routing.outputs, x.len() * used);
        for (expert, network) in self.networks.iter().enumerate() {
            let slots = routing.chosen.iter().enumerate().filter(|(_, chosen)| chosen.0 == expert);
            routing.gathered.clear();
            for (slot, _) in slots.clone() {
                routing.gathered.extend_from_slice(&x[slot / used * hidden..][..hidden]);
            }
            if routing.gathered.is_empty() {
                continue;
            }
            let given = sized(&mut routing.given, routing.gathered.len());
            network.compute(cpu, config.activation, &routing.gathered, buffers.again(), given);
            for ((slot, _), given) in slots.zip(given.chunks_exact(hidden)) {
                routing.outputs[slot * hidden..][..hidden].copy_from_slice(given);
            }
        }
        out.fill(0.0);
        let outputs = routing.outputs.chunks_exact(hidden).zip(&routing.chosen);
        for (slot, (output, (_, weight))) in outputs.enumerate() {
            add(&mut out[slot / used * hidden..][..hidden], output, *weight);
        }
        if let Some((network, gate)) = &self.shared {
            let gates = sized(&mut routing.scores, x.len() / hidden);
            cpu.matmul(gate, x, gates);
            let given = sized(&mut routing.given, x.len());
            network.compute(cpu, config.activation, x, buffers.again(), given);
            for ((out, given), gate) in
                out.chunks_exact_mut(hidden).zip(given.chunks_exact(hidden)).zip(gates)
            {
                let sigmoid = 1.0 / (1.0 + math::exp(-f64::from(*gate)));
                add(out, given, sigmoid as f32);
            }
        }
    }

    /// Fills `routing.chosen`: the largest of the softmax of the router's scores, the first of equals first.
    fn route(&self, cpu: &Cpu, x: &[f32], hidden: usize, routing: &mut Routing) {
        let Experts { count, used, normalised, .. } = self.experts;
        let scores = sized(&mut routing.scores, x.len() / hidden * count);
        cpu.matmul(&self.router, x, scores);
        routing.chosen.clear();
        for scores in scores.chunks_exact(count) {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |score: f32| math::exp(f64::from(score - largest));
            let start = routing.chosen.len();
            for _ in 0..used {
                let taken = &routing.chosen[start..];
                let free = scores
                    .iter()
                    .enumerate()
                    .filter(|(expert, _)| taken.iter().all(|(taken, _)| taken != expert));
                let best =
                    free.fold(None, |best: Option<(usize, f32)>, (expert, score)| match best {
                        Some((_, best_score)) if best_score >= *score => best,
                        _ => Some((expert, *score)),
                    });
                routing.chosen.extend(best);
            }
            let chosen = &mut routing.chosen[start..];
            let total: f64 = match normalised {
                true => chosen.iter().map(|(_, score)| weight(*score)).sum(),
                false => scores.iter().map(|score| weight(*score)).sum(),
            };
            chosen.iter_mut().for_each(|(_, score)| *score = (weight(*score) / total) as f32);
        }
    }
}

/// `out += weight · x`.
fn add(out: &mut [f32], x: &[f32], weight: f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.mul_add(weight, *out);
    }
}

impl GatedBuffers<'_> {
    /// The same buffers for one of several networks.
    fn again(&mut self) -> GatedBuffers<'_> {
        GatedBuffers { gate_up: self.gate_up, activated: self.activated }
    }
}
