//! Attention over a paged KV cache.
//!
//! Keys are walked in blocks of [`BLOCK_TOKENS`] from the first, with the online softmax of FlashAttention
//! (Dao et al., 2022). A row's result depends on its query and on the keys and values at positions up to
//! its own: prefilling a prompt at once, in chunks, or token by token gives the same bits, and it does not
//! matter where in the pool a block lies.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

/// Tokens in a block of the cache, which is also the stride in which attention walks keys.
pub const BLOCK_TOKENS: usize = 32;

/// Halves of a block that fit the lanes.
const TILES: usize = BLOCK_TOKENS / LANES;

/// What a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: usize,
    /// Heads of keys and values in a layer.
    pub kv_heads: usize,
    /// Elements of a head, a multiple of 16.
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes that one block of [`BLOCK_TOKENS`] tokens takes over all layers.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.layers * self.layer_block() * size_of::<f32>()
    }

    /// Floats of one block in one layer.
    fn layer_block(&self) -> usize {
        self.kv_heads * self.head_block()
    }

    /// Floats of one block, layer and head: keys `[head_dim, BLOCK_TOKENS]` (so that the lanes run over
    /// keys), then values `[BLOCK_TOKENS, head_dim]`.
    fn head_block(&self) -> usize {
        2 * self.head_dim * BLOCK_TOKENS
    }
}

/// Keys and values of every block of the pool, `[layers, blocks, kv_heads, 2 · head_dim · BLOCK_TOKENS]`.
pub struct KvCache {
    shape: KvShape,
    blocks: usize,
    data: Vec<f32>,
}

/// Where a row of the batch stands: the blocks of its sequence, in order, and its position in it.
#[derive(Clone, Copy, Debug)]
pub struct RowPlace<'a> {
    /// Block numbers; the row's own block is among them.
    pub blocks: &'a [u32],
    /// Tokens before this one.
    pub position: u32,
}

impl KvCache {
    /// A cache of `blocks` blocks. Its memory is taken from the system as blocks are first written.
    #[must_use]
    pub fn new(shape: KvShape, blocks: usize) -> Self {
        Self { shape, blocks, data: vec![0.0; shape.layers * blocks * shape.layer_block()] }
    }

    /// What it was made for.
    #[must_use]
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Writes the key and value (`[kv_heads · head_dim]` each) of the token at `place` in `layer`.
    ///
    /// # Panics
    /// When the place lies outside its blocks or the cache.
    pub fn write(&mut self, layer: usize, place: RowPlace<'_>, key: &[f32], value: &[f32]) {
        let (KvShape { head_dim, .. }, position) = (self.shape, place.position as usize);
        let (block, slot) = (place.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        let start = self.block_start(layer, block);
        let len = self.shape.layer_block();
        let heads = self.data[start..][..len].chunks_exact_mut(self.shape.head_block());
        for ((head, key), value) in
            heads.zip(key.chunks_exact(head_dim)).zip(value.chunks_exact(head_dim))
        {
            let (keys, values) = head.split_at_mut(head_dim * BLOCK_TOKENS);
            for (column, key) in keys.chunks_exact_mut(BLOCK_TOKENS).zip(key) {
                column[slot] = *key;
            }
            values[slot * head_dim..][..head_dim].copy_from_slice(value);
        }
    }

    fn block_start(&self, layer: usize, block: u32) -> usize {
        assert!((block as usize) < self.blocks, "block {block} of {}", self.blocks);
        (layer * self.blocks + block as usize) * self.shape.layer_block()
    }

    /// Keys `[head_dim, BLOCK_TOKENS]` and values `[BLOCK_TOKENS, head_dim]` of a head in a block.
    #[inline(always)]
    fn head(&self, layer: usize, block: u32, kv_head: usize) -> (&[f32], &[f32]) {
        let len = self.shape.head_block();
        self.data[self.block_start(layer, block) + kv_head * len..][..len].split_at(len / 2)
    }
}

impl Cpu {
    /// Causal attention of each row over its sequence, its own token included; the cache must already
    /// hold every row's key and value. Heads are grouped: query head `h` reads key head `h / (heads /
    /// kv_heads)`.
    ///
    /// `q`: rows of `q_width` floats that begin with the queries `[heads · head_dim]`; `out`: `[rows, heads ·
    /// head_dim]`. Scores are scaled by `scale`.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    #[allow(clippy::too_many_arguments)]
    pub fn attention(
        &self,
        cache: &KvCache,
        layer: usize,
        places: &[RowPlace<'_>],
        heads: usize,
        (q, q_width): (&[f32], usize),
        scale: f32,
        out: &mut [f32],
    ) {
        let KvShape { kv_heads, head_dim, .. } = cache.shape;
        let group = heads / kv_heads * head_dim;
        assert_eq!(
            q.len(),
            places.len() * q_width,
            "attention: queries and places differ in number"
        );
        assert_eq!(out.len(), places.len() * heads * head_dim, "attention: wrong output size");
        let longest = places.iter().map(|place| place.position as usize + 1).max().unwrap_or(0);
        let out = SharedRows::new(out, heads * head_dim);
        self.for_rows(places.len() * kv_heads, 2 * longest * group, &|part| {
            let (row, kv_head) = (part / kv_heads, part % kv_heads);
            let q = &q[row * q_width + kv_head * group..][..group];
            // SAFETY: each group of heads of each row is taken by one part.
            let out = unsafe { out.range(row, kv_head * group, group) };
            for (q, out) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                attend(self.level(), cache, layer, kv_head, places[row], q, scale, out);
            }
        });
    }
}

instantiate!(
    #[allow(clippy::too_many_arguments)]
    fn attend(
        cache: &KvCache,
        layer: usize,
        kv_head: usize,
        place: RowPlace<'_>,
        q: &[f32],
        scale: f32,
        out: &mut [f32],
    ) = attend_body
);

/// One query head over its keys: `out = Σ softmax(scale · q·k) v`.
#[inline(always)]
fn attend_body(
    cache: &KvCache,
    layer: usize,
    kv_head: usize,
    place: RowPlace<'_>,
    q: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    let keys_total = place.position as usize + 1;
    let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0f32);
    out.fill(0.0);
    for (index, block) in place.blocks[..keys_total.div_ceil(BLOCK_TOKENS)].iter().enumerate() {
        let count = (keys_total - index * BLOCK_TOKENS).min(BLOCK_TOKENS);
        let (keys, values) = cache.head(layer, *block, kv_head);
        let scores = block_scores(q, keys, scale, count);
        let block_largest = scores.iter().fold(f32::NEG_INFINITY, |m, s| m.max(s.max_lane()));
        if block_largest > largest {
            let shrink = super::lanes::exp(largest - block_largest);
            total *= shrink;
            out.iter_mut().for_each(|x| *x *= shrink);
            largest = block_largest;
        }
        let mut weights = [0.0f32; BLOCK_TOKENS];
        for (tile, scores) in scores.iter().enumerate() {
            let exps = scores.add(Lanes::splat(-largest)).exp();
            total += exps.sum();
            exps.store(&mut weights[tile * LANES..]);
        }
        add_values(&weights[..count], values, out);
    }
    out.iter_mut().for_each(|x| *x /= total);
}

/// Scaled scores of one query against a block's keys; negative infinity from `count` on.
#[inline(always)]
fn block_scores(q: &[f32], keys: &[f32], scale: f32, count: usize) -> [Lanes; TILES] {
    let mut scores = [Lanes::ZERO; TILES];
    for (tile, scores) in scores.iter_mut().enumerate() {
        // Four chains, by dimension modulo 4, hide the latency of the additions.
        let mut chains = [Lanes::ZERO; 4];
        for (step, q) in q.chunks_exact(4).enumerate() {
            for (chain, sum) in chains.iter_mut().enumerate() {
                let column = &keys[(4 * step + chain) * BLOCK_TOKENS + tile * LANES..];
                *sum = Lanes::splat(q[chain]).mul_add(Lanes::load(column), *sum);
            }
        }
        let sum = chains[0].add(chains[1]).add(chains[2].add(chains[3]));
        let valid = count.saturating_sub(tile * LANES).min(LANES);
        *scores = sum.mul(Lanes::splat(scale)).keep_first(valid, f32::NEG_INFINITY);
    }
    scores
}

/// `out += Σ weights[j] · values[j]`, key after key.
#[inline(always)]
fn add_values(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let head_dim = out.len();
    let mut start = 0;
    while start + 4 * LANES <= head_dim {
        add_columns::<4>(weights, values, head_dim, start, out);
        start += 4 * LANES;
    }
    while start < head_dim {
        add_columns::<1>(weights, values, head_dim, start, out);
        start += LANES;
    }
}

#[inline(always)]
fn add_columns<const N: usize>(
    weights: &[f32],
    values: &[f32],
    head_dim: usize,
    start: usize,
    out: &mut [f32],
) {
    let mut sums = [Lanes::ZERO; N];
    for (n, sum) in sums.iter_mut().enumerate() {
        *sum = Lanes::load(&out[start + n * LANES..]);
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = Lanes::splat(*weight).mul_add(Lanes::load(&value[start + n * LANES..]), *sum);
        }
    }
    for (n, sum) in sums.iter().enumerate() {
        sum.store(&mut out[start + n * LANES..]);
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
