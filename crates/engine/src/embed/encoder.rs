//! The forward pass of a post-norm encoder over a ragged batch of texts.

use super::config::{EncoderConfig, Pooling};
use inferno_kernels::Cpu;
use inferno_kernels::cpu::{LayerNorm, Weight};

/// An encoder: texts of token ids to vectors.
pub struct Encoder {
    pub(super) config: EncoderConfig,
    /// `[vocab, hidden]`.
    pub(super) words: Weight,
    /// `[positions, hidden]`, with the embedding of the first kind of segment added.
    pub(super) positions: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
}

/// A layer normalisation's parameters, `[hidden]` each.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// One layer.
pub(super) struct Layer {
    /// Queries, keys, values: one pass over their input.
    pub(super) qkv: [Weight; 3],
    /// `[3 · hidden]`.
    pub(super) qkv_bias: Vec<f32>,
    pub(super) output: Dense,
    pub(super) output_norm: Norm,
    pub(super) up: Dense,
    pub(super) down: Dense,
    pub(super) down_norm: Norm,
}

/// A product and what is added to it.
pub(super) struct Dense {
    pub(super) weight: [Weight; 1],
    pub(super) bias: Vec<f32>,
}

/// Buffers of one step, kept from step to step; each `[tokens, …]`, sized for the largest batch so far.
#[derive(Default)]
pub struct Scratch {
    state: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    /// What a block adds to the state.
    delta: Vec<f32>,
    wide: Vec<f32>,
}

impl Scratch {
    /// Bytes for a batch of `tokens`.
    #[must_use]
    pub fn bytes(config: &EncoderConfig, tokens: usize) -> usize {
        tokens * (6 * config.hidden + config.feed_forward) * size_of::<f32>()
    }

    fn resize(&mut self, config: &EncoderConfig, tokens: usize) {
        let EncoderConfig { hidden, feed_forward, .. } = *config;
        self.state.resize(tokens * hidden, 0.0);
        self.qkv.resize(tokens * 3 * hidden, 0.0);
        self.attended.resize(tokens * hidden, 0.0);
        self.delta.resize(tokens * hidden, 0.0);
        self.wide.resize(tokens * feed_forward, 0.0);
    }
}

impl Encoder {
    /// The model's switches.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The matrices that inputs are multiplied with.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.layers.iter().flat_map(|layer| {
            let others = [&layer.output, &layer.up, &layer.down].map(|dense| &dense.weight[0]);
            layer.qkv.iter().chain(others)
        })
    }

    /// The vector of each text, `[texts][hidden]`.
    ///
    /// # Panics
    /// When a text is empty or has more tokens than there are positions, or a token id does not exist.
    pub fn forward(&self, cpu: &Cpu, texts: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let starts = starts(texts);
        scratch.resize(&self.config, starts[texts.len()]);
        self.embed(texts, &mut scratch.state);
        cpu.layer_norm(&mut scratch.state, self.norm(&self.norm));
        for layer in &self.layers {
            self.attention_block(cpu, layer, &starts, scratch);
            self.feed_forward_block(cpu, layer, scratch);
        }
        let hidden = self.config.hidden;
        let states =
            starts.windows(2).map(|rows| &scratch.state[rows[0] * hidden..rows[1] * hidden]);
        states.map(|states| self.pool(states)).collect()
    }

    fn norm<'a>(&self, norm: &'a Norm) -> LayerNorm<'a> {
        LayerNorm { weight: &norm.weight, bias: &norm.bias, eps: self.config.eps }
    }

    fn embed(&self, texts: &[&[u32]], state: &mut [f32]) {
        let hidden = self.config.hidden;
        let mut rows = state.chunks_exact_mut(hidden);
        for text in texts {
            let positions = self.positions.chunks_exact(hidden);
            assert!((1..=self.config.positions).contains(&text.len()), "{} tokens", text.len());
            for ((token, position), row) in text.iter().zip(positions).zip(&mut rows) {
                self.words.row_into(*token as usize, row);
                for (x, position) in row.iter_mut().zip(position) {
                    *x += position;
                }
            }
        }
    }

    fn attention_block(&self, cpu: &Cpu, layer: &Layer, starts: &[usize], scratch: &mut Scratch) {
        let Scratch { state, qkv, attended, delta, .. } = scratch;
        cpu.matmul(&layer.qkv, state, qkv);
        cpu.encoder_attention(qkv, &layer.qkv_bias, starts, self.config.heads, attended);
        cpu.matmul(&layer.output.weight, attended, delta);
        cpu.add_layer_norm(state, delta, &layer.output.bias, self.norm(&layer.output_norm));
    }

    fn feed_forward_block(&self, cpu: &Cpu, layer: &Layer, scratch: &mut Scratch) {
        let Scratch { state, delta, wide, .. } = scratch;
        cpu.matmul(&layer.up.weight, state, wide);
        cpu.bias_gelu(wide, &layer.up.bias);
        cpu.matmul(&layer.down.weight, wide, delta);
        cpu.add_layer_norm(state, delta, &layer.down.bias, self.norm(&layer.down_norm));
    }

    /// One vector from the states of a text, `[tokens, hidden]`. Plain loops in one order: no level has another.
    fn pool(&self, states: &[f32]) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut vector = states[..hidden].to_vec();
        if self.config.pooling == Pooling::Mean {
            for state in states.chunks_exact(hidden).skip(1) {
                vector.iter_mut().zip(state).for_each(|(sum, x)| *sum += x);
            }
            let count = (states.len() / hidden) as f32;
            vector.iter_mut().for_each(|sum| *sum /= count);
        }
        if self.config.normalize {
            let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            // As PyTorch's `normalize` does, nothing is divided by less than this.
            let length = square.sqrt().max(1e-12);
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        vector
    }
}

/// The first row of each text, and one past the last row of all.
fn starts(texts: &[&[u32]]) -> Vec<usize> {
    let mut starts = vec![0; texts.len() + 1];
    for (index, text) in texts.iter().enumerate() {
        starts[index + 1] = starts[index] + text.len();
    }
    starts
}
