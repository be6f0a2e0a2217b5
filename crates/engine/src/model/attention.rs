//! The attention block.

use super::config::DecoderConfig;
use super::scratch::{Scratch, sized};
use inferno_kernels::Cpu;
use inferno_kernels::cpu::{Attention, Heads, KvCache, Weight};

/// Its weights. Those that share an input are kept together and cost one pass.
pub(super) struct AttentionBlock {
    /// Queries, keys, values, `[…, hidden]`: three matrices, or one where the file fuses them.
    pub(super) qkv: Vec<Weight>,
    /// `[(heads + 2 · kv_heads) · head_dim]`.
    pub(super) bias: Option<Vec<f32>>,
    /// `[head_dim]` or `[heads · head_dim]`.
    pub(super) query_norm: Option<Vec<f32>>,
    /// `[head_dim]` or `[kv_heads · head_dim]`.
    pub(super) key_norm: Option<Vec<f32>>,
    /// `[hidden, heads · head_dim]`.
    pub(super) output: [Weight; 1],
}

impl AttentionBlock {
    /// All matrices.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.qkv.iter().chain(&self.output)
    }

    /// Reads `normed` and leaves the block's output in `delta`.
    pub(super) fn compute(
        &self,
        cpu: &Cpu,
        config: &DecoderConfig,
        number: usize,
        cache: &mut KvCache,
        scratch: &mut Scratch,
    ) {
        let (places, layer) = (&scratch.places, config.layers[number]);
        let (rows, width) = (places.len(), config.qkv_width());
        let normed = sized(&mut scratch.normed, rows * config.hidden);
        let qkv = sized(&mut scratch.qkv, rows * width);
        cpu.matmul(&self.qkv, normed, qkv);
        let heads = Heads {
            heads: config.heads,
            bias: self.bias.as_deref(),
            query_norm: self.query_norm.as_deref(),
            key_norm: self.key_norm.as_deref(),
            norm_eps: config.norm_eps,
            angles: layer.rope.map(|rope| &scratch.angles[rope]),
        };
        cpu.place_heads(qkv, &heads, number, places, cache);
        let attention = Attention {
            layer: number,
            heads: config.heads,
            scale: config.attention_scale,
            softcap: config.attention_softcap,
            window: layer.window,
        };
        let attended = sized(&mut scratch.attended, rows * config.query_width());
        cpu.attention(cache, places, &attention, (qkv, width), &mut scratch.attention, attended);
        cpu.matmul(&self.output, attended, sized(&mut scratch.delta, rows * config.hidden));
    }
}
