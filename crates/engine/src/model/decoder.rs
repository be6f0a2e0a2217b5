//! The forward pass over a ragged batch.

use super::attention::AttentionBlock;
use super::config::{DecoderConfig, NormPlacement};
use super::feed_forward::FeedForward;
use super::scratch::{Scratch, sized};
use crate::batch::Batch;
use inferno_kernels::Cpu;
use inferno_kernels::cpu::{Attention, KvCache, KvShape, Residual, RopeAngles, Weight};

/// A decoder with grouped-query attention and gated feed-forward blocks around a residual stream (Touvron et
/// al., "Llama 2", 2023, and what others made of it).
pub struct Decoder {
    pub(super) config: DecoderConfig,
    /// `[vocab, hidden]`.
    pub(super) embedding: Weight,
    pub(super) layers: Vec<Layer>,
    /// Times the scale of the logits.
    pub(super) output_norm: Vec<f32>,
    /// `[vocab, hidden]`; the embedding again where the file ties them.
    pub(super) output: [Weight; 1],
}

/// One decoder layer.
pub(super) struct Layer {
    pub(super) attention: AttentionBlock,
    pub(super) feed_forward: FeedForward,
    pub(super) attention_norms: Norms,
    pub(super) feed_forward_norms: Norms,
}

/// The norms of a block: of what it reads and of what it gives. [`NormPlacement`] says which there are.
pub(super) struct Norms {
    pub(super) pre: Option<Vec<f32>>,
    pub(super) post: Option<Vec<f32>>,
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

    /// All matrices, each once.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        let layers = self
            .layers
            .iter()
            .flat_map(|layer| layer.attention.weights().chain(layer.feed_forward.weights()));
        let output = self.output.iter().filter(|output| !output.shares_memory(&self.embedding));
        layers.chain(std::iter::once(&self.embedding)).chain(output)
    }

    /// Bytes that the matrices take in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weights().map(|weight| weight.repacked_bytes() as u64).sum()
    }

    /// What a KV cache for this model is made for.
    #[must_use]
    pub fn kv_shape(&self) -> KvShape {
        let DecoderConfig { kv_heads, head_dim, .. } = self.config;
        KvShape { layers: self.layers.len(), kv_heads, head_dim }
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
        self.place(cpu, batch, scratch);
        self.embed(cpu, &batch.tokens, scratch);
        for (number, layer) in self.layers.iter().enumerate() {
            layer.attention.compute(cpu, &self.config, number, cache, scratch);
            let post = layer.attention_norms.post.as_deref();
            let pre = layer.feed_forward_norms.pre.as_deref();
            self.add_to_residual(cpu, batch.len(), post, pre, scratch);
            layer.feed_forward.compute(cpu, &self.config, batch.len(), scratch);
            let post = layer.feed_forward_norms.post.as_deref();
            let next = self.layers.get(number + 1);
            let pre = next.and_then(|next| next.attention_norms.pre.as_deref());
            self.add_to_residual(cpu, batch.len(), post, pre, scratch);
        }
        self.logits(cpu, &batch.sampled, scratch)
    }

    /// Where the rows stand in the cache, and the angles of their positions.
    fn place(&self, cpu: &Cpu, batch: &Batch, scratch: &mut Scratch) {
        let tile_rows = Attention::tile_rows(self.config.heads, self.config.kv_heads);
        scratch.places.clear();
        let mut start = 0;
        for rows in batch.sequences.chunk_by(|a, b| a == b) {
            let positions = &batch.positions[start..][..rows.len()];
            scratch.places.push(&batch.tables[rows[0]], positions, tile_rows);
            start += rows.len();
        }
        scratch.angles.resize_with(self.config.ropes.len(), RopeAngles::default);
        for (angles, rope) in scratch.angles.iter_mut().zip(&self.config.ropes) {
            cpu.rope_angles(angles, &batch.positions, rope);
        }
    }

    /// The residual stream's beginning, and what the first block reads.
    fn embed(&self, cpu: &Cpu, tokens: &[u32], scratch: &mut Scratch) {
        let (hidden, scale) = (self.config.hidden, self.config.embedding_scale);
        let residual = sized(&mut scratch.residual, tokens.len() * hidden);
        for (token, row) in tokens.iter().zip(residual.chunks_exact_mut(hidden)) {
            self.embedding.row_into(*token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        }
        let normed = sized(&mut scratch.normed, tokens.len() * hidden);
        match self.layers.first().and_then(|layer| layer.attention_norms.pre.as_deref()) {
            Some(weight) => cpu.rms_norm(residual, weight, self.config.norm_eps, normed),
            None => normed.copy_from_slice(residual),
        }
    }

    /// Adds a block's output to the residual, and makes what the next block reads.
    fn add_to_residual(
        &self,
        cpu: &Cpu,
        rows: usize,
        post: Option<&[f32]>,
        pre: Option<&[f32]>,
        scratch: &mut Scratch,
    ) {
        let DecoderConfig { hidden, norm_eps: eps, residual_scale: scale, .. } = self.config;
        let residual = sized(&mut scratch.residual, rows * hidden);
        let delta = sized(&mut scratch.delta, rows * hidden);
        let normed = sized(&mut scratch.normed, rows * hidden);
        let norms = Residual { post, scale, pre, eps };
        cpu.add_to_residual(residual, delta, hidden, &norms, normed);
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
        if let Some(cap) = self.config.logit_softcap {
            cpu.softcap(logits, cap);
        }
        logits
    }
}

impl NormPlacement {
    pub(super) fn has_pre(self) -> bool {
        self != Self::Post
    }

    pub(super) fn has_post(self) -> bool {
        self != Self::Pre
    }
}
