//! What one thread does for attention: some queries walk a span of keys together.

use super::attention::{Attention, QUERIES_MAX, SPAN_BLOCKS};
use super::kv_cache::{BLOCK_TOKENS, KvCache, Places, Tile};
use super::lanes::{LANES, Lanes, exp};
use super::level::{Level, Tier, instantiate};
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Plain, Simd, instantiate_simd};
use std::ops::Range;

/// Keys of a span.
pub(super) const SPAN_TOKENS: usize = SPAN_BLOCKS * BLOCK_TOKENS;

/// Most queries whose sums are kept in registers at a time: what they share, they load once.
const fn group_of<S: Simd>() -> usize {
    if S::WIDE { 8 } else { 4 }
}

/// The queries that are packed together at this level.
fn group(level: Level) -> usize {
    match level.tier() {
        Tier::Plain => group_of::<Plain>(),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => group_of::<Avx2>(),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => group_of::<Avx512>(),
    }
}

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

    /// The weighted mean, `sum / total`.
    pub(super) fn finish(self, sum: &[f32], out: &mut [f32]) {
        let share = 1.0 / self.total;
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum * share;
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

    /// The queries, scaled: those of a [`group`] side by side, `[head_dim, group]`, group after group.
    pub(super) fn pack(&self, level: Level, packed: &mut [f32]) {
        let (dim, count, group) = (self.head_dim(), self.queries(), group(level));
        for first in (0..count).step_by(group) {
            let width = group.min(count - first);
            let packed = &mut packed[first * dim..][..width * dim];
            for lane in 0..width {
                let (row, head) = self.query(first + lane);
                let q = &self.q[row * self.q_width + head * dim..][..dim];
                for (packed, q) in packed.chunks_exact_mut(width).zip(q) {
                    packed[lane] = q * self.spec.scale;
                }
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
    let mut visible = [(0, 0); QUERIES_MAX];
    for (query, visible) in visible[..count].iter_mut().enumerate() {
        let range = part.visible(query);
        *visible = (range.start, range.end);
    }
    let head = |block: usize| part.cache.head(part.spec.layer, table[block], part.kv_head);
    for block in blocks {
        let (keys, values) = head(block);
        let next = head((block + 1).min(seen.end - 1));
        for first in (0..count).step_by(group_of::<S>()) {
            let width = group_of::<S>().min(count - first);
            let group = Group {
                softcap: part.spec.softcap,
                start: block * BLOCK_TOKENS,
                visible: &visible[first..][..width],
                packed: &packed[first * dim..][..width * dim],
                keys,
                values,
                next: if first == 0 { next } else { (&[], &[]) },
            };
            let (softmax, out) =
                (&mut softmax[first..][..width], &mut out[first * dim..][..width * dim]);
            match width {
                1 => group.step::<S, 1>(simd, softmax, out),
                2 => group.step::<S, 2>(simd, softmax, out),
                3 => group.step::<S, 3>(simd, softmax, out),
                4 => group.step::<S, 4>(simd, softmax, out),
                5 => group.step::<S, 5>(simd, softmax, out),
                6 => group.step::<S, 6>(simd, softmax, out),
                7 => group.step::<S, 7>(simd, softmax, out),
                _ => group.step::<S, 8>(simd, softmax, out),
            }
        }
    }
}

/// Sums of `R` queries with `16 · T` keys.
type Sums<S, const R: usize, const T: usize> = [[<S as Simd>::F; T]; R];

/// A few queries against one block.
struct Group<'a> {
    softcap: Option<f32>,
    /// Position of the block's first key.
    start: usize,
    /// The first position that each query sees, and one past its last.
    visible: &'a [(usize, usize)],
    /// `[head_dim, queries]`.
    packed: &'a [f32],
    keys: &'a [[u16; BLOCK_TOKENS]],
    values: &'a [u16],
    /// Keys and values of the block to come, to be asked for in time; empty where others do so.
    next: (&'a [[u16; BLOCK_TOKENS]], &'a [u16]),
}

impl Group<'_> {
    #[inline(always)]
    fn step<S: Simd, const R: usize>(&self, simd: S, softmax: &mut [Softmax], out: &mut [f32]) {
        let dim = self.keys.len();
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
            let (from, to) = self.visible[query];
            let from = from.saturating_sub(self.start);
            let to = to.saturating_sub(self.start).min(BLOCK_TOKENS);
            if from >= to {
                *weights = [0.0; BLOCK_TOKENS];
                continue;
            }
            seen = seen.max(to);
            let out = &mut out[query * dim..][..dim];
            soften(simd, weights, from..to, self.softcap, &mut softmax[query], out);
        }
        self.add_values::<S, R>(simd, &weights, seen, out);
    }

    /// Scores of `R` queries against `16 · T` keys from `16 · tile` on: four chains of additions, each over a
    /// quarter of the head, `(c₀ + c₁) + (c₂ + c₃)`.
    #[inline(always)]
    fn scores<S: Simd, const R: usize, const T: usize>(
        &self,
        simd: S,
        tile: usize,
        scores: &mut [[f32; BLOCK_TOKENS]; R],
    ) {
        let mut pairs = [[simd.splat(0.0); T]; R];
        for pair in 0..2 {
            // One query alone: two chains at a time, to hide the latency of an addition.
            let (first, second) = if R == 1 {
                self.two_chains::<S, R, T>(simd, tile, 2 * pair)
            } else {
                let first = self.chain::<S, R, T>(simd, tile, 2 * pair);
                (first, self.chain::<S, R, T>(simd, tile, 2 * pair + 1))
            };
            for r in 0..R {
                for t in 0..T {
                    let sum = simd.add(first[r][t], second[r][t]);
                    if pair == 0 {
                        pairs[r][t] = sum;
                    } else {
                        let scores = &mut scores[r].as_chunks_mut::<LANES>().0[tile + t];
                        simd.store(simd.add(pairs[r][t], sum), scores);
                    }
                }
            }
        }
    }

    /// Elements of the head in chain `number`: their keys and queries.
    #[inline(always)]
    fn quarter<const R: usize>(&self, number: usize) -> (&[[u16; BLOCK_TOKENS]], &[[f32; R]]) {
        let length = self.keys.len() / CHAINS;
        let packed = self.packed.as_chunks::<R>().0;
        (&self.keys[number * length..][..length], &packed[number * length..][..length])
    }

    /// One chain of [`Group::scores`].
    #[inline(always)]
    fn chain<S: Simd, const R: usize, const T: usize>(
        &self,
        simd: S,
        tile: usize,
        number: usize,
    ) -> Sums<S, R, T> {
        let mut sums = [[simd.splat(0.0); T]; R];
        let (lines, packed) = self.quarter::<R>(number);
        self.ask_for_keys(simd, tile, number);
        for (line, q) in lines.iter().zip(packed) {
            accumulate(simd, tile, line, q, &mut sums);
        }
        sums
    }

    /// Two chains of [`Group::scores`], from `number` on.
    #[inline(always)]
    fn two_chains<S: Simd, const R: usize, const T: usize>(
        &self,
        simd: S,
        tile: usize,
        number: usize,
    ) -> (Sums<S, R, T>, Sums<S, R, T>) {
        let mut sums = [[[simd.splat(0.0); T]; R]; 2];
        let (lines, packed) = self.quarter::<R>(number);
        let (more_lines, more_packed) = self.quarter::<R>(number + 1);
        self.ask_for_keys(simd, tile, number);
        self.ask_for_keys(simd, tile, number + 1);
        for ((line, q), (more_line, more_q)) in
            lines.iter().zip(packed).zip(more_lines.iter().zip(more_packed))
        {
            accumulate(simd, tile, line, q, &mut sums[0]);
            accumulate(simd, tile, more_line, more_q, &mut sums[1]);
        }
        (sums[0], sums[1])
    }

    /// Asks for a quarter of the next block's keys.
    #[inline(always)]
    fn ask_for_keys<S: Simd>(&self, simd: S, tile: usize, number: usize) {
        let length = self.keys.len() / CHAINS;
        if tile == 0 && !self.next.0.is_empty() {
            for line in &self.next.0[number * length..][..length] {
                simd.prefetch(line);
            }
        }
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
            (true, ..=4) | (false, 1) => 4,
            (true, _) | (false, 2) => 2,
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
        let zero = simd.splat(0.0);
        let mut sums = [[zero; N]; R];
        for r in 0..R {
            for n in 0..N {
                sums[r][n] = simd.load(&out[r * chunks + chunk + n]);
            }
        }
        for key in 0..seen {
            for n in (0..N).step_by(2) {
                if let Some(line) = self.next.1.get((key * chunks + chunk + n) * LANES..) {
                    simd.prefetch(line);
                }
            }
            let mut row = [zero; N];
            for n in 0..N {
                // SAFETY: `key < BLOCK_TOKENS` and `chunk + n < chunks`, whose product is the length.
                row[n] = simd.widen(unsafe { values.get_unchecked(key * chunks + chunk + n) });
            }
            for r in 0..R {
                // SAFETY: `key < seen <= BLOCK_TOKENS`.
                let weight = simd.splat(unsafe { *weights[r].get_unchecked(key) });
                for n in 0..N {
                    sums[r][n] = simd.mul_add(weight, row[n], sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                simd.store(sums[r][n], &mut out[r * chunks + chunk + n]);
            }
        }
    }
}

/// Adds one element's products of `R` queries and `16 · T` keys.
#[inline(always)]
fn accumulate<S: Simd, const R: usize, const T: usize>(
    simd: S,
    tile: usize,
    line: &[u16; BLOCK_TOKENS],
    q: &[f32; R],
    sums: &mut [[S::F; T]; R],
) {
    let line = line.as_chunks::<LANES>().0;
    let mut keys = [simd.splat(0.0); T];
    for t in 0..T {
        keys[t] = simd.widen(&line[tile + t]);
    }
    for r in 0..R {
        let q = simd.splat(q[r]);
        for t in 0..T {
            sums[r][t] = simd.mul_add(q, keys[t], sums[r][t]);
        }
    }
}

/// Turns the scores of a block, of which `visible` count, into weights; where they hold a new largest one, what
/// was summed before shrinks.
#[inline(always)]
fn soften<S: Simd>(
    simd: S,
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
        block_largest = block_largest.max(simd.largest(simd.load(scores)));
    }
    if block_largest > softmax.largest {
        let shrink = exp(softmax.largest - block_largest);
        softmax.total *= shrink;
        out.iter_mut().for_each(|x| *x *= shrink);
        softmax.largest = block_largest;
    }
    for scores in tiles {
        let exps = Lanes(*scores).add(Lanes::splat(-softmax.largest)).exp();
        *scores = exps.0;
        softmax.total += simd.sum(simd.load(scores));
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
