//! What one thread does for attention: some queries walk a span of keys together.

use super::attention::{Attention, QUERIES_MAX, SPAN_BLOCKS};
use super::kv_cache::{BLOCK_TOKENS, KvCache, Places, Tile};
use super::lanes::{LANES, Lanes, exp};
use super::level::instantiate;
use super::simd::{Simd, instantiate_simd};
use std::ops::Range;

/// Keys of a span.
pub(super) const SPAN_TOKENS: usize = SPAN_BLOCKS * BLOCK_TOKENS;

/// Most queries whose sums are kept in registers at a time.
const GROUP: usize = 4;

/// Chains of additions in a score, each over a quarter of the head.
const CHAINS: usize = 4;

/// Queries that share the keys and values they read: some heads of the rows of a tile.
pub(super) struct Part<'a> {
    pub(super) cache: &'a KvCache,
    pub(super) places: &'a Places,
    pub(super) spec: &'a Attention,
    pub(super) q: &'a [f32],
    pub(super) q_width: usize,
    pub(super) tile: Tile,
    pub(super) kv_head: usize,
    pub(super) first_head: usize,
    pub(super) heads: usize,
}

/// The state of an online softmax: `total = Σ exp(score − largest)`.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    pub(super) largest: f32,
    pub(super) total: f32,
}

impl Softmax {
    /// Before any key.
    pub(super) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, total: 0.0 };

    /// `out = sum / total`.
    pub(super) fn finish(self, sum: &[f32], out: &mut [f32]) {
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum / self.total;
        }
    }
}

impl Part<'_> {
    /// How many.
    pub(super) fn queries(&self) -> usize {
        self.tile.rows * self.heads
    }

    pub(super) fn head_dim(&self) -> usize {
        self.cache.shape().head_dim
    }

    /// Row and head of a query.
    pub(super) fn query(&self, index: usize) -> (usize, usize) {
        (self.tile.first + index / self.heads, self.first_head + index % self.heads)
    }

    /// The queries, scaled: those of a [`GROUP`] side by side, `[head_dim, group]`, group after group.
    pub(super) fn pack(&self, packed: &mut [f32]) {
        let (dim, count) = (self.head_dim(), self.queries());
        for index in 0..count {
            let (row, head) = self.query(index);
            let q = &self.q[row * self.q_width + head * dim..][..dim];
            let group = index / GROUP * GROUP;
            let width = GROUP.min(count - group);
            let column = packed[group * dim + index % GROUP..].iter_mut().step_by(width);
            for (packed, q) in column.zip(q) {
                *packed = q * self.spec.scale;
            }
        }
    }

    /// Positions that a query sees.
    #[inline(always)]
    fn visible(&self, index: usize) -> Range<usize> {
        let end = self.places.row(self.query(index).0).position as usize + 1;
        end.saturating_sub(self.spec.window.unwrap_or(usize::MAX))..end
    }

    /// Blocks that any query sees.
    fn blocks(&self) -> Range<usize> {
        let all = (0..self.queries()).step_by(self.heads).map(|index| self.visible(index));
        let (start, end) = all.fold((usize::MAX, 0), |(start, end), visible| {
            (start.min(visible.start), end.max(visible.end))
        });
        start / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS)
    }

    /// Spans that any query sees.
    pub(super) fn spans(&self) -> Range<usize> {
        let blocks = self.blocks();
        blocks.start / SPAN_BLOCKS..blocks.end.div_ceil(SPAN_BLOCKS)
    }
}

instantiate_simd!(
    /// The softmax of each query over one span: its state, and `Σ exp(score − largest) · value` in `out`
    /// (`[queries, head_dim]`). Where a query sees nothing of the span, its state stays empty.
    fn span(
        part: &Part<'_>,
        span: usize,
        packed: &[f32],
        softmax: &mut [Softmax; QUERIES_MAX],
        out: &mut [f32],
    ) = span_body
);

#[inline(always)]
fn span_body<S: Simd>(
    simd: S,
    part: &Part<'_>,
    span: usize,
    packed: &[f32],
    softmax: &mut [Softmax; QUERIES_MAX],
    out: &mut [f32],
) {
    let (dim, count, seen) = (part.head_dim(), part.queries(), part.blocks());
    let table = part.places.row(part.tile.first).blocks;
    let blocks = seen.start.max(span * SPAN_BLOCKS)..seen.end.min((span + 1) * SPAN_BLOCKS);
    out.fill(0.0);
    for block in blocks {
        let (keys, values) = part.cache.head(part.spec.layer, table[block], part.kv_head);
        for first in (0..count).step_by(GROUP) {
            let width = GROUP.min(count - first);
            let group = Group {
                part,
                block,
                first,
                packed: &packed[first * dim..][..width * dim],
                keys,
                values,
            };
            let (softmax, out) =
                (&mut softmax[first..][..width], &mut out[first * dim..][..width * dim]);
            match width {
                1 => group.step::<S, 1>(simd, softmax, out),
                2 => group.step::<S, 2>(simd, softmax, out),
                3 => group.step::<S, 3>(simd, softmax, out),
                _ => group.step::<S, 4>(simd, softmax, out),
            }
        }
    }
}

/// A few queries against one block.
struct Group<'a> {
    part: &'a Part<'a>,
    block: usize,
    /// Number of the first query in the part.
    first: usize,
    /// `[head_dim, queries]`.
    packed: &'a [f32],
    keys: &'a [[u16; BLOCK_TOKENS]],
    values: &'a [u16],
}

impl Group<'_> {
    #[inline(always)]
    fn step<S: Simd, const R: usize>(&self, simd: S, softmax: &mut [Softmax], out: &mut [f32]) {
        let (dim, start) = (self.keys.len(), self.block * BLOCK_TOKENS);
        let mut weights = [[0.0; BLOCK_TOKENS]; R];
        // With 16 vector registers, half of the keys at a time.
        if S::WIDE {
            self.scores::<S, R, 2>(simd, 0, &mut weights);
        } else {
            self.scores::<S, R, 1>(simd, 0, &mut weights);
            self.scores::<S, R, 1>(simd, 1, &mut weights);
        }
        let mut seen = 0;
        for (query, weights) in weights.iter_mut().enumerate() {
            let visible = self.part.visible(self.first + query);
            let from = visible.start.saturating_sub(start);
            let to = visible.end.saturating_sub(start).min(BLOCK_TOKENS);
            if from >= to {
                *weights = [0.0; BLOCK_TOKENS];
                continue;
            }
            seen = seen.max(to);
            let out = &mut out[query * dim..][..dim];
            soften(weights, from..to, self.part.spec.softcap, &mut softmax[query], out);
        }
        self.add_values::<S, R>(simd, &weights, seen, out);
    }

    /// Scores of `R` queries against `16 · T` keys from `16 · tile` on.
    #[inline(always)]
    fn scores<S: Simd, const R: usize, const T: usize>(
        &self,
        simd: S,
        tile: usize,
        scores: &mut [[f32; BLOCK_TOKENS]; R],
    ) {
        // Enough sums at a time to hide the latency of an addition; the sums themselves are the same.
        let sums = match R {
            1 => self.chains::<S, R, T, 4>(simd, tile),
            2 => self.chains::<S, R, T, 2>(simd, tile),
            _ => self.chains::<S, R, T, 1>(simd, tile),
        };
        for (r, scores) in scores.iter_mut().enumerate() {
            let scores = &mut scores.as_chunks_mut::<LANES>().0[tile..];
            for (t, scores) in scores.iter_mut().take(T).enumerate() {
                let halves = [0, 2].map(|c| simd.add(sums[c][r][t], sums[c + 1][r][t]));
                simd.store(simd.add(halves[0], halves[1]), scores);
            }
        }
    }

    /// The chains of [`Group::scores`], `C` at a time.
    #[inline(always)]
    fn chains<S: Simd, const R: usize, const T: usize, const C: usize>(
        &self,
        simd: S,
        tile: usize,
    ) -> [[[S::F; T]; R]; CHAINS] {
        let packed = self.packed.as_chunks::<R>().0;
        let length = self.keys.len() / CHAINS;
        assert_eq!(packed.len(), self.keys.len(), "queries and keys differ in length");
        let mut sums = [[[simd.splat(0.0); T]; R]; CHAINS];
        for first in (0..CHAINS).step_by(C) {
            let mut some = [[[simd.splat(0.0); T]; R]; C];
            for step in 0..length {
                for (c, sums) in some.iter_mut().enumerate() {
                    let element = (first + c) * length + step;
                    // SAFETY: `first + c < CHAINS` and `step < length`, so it is below the length of both.
                    let (line, q) = unsafe {
                        (self.keys.get_unchecked(element), packed.get_unchecked(element))
                    };
                    let line = line.as_chunks::<LANES>().0;
                    let keys: [S::F; T] = std::array::from_fn(|t| simd.widen(&line[tile + t]));
                    for (sums, q) in sums.iter_mut().zip(q) {
                        let q = simd.splat(*q);
                        for (sum, key) in sums.iter_mut().zip(keys) {
                            *sum = simd.mul_add(q, key, *sum);
                        }
                    }
                }
            }
            sums[first..first + C].copy_from_slice(&some);
        }
        sums
    }

    /// `out[q] += Σ weights[q][j] · values[j]` over the first `seen` keys, key after key.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize>(
        &self,
        simd: S,
        weights: &[[f32; BLOCK_TOKENS]; R],
        seen: usize,
        out: &mut [f32],
    ) {
        let columns = match (S::WIDE, R) {
            (true, _) | (false, 1) => 4,
            (false, 2) => 2,
            (false, _) => 1,
        };
        let chunks = self.keys.len() / LANES;
        let mut chunk = 0;
        while chunk < chunks {
            match columns.min(chunks - chunk) {
                4 => self.add_columns::<S, R, 4>(simd, weights, seen, chunk, out),
                2 | 3 => self.add_columns::<S, R, 2>(simd, weights, seen, chunk, out),
                _ => self.add_columns::<S, R, 1>(simd, weights, seen, chunk, out),
            }
            chunk += match columns.min(chunks - chunk) {
                4 => 4,
                2 | 3 => 2,
                _ => 1,
            };
        }
    }

    /// As [`Group::add_values`] for `16 · N` elements of the head from `16 · chunk` on.
    #[inline(always)]
    fn add_columns<S: Simd, const R: usize, const N: usize>(
        &self,
        simd: S,
        weights: &[[f32; BLOCK_TOKENS]; R],
        seen: usize,
        chunk: usize,
        out: &mut [f32],
    ) {
        let chunks = self.keys.len() / LANES;
        let values = self.values.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        assert!(seen <= BLOCK_TOKENS && chunk + N <= chunks, "columns outside the head");
        assert!(values.len() == BLOCK_TOKENS * chunks && out.len() == R * chunks, "odd shapes");
        let mut sums = [[simd.splat(0.0); N]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = simd.load(&out[r * chunks + chunk + n]);
            }
        }
        for key in 0..seen {
            let row: [S::F; N] = std::array::from_fn(|n| {
                // SAFETY: `key < BLOCK_TOKENS` and `chunk + n < chunks`, whose product is the length.
                simd.widen(unsafe { values.get_unchecked(key * chunks + chunk + n) })
            });
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // SAFETY: `key < seen <= BLOCK_TOKENS`.
                let weight = simd.splat(unsafe { *weights.get_unchecked(key) });
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum = simd.mul_add(weight, value, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                simd.store(*sum, &mut out[r * chunks + chunk + n]);
            }
        }
    }
}

/// Turns the scores of a block, of which `visible` count, into weights; where they hold a new largest one, what
/// was summed before shrinks.
#[inline(always)]
fn soften(
    scores: &mut [f32; BLOCK_TOKENS],
    visible: Range<usize>,
    softcap: Option<f32>,
    softmax: &mut Softmax,
    out: &mut [f32],
) {
    let tiles = scores.as_chunks_mut::<LANES>().0;
    let mut block_largest = f32::NEG_INFINITY;
    for (tile, scores) in tiles.iter_mut().enumerate() {
        let mut lanes = Lanes(*scores);
        if let Some(cap) = softcap {
            lanes = lanes.mul(Lanes::splat(1.0 / cap)).tanh().mul(Lanes::splat(cap));
        }
        for (lane, score) in lanes.0.iter_mut().enumerate() {
            let key = tile * LANES + lane;
            *score =
                if visible.start <= key && key < visible.end { *score } else { f32::NEG_INFINITY };
        }
        *scores = lanes.0;
        block_largest = block_largest.max(lanes.max_lane());
    }
    if block_largest > softmax.largest {
        let shrink = exp(softmax.largest - block_largest);
        softmax.total *= shrink;
        out.iter_mut().for_each(|x| *x *= shrink);
        softmax.largest = block_largest;
    }
    for scores in tiles {
        let exps = Lanes(*scores).add(Lanes::splat(-softmax.largest)).exp();
        softmax.total += exps.sum();
        *scores = exps.0;
    }
}

instantiate!(
    /// Adds the softmax of a later span to that of the spans before it.
    fn merge(into: &mut Softmax, sum: &mut [f32], of_span: Softmax, out: &[f32]) = merge_body
);

#[inline(always)]
fn merge_body(into: &mut Softmax, sum: &mut [f32], of_span: Softmax, out: &[f32]) {
    if of_span.largest == f32::NEG_INFINITY {
        return;
    }
    let largest = if of_span.largest > into.largest { of_span.largest } else { into.largest };
    let (before, after) = (exp(into.largest - largest), exp(of_span.largest - largest));
    into.total = of_span.total.mul_add(after, into.total * before);
    into.largest = largest;
    for (sum, out) in sum.iter_mut().zip(out) {
        *sum = out.mul_add(after, *sum * before);
    }
}
