//! Which tokens may be drawn, found without sorting the vocabulary.
//!
//! Sorting 49,152 logits takes over a millisecond. Both cuts below first find a bound that every wanted
//! token passes, in one pass, and then sort only what passes it: usually some dozens.

use crate::request::SamplingParams;
use inferno_kernels::{Level, math};
use std::cmp::Ordering;

/// Most tokens in a block of the maxima by which [`top`] finds its bound.
const BLOCK_MAX: usize = 64;

/// Draws a token from `softmax(logits)` cut by top-k, top-p and min-p, at `uniform` in [0, 1). The largest
/// logit is 0.
pub(super) fn draw(logits: &[f32], params: &SamplingParams, uniform: f64, level: Level) -> u32 {
    if params.top_k == 0 && params.top_p >= 1.0 && params.min_p <= 0.0 {
        return draw_from_all(logits, uniform, level);
    }
    let candidates = candidates(logits, params, level);
    let chances = chances(&candidates, logits, level);
    let total: f64 = chances.iter().copied().map(f64::from).sum();
    candidates[walk(&chances, uniform * total)]
}

fn draw_from_all(logits: &[f32], uniform: f64, level: Level) -> u32 {
    let mut chances = vec![0.0; logits.len()];
    level.exp_into(logits, 0.0, &mut chances);
    let total: f64 = chances.iter().copied().map(f64::from).sum();
    walk(&chances, uniform * total) as u32
}

/// The first index at which the running sum of `chances` exceeds `target`; the last one with a chance when
/// rounding lets none.
fn walk(chances: &[f32], target: f64) -> usize {
    let mut sum = 0.0;
    for (index, chance) in chances.iter().enumerate() {
        sum += f64::from(*chance);
        if sum > target {
            return index;
        }
    }
    chances.iter().rposition(|chance| *chance > 0.0).unwrap_or(0)
}

/// The ids that pass all cuts, likeliest first; at least one. As in vLLM, top-p is a share of what top-k leaves;
/// min-p is a share of the likeliest token's chance, which no cut changes.
fn candidates(logits: &[f32], params: &SamplingParams, level: Level) -> Vec<u32> {
    let floor = match params.min_p > 0.0 {
        true => math::ln(f64::from(params.min_p)) as f32,
        false => f32::NEG_INFINITY,
    };
    let (mut ids, whole) = match params.top_k {
        0 => {
            let whole = level.exp_sum(logits, 0.0);
            let mut ids = above(logits, floor.max(nucleus_bound(whole, logits.len(), params)));
            sort(&mut ids, logits);
            (ids, whole)
        }
        k => {
            let ids = top(logits, k, level);
            let whole = chances(&ids, logits, level).into_iter().map(f64::from).sum();
            (ids, whole)
        }
    };
    ids.retain(|id| logits[*id as usize] >= floor);
    if params.top_p < 1.0 {
        let target = f64::from(params.top_p) * whole;
        ids.truncate(nucleus(&chances(&ids, logits, level), target));
    }
    ids
}

/// The exponentials of the logits of `ids`.
fn chances(ids: &[u32], logits: &[f32], level: Level) -> Vec<f32> {
    let logits: Vec<f32> = ids.iter().map(|id| logits[*id as usize]).collect();
    let mut chances = vec![0.0; logits.len()];
    level.exp_into(&logits, 0.0, &mut chances);
    chances
}

/// A logit below which none of `vocab` tokens, whose chances add up to `whole`, is in the nucleus. Tokens each
/// less likely than (1 − p)/V hold less than 1 − p together, so those above hold at least p, which is all that
/// the nucleus needs.
fn nucleus_bound(whole: f64, vocab: usize, params: &SamplingParams) -> f32 {
    if params.top_p >= 1.0 {
        return f32::NEG_INFINITY;
    }
    let share = f64::from(1.0 - params.top_p) / vocab as f64;
    // A little lower, so that rounding cannot cut a token that belongs.
    (math::ln(share * whole) - 1e-3) as f32
}

/// How many of `chances`, largest first, add up to at least `target`: all when not even they do.
fn nucleus(chances: &[f32], target: f64) -> usize {
    let mut sum = 0.0;
    for (index, chance) in chances.iter().enumerate() {
        sum += f64::from(*chance);
        if sum >= target {
            return index + 1;
        }
    }
    chances.len()
}

/// The `count` likeliest ids, likeliest first, the lower id first of equals.
///
/// The bound is the `count`-th largest of the maxima of blocks, of which there are at least `count`: as many
/// tokens reach it.
pub(super) fn top(logits: &[f32], count: usize, level: Level) -> Vec<u32> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let block = (logits.len() / count).min(BLOCK_MAX);
    let mut maxima: Vec<f32> = logits.chunks(block).map(|block| level.max(block)).collect();
    let bound = maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1;
    let mut ids = above(logits, *bound);
    sort(&mut ids, logits);
    ids.truncate(count);
    ids
}

fn above(logits: &[f32], bound: f32) -> Vec<u32> {
    let ids = logits.iter().zip(0..).filter(|(logit, _)| **logit >= bound);
    ids.map(|(_, id)| id).collect()
}

fn sort(ids: &mut [u32], logits: &[f32]) {
    let logit = |id: &u32| logits[*id as usize];
    ids.sort_unstable_by(|a, b| match logit(b).total_cmp(&logit(a)) {
        Ordering::Equal => a.cmp(b),
        order => order,
    });
}
