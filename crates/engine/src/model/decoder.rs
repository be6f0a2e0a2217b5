//! The forward pass over a ragged batch.

use super::config::DecoderConfig;
use crate::batch::Batch;
use inferno_kernels::Cpu;
use inferno_kernels::cpu::{KvCache, KvShape, RopeAngles, RowPlace, Weight};

/// A pre-norm decoder with rotary positions, grouped-query attention and a gated feed-forward block (Touvron
/// et al., "Llama 2", 2023).
pub struct Decoder {
    pub(super) config: DecoderConfig,
    /// `[vocab, hidden]`.
    pub(super) embedding: Weight,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Vec<f32>,
    /// `[vocab, hidden]`; the embedding again where the file ties them.
    pub(super) output: [Weight; 1],
}

/// One decoder layer. Weights that share an input are kept together and cost one pass.
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    /// Queries, keys, values.
    pub(super) qkv: [Weight; 3],
    pub(super) attention_output: [Weight; 1],
    pub(super) feed_forward_norm: Vec<f32>,
    /// Gate, up.
    pub(super) gate_up: [Weight; 2],
    pub(super) down: [Weight; 1],
}

/// Buffers of one step, kept from step to step. `[rows, …]`, sized for the largest batch so far.
#[derive(Default)]
pub struct Scratch {
    residual: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    /// What a block adds to the residual.
    delta: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    logits: Vec<f32>,
}

impl Scratch {
    /// Bytes for a batch of `rows`, of which `sampled` want logits. A product's input is kept quantised while
    /// it is computed, in at most the four bytes an element that float weights take.
    #[must_use]
    pub fn bytes(config: &DecoderConfig, vocab: usize, rows: usize, sampled: usize) -> usize {
        let queries = config.heads * config.head_dim;
        let quantised = config.hidden.max(queries).max(config.feed_forward);
        let row =
            3 * config.hidden + config.qkv_width() + queries + 3 * config.feed_forward + quantised;
        (rows * row + sampled * vocab) * size_of::<f32>()
    }
}

/// The first `len` elements of a buffer, which grows as needed.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Decoder {
    /// The model's switches.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Rows of the embedding: the number of token ids the model knows.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.embedding.rows()
    }

    /// What a KV cache for this model is made for.
    #[must_use]
    pub fn kv_shape(&self) -> KvShape {
        let DecoderConfig { layers, kv_heads, head_dim, .. } = self.config;
        KvShape { layers, kv_heads, head_dim }
    }

    /// Computes `batch`: writes each row's keys and values to `cache` and returns the logits of its sampled
    /// rows, `[batch.sampled, vocab]`.
    ///
    /// # Panics
    /// When a token id or a block number does not exist.
    pub fn forward<'s>(
        &self,
        cpu: &Cpu,
        batch: &Batch,
        cache: &mut KvCache,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let (rows, hidden) = (batch.len(), self.config.hidden);
        let places = batch.places();
        let positions = batch.positions.iter().copied();
        let angles =
            RopeAngles::new(positions, &self.config.rope_frequencies, self.config.rope_layout);
        self.embed(&batch.tokens, sized(&mut scratch.residual, rows * hidden));
        sized(&mut scratch.delta, rows * hidden).fill(0.0);
        for (number, layer) in self.layers.iter().enumerate() {
            self.attention_block(cpu, (number, layer), &places, &angles, cache, scratch);
            self.feed_forward_block(cpu, layer, rows, scratch);
        }
        cpu.add(&mut scratch.residual[..rows * hidden], &scratch.delta[..rows * hidden]);
        self.logits(cpu, &batch.sampled, scratch)
    }

    fn embed(&self, tokens: &[u32], residual: &mut [f32]) {
        for (token, row) in tokens.iter().zip(residual.chunks_exact_mut(self.config.hidden)) {
            self.embedding.row_into(*token as usize, row);
        }
    }

    /// Adds the previous block's delta to the residual and leaves this block's in its place.
    fn attention_block(
        &self,
        cpu: &Cpu,
        (number, layer): (usize, &Layer),
        places: &[RowPlace<'_>],
        angles: &RopeAngles,
        cache: &mut KvCache,
        scratch: &mut Scratch,
    ) {
        let DecoderConfig { hidden, heads, kv_heads, head_dim, norm_eps, .. } = self.config;
        let (rows, width) = (places.len(), self.config.qkv_width());
        let residual = sized(&mut scratch.residual, rows * hidden);
        let delta = sized(&mut scratch.delta, rows * hidden);
        let normed = sized(&mut scratch.normed, rows * hidden);
        cpu.add_rms_norm(residual, delta, &layer.attention_norm, norm_eps, normed);
        let qkv = sized(&mut scratch.qkv, rows * width);
        cpu.matmul(&layer.qkv, normed, qkv);
        cpu.rope(qkv, width, heads + kv_heads, head_dim, angles);
        for (place, row) in places.iter().zip(qkv.chunks_exact(width)) {
            let (key, value) = row[heads * head_dim..].split_at(kv_heads * head_dim);
            cache.write(number, *place, key, value);
        }
        let attended = sized(&mut scratch.attended, rows * heads * head_dim);
        let scale = 1.0 / (head_dim as f32).sqrt();
        cpu.attention(cache, number, places, heads, (qkv, width), scale, attended);
        cpu.matmul(&layer.attention_output, attended, delta);
    }

    /// As [`Decoder::attention_block`], for the second half of a layer.
    fn feed_forward_block(&self, cpu: &Cpu, layer: &Layer, rows: usize, scratch: &mut Scratch) {
        let DecoderConfig { hidden, feed_forward, norm_eps, .. } = self.config;
        let residual = sized(&mut scratch.residual, rows * hidden);
        let delta = sized(&mut scratch.delta, rows * hidden);
        let normed = sized(&mut scratch.normed, rows * hidden);
        cpu.add_rms_norm(residual, delta, &layer.feed_forward_norm, norm_eps, normed);
        let gate_up = sized(&mut scratch.gate_up, rows * 2 * feed_forward);
        cpu.matmul(&layer.gate_up, normed, gate_up);
        let activated = sized(&mut scratch.activated, rows * feed_forward);
        cpu.silu_mul(gate_up, feed_forward, activated);
        cpu.matmul(&layer.down, activated, delta);
    }

    /// The head, on some rows only of the batch that `scratch` was last used for: `[sampled, vocab]`.
    pub(crate) fn logits<'s>(
        &self,
        cpu: &Cpu,
        sampled: &[usize],
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let hidden = self.config.hidden;
        let normed = sized(&mut scratch.normed, sampled.len() * hidden);
        for (row, normed) in sampled.iter().zip(normed.chunks_exact_mut(hidden)) {
            let row = &scratch.residual[row * hidden..][..hidden];
            cpu.rms_norm(row, &self.output_norm, self.config.norm_eps, normed);
        }
        let logits = sized(&mut scratch.logits, sampled.len() * self.vocab());
        cpu.matmul(&self.output, normed, logits);
        logits
    }
}
