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

/// Floats between the scores of one query and the next: those of a span, and a few so that they do not all fall into
/// the same lines of the processor's cache.
pub(super) const SCORES_STRIDE: usize = SPAN_TOKENS + LANES;

/// Most queries whose sums are kept in registers at a time: what they share, they load once.
const fn group_of<S: Simd>() -> usize {
    if S::WIDE { 8 } else { 4 }
}

/// How many of `count` queries go together, so that no group is left with a few.
#[inline(always)]
fn group_width<S: Simd>(count: usize) -> usize {
    count.div_ceil(count.div_ceil(group_of::<S>()))
}

/// The same at this level.
fn group(level: Level, count: usize) -> usize {
    match level.tier() {
        Tier::Plain => group_width::<Plain>(count),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => group_width::<Avx2>(count),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => group_width::<Avx512>(count),
    }
}

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

/// The state of a softmax, of one span or of several merged: `total = Σ exp(score − largest)`.
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
        let (dim, count) = (self.head_dim(), self.queries());
        let group = group(level, count);
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
    /// (`[queries, head_dim]`). Where a query sees nothing of the span, its state stays empty. In `scores` there is
    /// room for a [`SCORES_STRIDE`] of each query.
    fn span(
        part: &Part<'_>,
        span: usize,
        packed: &[f32],
        scores: &mut [f32],
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
    scores: &mut [f32],
    softmax: &mut [Softmax; QUERIES_MAX],
    out: &mut [f32],
) {
    let (dim, count, seen) = (part.head_dim(), part.queries(), part.blocks());
    let table = part.places.row(part.tile.first).blocks;
    let blocks = seen.start.max(span * SPAN_BLOCKS)..seen.end.min((span + 1) * SPAN_BLOCKS);
    let mut heads = [(&[][..], &[][..]); SPAN_BLOCKS + 1];
    // Beside the span's own, the block after it, to be asked for in time.
    for (head, block) in heads.iter_mut().zip(blocks.start..seen.end) {
        *head = part.cache.head(part.spec.layer, table[block], part.kv_head);
    }
    let (heads, next) = heads.split_at(blocks.len());
    // From here on keys are counted from the first of the span's blocks that is seen.
    let start = blocks.start * BLOCK_TOKENS;
    let local = |position: usize| position.saturating_sub(start).min(blocks.len() * BLOCK_TOKENS);
    let mut visible = [(0, 0); QUERIES_MAX];
    for (query, visible) in visible[..count].iter_mut().enumerate() {
        let range = part.visible(query);
        *visible = (local(range.start), local(range.end));
    }
    for first in (0..count).step_by(group_width::<S>(count)) {
        let width = group_width::<S>(count).min(count - first);
        let group = Group {
            softcap: part.spec.softcap,
            visible: &visible[first..][..width],
            packed: &packed[first * dim..][..width * dim],
            heads,
            next: (first == 0).then_some(next[0]),
        };
        let (softmax, out) =
            (&mut softmax[first..][..width], &mut out[first * dim..][..width * dim]);
        match width {
            1 => group.walk::<S, 1>(simd, scores, softmax, out),
            2 => group.walk::<S, 2>(simd, scores, softmax, out),
            3 => group.walk::<S, 3>(simd, scores, softmax, out),
            4 => group.walk::<S, 4>(simd, scores, softmax, out),
            5 => group.walk::<S, 5>(simd, scores, softmax, out),
            6 => group.walk::<S, 6>(simd, scores, softmax, out),
            7 => group.walk::<S, 7>(simd, scores, softmax, out),
            _ => group.walk::<S, 8>(simd, scores, softmax, out),
        }
    }
}

/// Keys of a head in a block, `[head_dim, BLOCK_TOKENS]`, and its values, `[BLOCK_TOKENS, head_dim]`.
type Head<'a> = (&'a [[u16; BLOCK_TOKENS]], &'a [u16]);

/// A few queries against the blocks of a span.
struct Group<'a> {
    softcap: Option<f32>,
    /// The first key that each query sees, and one past its last, counted from the first block.
    visible: &'a [(usize, usize)],
    /// `[head_dim, queries]`.
    packed: &'a [f32],
    heads: &'a [Head<'a>],
    /// The block that comes after these, empty at the end; `None` where another group asks for what is to come.
    next: Option<Head<'a>>,
}

/// Scores of some queries, then their weights.
type Scores<const R: usize> = [[f32; SCORES_STRIDE]; R];

impl Group<'_> {
    #[inline(always)]
    fn walk<S: Simd, const R: usize>(
        &self,
        simd: S,
        scores: &mut [f32],
        softmax: &mut [Softmax],
        out: &mut [f32],
    ) {
        let scores = scores.as_chunks_mut::<SCORES_STRIDE>().0;
        let scores: &mut Scores<R> = scores.first_chunk_mut().expect("room for all scores");
        self.scores(simd, scores);
        let (mut from, mut to) = (usize::MAX, 0);
        for (query, scores) in scores.iter_mut().enumerate() {
            let visible = self.visible[query];
            let scores = &mut scores[..self.heads.len() * BLOCK_TOKENS];
            softmax[query] = soften(simd, scores, visible, self.softcap);
            if visible.0 < visible.1 {
                (from, to) = (from.min(visible.0), to.max(visible.1));
            }
        }
        self.add_values(simd, scores, from..to, out);
    }

    /// Scores of `R` queries against all blocks.
    #[inline(always)]
    fn scores<S: Simd, const R: usize>(&self, simd: S, scores: &mut Scores<R>) {
        let (mut block, end) = (0, self.heads.len());
        // Few queries take several blocks at a time, or their additions would wait for one another.
        while R == 1 && block + 4 <= end {
            self.scores_of_blocks::<S, R, 4>(simd, block, scores);
            block += 4;
        }
        while R <= 2 && block + 2 <= end {
            self.scores_of_blocks::<S, R, 2>(simd, block, scores);
            block += 2;
        }
        while block < end {
            self.scores_of_blocks::<S, R, 1>(simd, block, scores);
            block += 1;
        }
    }

    #[inline(always)]
    fn scores_of_blocks<S: Simd, const R: usize, const B: usize>(
        &self,
        simd: S,
        block: usize,
        scores: &mut Scores<R>,
    ) {
        // With 16 vector registers, half of the keys at a time.
        if S::WIDE {
            self.chains::<S, R, B, 2>(simd, block, 0, scores);
        } else {
            self.chains::<S, R, B, 1>(simd, block, 0, scores);
            self.chains::<S, R, B, 1>(simd, block, 1, scores);
        }
    }

    /// Scores of `R` queries against `16 · T` keys, from `16 · tile` on, of each of `B` blocks: one chain of
    /// additions over the head each.
    #[inline(always)]
    fn chains<S: Simd, const R: usize, const B: usize, const T: usize>(
        &self,
        simd: S,
        block: usize,
        tile: usize,
        scores: &mut Scores<R>,
    ) {
        let packed = self.packed.as_chunks::<R>().0;
        let keys: [_; B] = std::array::from_fn(|b| &self.heads[block + b].0[..packed.len()]);
        let next: [&[u16]; B] = std::array::from_fn(|b| match self.next {
            Some(_) if tile == 0 => self.after_keys(block + b, B),
            _ => &[],
        });
        let mut sums = [[[simd.splat(0.0); T]; B]; R];
        for (element, q) in packed.iter().enumerate() {
            for b in 0..B {
                if let Some(line) = next[b].get(element * BLOCK_TOKENS..) {
                    simd.prefetch(line);
                }
                let line = keys[b][element].as_chunks::<LANES>().0;
                let mut keys = [simd.splat(0.0); T];
                for t in 0..T {
                    keys[t] = simd.widen(&line[tile + t]);
                }
                for r in 0..R {
                    let q = simd.splat(q[r]);
                    for t in 0..T {
                        sums[r][b][t] = simd.mul_add(q, keys[t], sums[r][b][t]);
                    }
                }
            }
        }
        for r in 0..R {
            for b in 0..B {
                let scores = scores[r][(block + b) * BLOCK_TOKENS..].as_chunks_mut::<LANES>().0;
                for t in 0..T {
                    simd.store(sums[r][b][t], &mut scores[tile + t]);
                }
            }
        }
    }

    /// What is read `ahead` blocks after the keys of `block`: more keys, or the first values.
    #[inline(always)]
    fn after_keys(&self, block: usize, ahead: usize) -> &[u16] {
        match self.heads.get(block + ahead) {
            Some((keys, _)) => keys.as_flattened(),
            None => self.heads[(block + ahead) - self.heads.len()].1,
        }
    }

    /// What is read after the values of `block`: more of them, or the keys of the next span.
    #[inline(always)]
    fn after_values(&self, block: usize) -> &[u16] {
        let more = self.heads.get(block + 1).map(|(_, values)| *values);
        self.next.map_or(&[], |(keys, _)| more.unwrap_or(keys.as_flattened()))
    }

    /// `out[q] = Σ weights[q][j] · values[j]` over the keys `j`, in their order.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize>(
        &self,
        simd: S,
        weights: &Scores<R>,
        keys: Range<usize>,
        out: &mut [f32],
    ) {
        let columns = match (S::WIDE, R) {
            (true, ..=4) | (false, 1) => 4,
            (true, _) | (false, 2) => 2,
            (false, _) => 1,
        };
        let chunks = out.len() / R / LANES;
        let mut chunk = 0;
        while chunk < chunks {
            let width = match columns.min(chunks - chunk) {
                4 => 4,
                2 | 3 => 2,
                _ => 1,
            };
            match width {
                4 => self.add_columns::<S, R, 4>(simd, weights, &keys, chunk, out),
                2 => self.add_columns::<S, R, 2>(simd, weights, &keys, chunk, out),
                _ => self.add_columns::<S, R, 1>(simd, weights, &keys, chunk, out),
            }
            chunk += width;
        }
    }

    /// As [`Group::add_values`] for `16 · N` elements of the head from `16 · chunk` on.
    #[inline(always)]
    fn add_columns<S: Simd, const R: usize, const N: usize>(
        &self,
        simd: S,
        weights: &Scores<R>,
        keys: &Range<usize>,
        chunk: usize,
        out: &mut [f32],
    ) {
        let out = out.as_chunks_mut::<LANES>().0;
        let chunks = out.len() / R;
        assert!(keys.end <= SPAN_TOKENS && chunk + N <= chunks, "columns outside the head");
        let zero = simd.splat(0.0);
        let mut sums = [[zero; N]; R];
        for (block, (_, values)) in self.heads.iter().enumerate() {
            let (start, next) = (block * BLOCK_TOKENS, self.after_values(block));
            let values = values.as_chunks::<LANES>().0;
            assert!(values.len() == BLOCK_TOKENS * chunks, "values of odd shape");
            for key in keys.start.max(start)..keys.end.min(start + BLOCK_TOKENS) {
                let first = (key - start) * chunks + chunk;
                for n in (0..N).step_by(2) {
                    if let Some(line) = next.get((first + n) * LANES..) {
                        simd.prefetch(line);
                    }
                }
                let mut row = [zero; N];
                for n in 0..N {
                    // SAFETY: `key - start < BLOCK_TOKENS` and `chunk + n < chunks`, whose product is the length.
                    row[n] = simd.widen(unsafe { values.get_unchecked(first + n) });
                }
                for r in 0..R {
                    // SAFETY: `key < keys.end <= SPAN_TOKENS`, which is less than the stride.
                    let weight = simd.splat(unsafe { *weights[r].get_unchecked(key) });
                    for n in 0..N {
                        sums[r][n] = simd.mul_add(weight, row[n], sums[r][n]);
                    }
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

/// Turns the scores of a span, of which those `from..to` count, into weights `exp(score − largest)`.
#[inline(always)]
fn soften<S: Simd>(
    simd: S,
    scores: &mut [f32],
    (from, to): (usize, usize),
    softcap: Option<f32>,
) -> Softmax {
    if from >= to {
        scores.fill(0.0);
        return Softmax::EMPTY;
    }
    let tiles = scores.as_chunks_mut::<LANES>().0;
    if let Some(cap) = softcap {
        for scores in tiles.iter_mut() {
            let capped = Lanes(*scores).mul(Lanes::splat(1.0 / cap)).tanh();
            *scores = capped.mul(Lanes::splat(cap)).0;
        }
    }
    scores[..from].fill(f32::NEG_INFINITY);
    scores[to..].fill(f32::NEG_INFINITY);
    let tiles = scores.as_chunks_mut::<LANES>().0;
    let mut largest = Lanes::splat(f32::NEG_INFINITY);
    for scores in tiles.iter() {
        largest = Lanes(*scores).max(largest);
    }
    let largest = simd.largest(simd.load(&largest.0));
    let mut total = Lanes::ZERO;
    for scores in tiles {
        *scores = Lanes(*scores).add(Lanes::splat(-largest)).exp().0;
        total = total.add(Lanes(*scores));
    }
    Softmax { largest, total: simd.sum(simd.load(&total.0)) }
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
