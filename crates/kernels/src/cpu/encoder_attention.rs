//! Attention of every token to every token of its text, as encoders have it.
//!
//! The texts of a batch lie one after another without padding. A part is one head of one text: its keys and
//! values are packed once and serve all its queries. Each score is one chain over the head's dimensions and
//! each output one chain over the text's tokens, so that neither neighbours, threads nor the tiling show.

use super::Cpu;
use super::lanes::{LANES, Lanes};
use super::level::instantiate;
use super::rows::SharedRows;

/// Queries computed side by side: they share each load of keys and values.
const QUERIES: usize = 4;

/// One head of a text: its `dim` columns from `start` in each of the three projections, `hidden` wide.
#[derive(Clone, Copy)]
pub(super) struct Head {
    hidden: usize,
    start: usize,
    dim: usize,
}

impl Cpu {
    /// Bidirectional attention of each text over itself: `softmax(q · kᵀ / √head_dim) · v` for each of `heads`
    /// heads, `head_dim = hidden / heads`.
    ///
    /// `qkv`: `[rows, 3 · hidden]`, queries, keys and values side by side, to which `bias` (`[3 · hidden]`) is
    /// added here. Text `t` has the rows `starts[t]..starts[t + 1]`. `out`: `[rows, hidden]`.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn encoder_attention(
        &self,
        qkv: &[f32],
        bias: &[f32],
        starts: &[usize],
        heads: usize,
        out: &mut [f32],
    ) {
        let hidden = bias.len() / 3;
        assert!(hidden.is_multiple_of(heads), "encoder_attention: {hidden} over {heads} heads");
        assert_eq!(
            qkv.len(),
            3 * out.len(),
            "encoder_attention: the input is not thrice the output"
        );
        let (dim, texts) = (hidden / heads, starts.len().saturating_sub(1));
        let out = SharedRows::new(out, hidden);
        self.pool.run(texts * heads, &|part| {
            let (text, head) = (part / heads, part % heads);
            let rows = starts[text]..starts[text + 1];
            let input = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
            let head = Head { hidden, start: head * dim, dim };
            let mut attended = vec![0.0; rows.len() * dim];
            attend(self.level(), input, bias, head, &mut attended);
            for (row, attended) in rows.zip(attended.chunks_exact(dim)) {
                // SAFETY: texts have rows of their own, and heads columns of their own.
                unsafe { out.range(row, head.start, dim) }.copy_from_slice(attended);
            }
        });
    }
}

instantiate!(fn attend(text: &[f32], bias: &[f32], head: Head, out: &mut [f32]) = attend_body);

/// One head of one text. `text`: `[tokens, 3 · hidden]`; `out`: `[tokens, dim]`.
#[inline(always)]
fn attend_body(text: &[f32], bias: &[f32], head: Head, out: &mut [f32]) {
    let tokens = out.len() / head.dim;
    let packed = Packed::new(text, bias, head, tokens);
    let stride = tokens.next_multiple_of(LANES);
    let mut scores = vec![0.0; QUERIES * stride];
    let mut mixed = vec![0.0; QUERIES * packed.width];
    let queries = packed.queries.chunks_exact(QUERIES * head.dim);
    for (queries, out) in queries.zip(out.chunks_mut(QUERIES * head.dim)) {
        packed.score(queries, head.dim, &mut scores);
        let mut totals = [0.0; QUERIES];
        for (scores, total) in scores.chunks_exact_mut(stride).zip(&mut totals) {
            *total = exponentiate(scores, tokens);
        }
        packed.mix(&scores, tokens, &totals, &mut mixed);
        for (out, mixed) in out.chunks_exact_mut(head.dim).zip(mixed.chunks_exact(packed.width)) {
            out.copy_from_slice(&mixed[..head.dim]);
        }
    }
}

/// A head's projections with their biases, laid out for the loops below. What pads them is 0.
struct Packed {
    /// Already scaled, `[tokens up to a multiple of QUERIES, dim]`.
    queries: Vec<f32>,
    /// `[tiles, dim, LANES]`: sixteen tokens side by side.
    keys: Vec<f32>,
    /// `[tokens, width]`.
    values: Vec<f32>,
    /// The head's dimensions, up to whole lanes.
    width: usize,
}

impl Packed {
    #[inline(always)]
    fn new(text: &[f32], bias: &[f32], head: Head, tokens: usize) -> Self {
        let Head { hidden, start, dim } = head;
        let width = dim.next_multiple_of(LANES);
        let mut packed = Self {
            queries: vec![0.0; tokens.next_multiple_of(QUERIES) * dim],
            keys: vec![0.0; tokens.next_multiple_of(LANES) * dim],
            values: vec![0.0; tokens * width],
            width,
        };
        let scale = 1.0 / (dim as f32).sqrt();
        let [query_bias, key_bias, value_bias] =
            [0, 1, 2].map(|part| &bias[part * hidden + start..][..dim]);
        for (row, projections) in text.chunks_exact(3 * hidden).enumerate() {
            let [query, key, value] =
                [0, 1, 2].map(|part| &projections[part * hidden + start..][..dim]);
            let tile = &mut packed.keys[row / LANES * dim * LANES..][..dim * LANES];
            let queries = &mut packed.queries[row * dim..][..dim];
            let values = &mut packed.values[row * width..][..dim];
            for d in 0..dim {
                queries[d] = (query[d] + query_bias[d]) * scale;
                tile[d * LANES + row % LANES] = key[d] + key_bias[d];
                values[d] = value[d] + value_bias[d];
            }
        }
        packed
    }

    /// Products of [`QUERIES`] queries with all keys, `[QUERIES, tokens up to whole lanes]`.
    #[inline(always)]
    fn score(&self, queries: &[f32], dim: usize, scores: &mut [f32]) {
        let (stride, tile) = (scores.len() / QUERIES, dim * LANES);
        let mut at = 0;
        while at + 2 * LANES <= stride {
            score_tiles::<2>(
                queries,
                dim,
                &self.keys[at / LANES * tile..],
                stride,
                &mut scores[at..],
            );
            at += 2 * LANES;
        }
        if at < stride {
            score_tiles::<1>(
                queries,
                dim,
                &self.keys[at / LANES * tile..],
                stride,
                &mut scores[at..],
            );
        }
    }

    /// Means of the values under `weights`, whose sums are `totals`: `[QUERIES, width]`.
    #[inline(always)]
    fn mix(&self, weights: &[f32], tokens: usize, totals: &[f32; QUERIES], out: &mut [f32]) {
        let mut column = 0;
        while column + 2 * LANES <= self.width {
            self.mix_columns::<2>(weights, tokens, totals, column, out);
            column += 2 * LANES;
        }
        if column < self.width {
            self.mix_columns::<1>(weights, tokens, totals, column, out);
        }
    }

    #[inline(always)]
    fn mix_columns<const N: usize>(
        &self,
        weights: &[f32],
        tokens: usize,
        totals: &[f32; QUERIES],
        column: usize,
        out: &mut [f32],
    ) {
        let stride = weights.len() / QUERIES;
        let rows: [&[f32]; QUERIES] = std::array::from_fn(|q| &weights[q * stride..][..tokens]);
        let mut sums = [[Lanes::ZERO; N]; QUERIES];
        for (token, values) in self.values.chunks_exact(self.width).enumerate() {
            let values: [Lanes; N] =
                std::array::from_fn(|n| Lanes::load(&values[column + n * LANES..]));
            for (q, sums) in sums.iter_mut().enumerate() {
                let weight = Lanes::splat(rows[q][token]);
                for n in 0..N {
                    sums[n] = weight.mul_add(values[n], sums[n]);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            let share = Lanes::splat(1.0 / totals[q]);
            for (n, sum) in sums.iter().enumerate() {
                sum.mul(share).store(&mut out[q * self.width + column + n * LANES..]);
            }
        }
    }
}

/// Products of [`QUERIES`] queries with the keys of `T` tiles, into rows `stride` apart.
#[inline(always)]
fn score_tiles<const T: usize>(
    queries: &[f32],
    dim: usize,
    keys: &[f32],
    stride: usize,
    scores: &mut [f32],
) {
    let rows: [&[f32]; QUERIES] = std::array::from_fn(|q| &queries[q * dim..][..dim]);
    let mut sums = [[Lanes::ZERO; T]; QUERIES];
    for d in 0..dim {
        let keys: [Lanes; T] = std::array::from_fn(|t| Lanes::load(&keys[(t * dim + d) * LANES..]));
        for (q, sums) in sums.iter_mut().enumerate() {
            let query = Lanes::splat(rows[q][d]);
            for t in 0..T {
                sums[t] = query.mul_add(keys[t], sums[t]);
            }
        }
    }
    for (q, sums) in sums.iter().enumerate() {
        for (t, sum) in sums.iter().enumerate() {
            sum.store(&mut scores[q * stride + t * LANES..]);
        }
    }
}

/// Replaces the first `tokens` scores by `exp(score − largest)` and the others by 0; the sum.
#[inline(always)]
fn exponentiate(scores: &mut [f32], tokens: usize) -> f32 {
    scores[tokens..].fill(f32::NEG_INFINITY);
    let mut largest = Lanes::splat(f32::NEG_INFINITY);
    for tile in scores.chunks_exact(LANES) {
        largest = Lanes::load(tile).max(largest);
    }
    let shift = Lanes::splat(-largest.max_lane());
    let mut total = Lanes::ZERO;
    for tile in scores.chunks_exact_mut(LANES) {
        let exps = Lanes::load(tile).add(shift).exp();
        total = total.add(exps);
        exps.store(tile);
    }
    total.sum()
}

#[cfg(test)]
#[path = "encoder_attention_tests.rs"]
mod tests;
