//! Which tokens may be drawn, found without sorting the vocabulary.
//!
//! Sorting 49,152 logits takes over a millisecond. Every cut here first finds a bound that each wanted token
//! passes, in one pass, and then selects among what passes it, in time linear in their number even where the
//! distribution is flat and half of the vocabulary passes. What is kept is drawn from in the order of ids, and
//! weights are integers, so that no order of selecting or adding can change a draw.

use crate::request::SamplingParams;
use inferno_kernels::{Level, math};
use std::cmp::Ordering;

/// Most tokens in a block of the maxima by which [`bound_of`] finds its bound.
const MAXIMA_BLOCK: usize = 64;
/// Tokens in a block of the sums by which a draw from all tokens finds its place.
const SUMS_BLOCK: usize = 512;
/// The weight of the likeliest token. The weights of a million such tokens add up within 64 bits, and a token
/// a trillion times less likely counts for nothing.
const WEIGHT: f32 = (1u64 << 40) as f32;
/// As few candidates are sorted to find the end of the nucleus.
const SORTED: usize = 32;

/// Buffers of a draw, kept from draw to draw.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Logits after bias, penalties, restrictions and temperature, `[vocab]`.
    pub(super) adjusted: Vec<f32>,
    /// Maxima of blocks, then the logits of what passed.
    floats: Vec<f32>,
    chances: Vec<f32>,
    /// Sums of blocks.
    sums: Vec<f64>,
    /// What passed the bound, by id.
    candidates: Vec<Candidate>,
    /// The same, in the order that selecting left.
    selected: Vec<Candidate>,
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
    /// `exp(logit)`, in units of 2⁻⁴⁰.
    weight: u64,
}

impl Candidate {
    /// Likelier first, the lower id first of equals.
    fn order(&self, other: &Self) -> Ordering {
        rank((self.logit, self.id), (other.logit, other.id))
    }
}

fn rank(a: (f32, u32), b: (f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Draws a token from the softmax of `scratch.adjusted` (`[vocab]`, the largest of which is 0) cut by top-k, top-p
/// and min-p, at `uniform` in [0, 1).
pub(super) fn draw(
    scratch: &mut Scratch,
    params: &SamplingParams,
    uniform: f64,
    level: Level,
) -> u32 {
    if params.top_k == 0 && params.top_p >= 1.0 && params.min_p <= 0.0 {
        return draw_from_all(scratch, uniform, level);
    }
    let floor = match params.min_p > 0.0 {
        true => math::ln(f64::from(params.min_p)) as f32,
        false => f32::NEG_INFINITY,
    };
    let last = last_kept(scratch, params, floor, level);
    let kept = |candidate: &&Candidate| {
        candidate.logit >= floor && candidate.order(&last) != Ordering::Greater
    };
    let kept = scratch.candidates.iter().filter(kept);
    let total: u64 = kept.clone().map(|candidate| candidate.weight).sum();
    let mut rest = ((uniform * total as f64) as u64).min(total.saturating_sub(1));
    for candidate in kept {
        if rest < candidate.weight {
            return candidate.id;
        }
        rest -= candidate.weight;
    }
    last.id
}

/// Finds the block in which the running sum passes the target, then the token in the block.
fn draw_from_all(scratch: &mut Scratch, uniform: f64, level: Level) -> u32 {
    let Scratch { adjusted, chances, sums, .. } = scratch;
    sums.clear();
    sums.extend(adjusted.chunks(SUMS_BLOCK).map(|block| level.exp_sum(block, 0.0)));
    let target = uniform * sums.iter().sum::<f64>();
    let (mut block, mut before) = (0, 0.0);
    while block + 1 < sums.len() && before + sums[block] <= target {
        before += sums[block];
        block += 1;
    }
    let start = block * SUMS_BLOCK;
    let logits = &adjusted[start..adjusted.len().min(start + SUMS_BLOCK)];
    chances.clear();
    chances.resize(logits.len(), 0.0);
    level.exp_into(logits, 0.0, chances);
    let mut sum = before;
    let passes = |chance: &f32| {
        sum += f64::from(*chance);
        sum > target && *chance > 0.0
    };
    let found = chances.iter().position(passes);
    // Rounding may let none pass: then the last one that has a chance, else the likeliest of all.
    let found = found.or_else(|| chances.iter().rposition(|chance| *chance > 0.0));
    let place = found.map(|index| start + index);
    place.or_else(|| adjusted.iter().position(|logit| *logit == 0.0)).unwrap_or(0) as u32
}

/// Gathers the candidates, and finds the last of them, likeliest first, that top-k and top-p keep. As in vLLM,
/// top-p is a share of what top-k leaves; min-p (`floor`) is a share of the likeliest token's chance, which no cut
/// changes.
fn last_kept(
    scratch: &mut Scratch,
    params: &SamplingParams,
    floor: f32,
    level: Level,
) -> Candidate {
    let (vocab, top_p) = (scratch.adjusted.len(), f64::from(params.top_p));
    let unit = f64::from(WEIGHT);
    let target = if params.top_k > 0 {
        let bound = bound_of(&scratch.adjusted, params.top_k, level, &mut scratch.floats);
        scratch.gather(bound, level);
        select(&mut scratch.selected, params.top_k);
        let whole: u64 = scratch.selected.iter().map(|candidate| candidate.weight).sum();
        scratch.selected.retain(|candidate| candidate.logit >= floor);
        top_p * whole as f64
    } else if params.top_p < 1.0 {
        let whole = level.exp_sum(&scratch.adjusted, 0.0);
        scratch.gather(floor.max(nucleus_bound(whole, vocab, params.top_p)), level);
        top_p * whole * unit
    } else {
        scratch.gather(floor, level);
        f64::INFINITY
    };
    let target = if params.top_p < 1.0 { target } else { f64::INFINITY };
    nucleus(&mut scratch.selected, target)
}

impl Scratch {
    #[cfg(test)]
    pub(super) fn of(adjusted: Vec<f32>) -> Self {
        Self { adjusted, ..Self::default() }
    }

    /// Fills both lists with the tokens whose logit reaches `bound`.
    fn gather(&mut self, bound: f32, level: Level) {
        let Self { adjusted, floats, chances, candidates, selected, .. } = self;
        let reaching = adjusted.iter().zip(0..).filter(|(logit, _)| **logit >= bound);
        candidates.clear();
        candidates.extend(reaching.map(|(&logit, id)| Candidate { logit, id, weight: 0 }));
        floats.clear();
        floats.extend(candidates.iter().map(|candidate| candidate.logit));
        chances.clear();
        chances.resize(floats.len(), 0.0);
        level.exp_into(floats, 0.0, chances);
        for (candidate, chance) in candidates.iter_mut().zip(chances) {
            candidate.weight = (*chance * WEIGHT) as u64;
        }
        selected.clear();
        selected.extend_from_slice(candidates);
    }
}

/// Keeps the `count` likeliest, in any order.
fn select(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, Candidate::order);
        candidates.truncate(count);
    }
}

/// The last of the likeliest candidates whose weights add up to `target`; the least likely of all when not even
/// all do. Reorders them. Halves the part in which it lies until that is small: linear, as quickselect is.
fn nucleus(candidates: &mut [Candidate], target: f64) -> Candidate {
    let (mut low, mut high, mut before) = (0, candidates.len(), 0u64);
    while high - low > SORTED {
        let middle = (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle, Candidate::order);
        let first_half = &candidates[low..=low + middle];
        let sum: u64 = first_half.iter().map(|candidate| candidate.weight).sum();
        if (before + sum) as f64 >= target {
            high = low + middle + 1;
        } else {
            before += sum;
            low += middle + 1;
        }
    }
    candidates[low..high].sort_unstable_by(Candidate::order);
    let reaches = |candidate: &&Candidate| {
        before += candidate.weight;
        before as f64 >= target
    };
    let found = candidates[low..high].iter().find(reaches);
    *found.unwrap_or(&candidates[high - 1])
}

/// A logit below which none of `vocab` tokens, whose chances add up to `whole`, is in the nucleus of `top_p` < 1.
/// Tokens each less likely than (1 − p)/V hold less than 1 − p together, so those above hold at least p, which is
/// all that the nucleus needs.
fn nucleus_bound(whole: f64, vocab: usize, top_p: f32) -> f32 {
    let share = f64::from(1.0 - top_p) / vocab as f64;
    // A little lower, so that rounding cannot cut a token that belongs.
    (math::ln(share * whole) - 1e-3) as f32
}

/// A bound that at least `count` of `logits` reach and few more: the `count`-th largest of the maxima of blocks,
/// of which there are at least `count`. `maxima` is scratch.
fn bound_of(logits: &[f32], count: usize, level: Level, maxima: &mut Vec<f32>) -> f32 {
    if count >= logits.len() {
        return f32::NEG_INFINITY;
    }
    let block = (logits.len() / count).min(MAXIMA_BLOCK);
    maxima.clear();
    maxima.extend(logits.chunks(block).map(|block| level.max(block)));
    *maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
}

/// The `count` likeliest ids, likeliest first, the lower id first of equals.
pub(super) fn top(logits: &[f32], count: usize, level: Level) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let bound = bound_of(logits, count, level, &mut Vec::new());
    let reaching = logits.iter().zip(0..).filter(|(logit, _)| **logit >= bound);
    let mut ids: Vec<u32> = reaching.map(|(_, id)| id).collect();
    let order = |a: &u32, b: &u32| rank((logits[*a as usize], *a), (logits[*b as usize], *b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}
