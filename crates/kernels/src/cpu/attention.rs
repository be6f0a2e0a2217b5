//! Attention over the paged cache: which rows and heads go together, and who computes them.
//!
//! Keys are walked in spans of [`SPAN_BLOCKS`] blocks of [`super::BLOCK_TOKENS`]: all scores of a span, then its
//! softmax, then its values. Spans are merged in order, as Flash-Decoding does (Dao et al., 2023). So a row's result
//! depends on its query and on the keys and values it sees: prefilling a prompt at once, in chunks, or token by
//! token gives the same bits, whether spans are computed by one thread or by several, and wherever in the pool a block lies.

use super::Cpu;
use super::attention_walk::{self as walk, Part, Softmax};
use super::kv_cache::{KvCache, KvShape, Places};
use super::rows::SharedRows;
use std::cell::RefCell;

/// Most queries that walk the keys together. They share what they load.
pub(super) const QUERIES_MAX: usize = 16;

/// Blocks of a span: 256 keys.
pub(super) const SPAN_BLOCKS: usize = 8;

/// What distinguishes one layer's attention from another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Which layer of the cache.
    pub layer: usize,
    /// Query heads, a multiple of the cache's. Head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f32,
    /// Where set, scores become `softcap · tanh(score / softcap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// Where set, a row sees this many keys, its own the last; else all up to its own.
    pub window: Option<usize>,
}

impl Attention {
    /// Rows of one sequence that can walk the keys together, for [`Places::push`].
    #[must_use]
    pub fn tile_rows(heads: usize, kv_heads: usize) -> usize {
        (QUERIES_MAX / (heads / kv_heads).max(1)).max(1)
    }
}

/// Room that attention computes in, kept from call to call.
#[derive(Default)]
pub struct AttentionScratch {
    /// Spans of parts that any thread may take.
    items: Vec<SpanOf>,
    /// The first item of each part, and the end.
    firsts: Vec<usize>,
    /// Of each query in each item: the output `[head_dim]`, the largest score and the total.
    records: Vec<f32>,
}

/// A span of a part.
#[derive(Clone, Copy)]
struct SpanOf {
    part: usize,
    span: usize,
    /// Where its records begin.
    at: usize,
}

/// How the queries of a step are cut into parts.
struct Cut {
    /// Query heads of one key head.
    group: usize,
    /// Query heads of a part.
    heads: usize,
    /// Parts that share a tile and a key head.
    chunks: usize,
    kv_heads: usize,
}

thread_local! {
    /// What a part computes in, kept from part to part.
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of the thread's own, whose contents are left over from earlier parts.
fn with_buffer(len: usize, work: impl FnOnce(&mut [f32])) {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        work(&mut buffer[..len]);
    });
}

impl Cpu {
    /// Causal attention of each row over its sequence, its own token included; the cache must already hold
    /// every row's key and value.
    ///
    /// `q`: rows of `q_width` floats that begin with the queries `[heads · head_dim]`; `out`: `[rows, heads ·
    /// head_dim]`.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn attention(
        &self,
        cache: &KvCache,
        places: &Places,
        spec: &Attention,
        (q, q_width): (&[f32], usize),
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) {
        let KvShape { kv_heads, head_dim, .. } = cache.shape();
        let width = spec.heads * head_dim;
        assert!(spec.heads.is_multiple_of(kv_heads), "attention: heads are not whole groups");
        assert!(width <= q_width, "attention: {} queries do not fit a row", spec.heads);
        assert_eq!(q.len(), places.len() * q_width, "attention: queries and places differ");
        assert_eq!(out.len(), places.len() * width, "attention: wrong output size");
        let (group, tile_rows) =
            (spec.heads / kv_heads, Attention::tile_rows(spec.heads, kv_heads));
        let tallest = places.tiles().iter().map(|tile| tile.rows).max().unwrap_or(0);
        assert!(tallest <= tile_rows, "attention: {tallest} rows walk together, not {tile_rows}");
        let heads = group.min(QUERIES_MAX);
        let cut = Cut { group, heads, chunks: group.div_ceil(heads), kv_heads };
        let parts = places.tiles().len() * kv_heads * cut.chunks;
        let part = |index: usize| cut.part(cache, places, spec, (q, q_width), index);
        if self.threads() > 1 && cut.is_uneven(parts, 4 * self.threads(), &part) {
            return self.attention_by_spans(&part, parts, scratch, (out, width));
        }
        // Cycles, more or less, of a part: its products, sixteen at a time, of keys and of values.
        let cost = QUERIES_MAX.min(group * places.len()) * places.longest() * head_dim / 8;
        let out = SharedRows::new(out, width);
        self.for_rows(parts, cost, &|index| {
            // The last rows of a prompt see most keys: they go first.
            let part = part(parts - 1 - index);
            let (count, dim) = (part.queries(), head_dim);
            with_buffer(count * (3 * dim + walk::SCORES_STRIDE), |buffer| {
                let (packed, rest) = buffer.split_at_mut(count * dim);
                let (span_out, rest) = rest.split_at_mut(count * dim);
                let (sum, scores) = rest.split_at_mut(count * dim);
                part.pack(self.level(), packed);
                sum.fill(0.0);
                let mut softmax = [Softmax::EMPTY; QUERIES_MAX];
                for span in part.spans() {
                    let mut of_span = [Softmax::EMPTY; QUERIES_MAX];
                    walk::span(self.level(), &part, span, packed, scores, &mut of_span, span_out);
                    for query in 0..count {
                        let (sum, span_out) =
                            (&mut sum[query * dim..][..dim], &span_out[query * dim..][..dim]);
                        walk::merge(
                            self.level(),
                            &mut softmax[query],
                            sum,
                            of_span[query],
                            span_out,
                        );
                    }
                }
                for query in 0..count {
                    let (row, head) = part.query(query);
                    // SAFETY: each head of each row is taken by one part.
                    let out = unsafe { out.range(row, head * dim, dim) };
                    softmax[query].finish(&sum[query * dim..][..dim], out);
                }
            });
        });
    }

    /// The same where some part is much of it all: each span of each part by any thread, then merged in order.
    fn attention_by_spans<'a>(
        &self,
        part: &(impl Fn(usize) -> Part<'a> + Sync),
        parts: usize,
        scratch: &mut AttentionScratch,
        (out, width): (&mut [f32], usize),
    ) {
        let dim = part(0).head_dim();
        let record = dim + 2;
        let AttentionScratch { items, firsts, records } = scratch;
        let mut at = 0;
        items.clear();
        firsts.clear();
        for index in 0..parts {
            let part = part(index);
            firsts.push(items.len());
            for span in part.spans() {
                items.push(SpanOf { part: index, span, at });
                at += part.queries() * record;
            }
        }
        firsts.push(items.len());
        if records.len() < at {
            records.resize(at, 0.0);
        }
        let shared = SharedRows::new(records, 1);
        self.pool.run(items.len(), &|index| {
            let SpanOf { part: index, span, at } = items[index];
            let part = part(index);
            let count = part.queries();
            // SAFETY: each span of each part is computed by one thread, and no two share records.
            let records = unsafe { shared.rows(at..at + count * record) };
            let mut softmax = [Softmax::EMPTY; QUERIES_MAX];
            with_buffer(count * (2 * dim + walk::SCORES_STRIDE), |buffer| {
                let (packed, rest) = buffer.split_at_mut(count * dim);
                let (span_out, scores) = rest.split_at_mut(count * dim);
                part.pack(self.level(), packed);
                walk::span(self.level(), &part, span, packed, scores, &mut softmax, span_out);
                let queries = span_out.chunks_exact(dim).zip(&softmax);
                for (record, (out, softmax)) in records.chunks_exact_mut(record).zip(queries) {
                    record[..dim].copy_from_slice(out);
                    (record[dim], record[dim + 1]) = (softmax.largest, softmax.total);
                }
            });
        });
        let out = SharedRows::new(out, width);
        self.for_rows(parts, records.len() / parts, &|index| {
            let (part, items) = (part(index), &items[firsts[index]..firsts[index + 1]]);
            for query in 0..part.queries() {
                let mut softmax = Softmax::EMPTY;
                let mut sum = [0.0; super::HEAD_DIM_MAX];
                for item in items {
                    let record = &records[item.at + query * record..][..record];
                    let of_span = Softmax { largest: record[dim], total: record[dim + 1] };
                    let (level, sum) = (self.level(), &mut sum[..dim]);
                    walk::merge(level, &mut softmax, sum, of_span, &record[..dim]);
                }
                let (row, head) = part.query(query);
                // SAFETY: each head of each row is taken by one part.
                softmax.finish(&sum[..dim], unsafe { out.range(row, head * dim, dim) });
            }
        });
    }
}

impl Cut {
    /// Whether some part of several spans is more than one `share`th of all.
    fn is_uneven<'a>(&self, parts: usize, share: usize, part: &impl Fn(usize) -> Part<'a>) -> bool {
        let (mut largest, mut total) = (0, 0);
        // The parts of a tile are alike.
        for part in (0..parts).step_by(self.kv_heads * self.chunks).map(part) {
            let spans = part.spans().len();
            largest = largest.max(if spans > 1 { spans * part.queries() } else { 0 });
            total += self.kv_heads * self.chunks * spans * part.queries();
        }
        largest * share > total
    }

    fn part<'a>(
        &self,
        cache: &'a KvCache,
        places: &'a Places,
        spec: &'a Attention,
        (q, q_width): (&'a [f32], usize),
        index: usize,
    ) -> Part<'a> {
        let (index, chunk) = (index / self.chunks, index % self.chunks);
        let (tile, kv_head) = (index / self.kv_heads, index % self.kv_heads);
        let first = chunk * self.heads;
        let heads = self.heads.min(self.group - first);
        Part {
            cache,
            places,
            spec,
            q,
            q_width,
            tile: places.tiles()[tile],
            kv_head,
            first_head: kv_head * self.group + first,
            heads,
        }
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
