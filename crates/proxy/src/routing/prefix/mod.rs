//! Where the prompt is cached, weighed against what waits there.
//!
//! The cost of a candidate is in seconds:
//!
//! ```text
//! waiting + α · (uncached tokens · seconds per token) + β · in flight + 3 % · work given lately
//! ```
//!
//! *waiting* is what is left of the prefills that it was sent, as [`estimate`] has it from its first tokens, and of
//! those it reports from others. *α* is 1 while there is somebody idle: then the sum is the time to the first token.
//! It grows to 4 as everybody is busy, for then each token computed twice makes everyone behind it wait. *β* is what one
//! stream more costs another over its whole length, as streams have shown, and at least 20 ms. The last term decides
//! between candidates that are about equal: no favourites. Whoever has far more in flight than the mean is left out,
//! whatever is cached there.
//!
//! Backends are believed to have the blocks of the prompts they were sent, as long as their KV cache is large.

mod estimate;
mod map;

use super::{Candidates, Opinion, Pick, Policy, Prompt, RouteRequest};
use estimate::{Backend, Pace, Sent};
pub use estimate::{Expected, StreamSeen};
use inferno_shared::membership::{Candidate, CandidateList};
use map::PrefixMap;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How much α grows until everybody is always busy.
const SCARCITY_WEIGHT: f64 = 3.0;
/// Decisions over which it is remembered whether somebody was idle.
const SCARCITY_SPAN: f64 = 100.0;
/// What one stream more costs at least, in seconds.
const STREAM_S: f64 = 0.02;
/// In flight on a candidate, at most: so many times the mean, and some.
const SKEW_MAX: f64 = 1.5;
const SKEW_FREE: f64 = 8.0;
/// What a second of work given lately costs, in seconds.
const WORK_WEIGHT: f64 = 0.03;
/// What it costs to be beyond that, in seconds: more than anything else.
const BEYOND_S: f64 = 1e9;
/// Models of which something is known.
const GROUPS_MAX: usize = 1024;
/// Decisions for each candidate over which work is remembered.
const WORK_SPAN: f64 = 30.0;
/// Work is kept in a unit that grows, so that all of it shrinks at once; this is when it is brought back to 1.
const UNIT_MAX: f64 = 1e12;

/// The policy.
#[derive(Default)]
pub struct Prefix {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    map: PrefixMap,
    /// By ordinal.
    paces: Vec<Pace>,
    /// By ordinal.
    backends: Vec<Backend>,
    /// By ordinal: blocks of the present prompt that each has.
    matched: Vec<u32>,
    /// By model.
    groups: HashMap<u64, Group>,
    /// What a second of work is now, in units of [`Backend::work`].
    unit: Unit,
    /// The latest lists of candidates: one a model, and a new one as their vitals come.
    met: [u64; 8],
}

/// What is known of the backends of one model.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    fleet: estimate::Fleet,
    /// In flight on a candidate, in the mean of those of the last decision.
    in_flight: f64,
    /// How often nobody was idle lately, 0–1.
    scarcity: f64,
}

/// A unit of work that grows with each decision.
struct Unit(f64);

impl Default for Unit {
    fn default() -> Self {
        Self(1.0)
    }
}

/// What came of comparing candidates.
#[derive(Clone, Copy, Debug)]
struct Choice {
    index: usize,
    /// How long the least busy would let a request wait.
    idlest_s: f64,
    /// On all of them.
    in_flight: u64,
}

/// The parts of a candidate's cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    waiting_s: f64,
    cached: u32,
    in_flight: u32,
    prefill_s: f64,
    streams_s: f64,
    work_s: f64,
    /// 0, or [`BEYOND_S`] for one that is left out while another is not.
    beyond_s: f64,
}

/// What all costs of one decision have in common.
#[derive(Clone, Copy, Debug)]
struct Terms {
    now_s: f64,
    alpha: f64,
    /// Seconds a unit of work.
    work_weight: f64,
    /// Seconds for each stream.
    stream_s: f64,
    /// In flight on a candidate, at most.
    in_flight_max: u32,
    /// What another proxy's request takes.
    service_s: f64,
    /// What a token takes in the mean.
    seconds_per_token: f64,
}

impl Cost {
    #[inline(always)]
    fn sum(&self, alpha: f64) -> f64 {
        self.waiting_s + alpha * self.prefill_s + self.streams_s + self.work_s + self.beyond_s
    }
}

impl State {
    /// Who has how much of the prompt, and everyone's estimate is there.
    fn prepare(&mut self, prompt: &Prompt<'_>, list: &CandidateList) {
        if !self.met.contains(&list.id) {
            self.meet(list, prompt.block_tokens);
        }
        let backends = &self.backends;
        let is_fresh = |ordinal: u16, stamp| backends[usize::from(ordinal)].has(stamp);
        self.map.look_up(prompt.blocks, is_fresh, &mut self.matched);
    }

    /// Candidates that were not seen together before: who is new, and whose cache holds how much.
    fn meet(&mut self, list: &CandidateList, block_tokens: u32) {
        let count = list.candidates.iter().map(|one| one.ordinal as usize + 1).max();
        let count = count.unwrap_or(0).min(map::ORDINALS_MAX);
        if count > self.backends.len() {
            let room = self.map.grow(count);
            self.paces.resize(room, Pace::default());
            self.backends.resize(room, Backend::default());
            self.matched.resize(room, 0);
        }
        for candidate in &list.candidates {
            let (node, at) = (&candidate.node, candidate.ordinal as usize);
            let Some(backend) = self.backends.get_mut(at) else { continue };
            if !backend.is(node.generation) {
                backend.restart(node.generation, &mut self.paces[at]);
                self.map.forget(candidate.ordinal as u16);
            }
            backend.limit(node.reported.kv_cache_tokens, block_tokens);
        }
        self.met.rotate_right(1);
        self.met[0] = list.id;
    }

    /// What all costs of one decision have in common.
    fn terms(&self, request: &RouteRequest<'_>) -> Terms {
        let group = self.groups.get(&request.model).copied().unwrap_or_default();
        Terms {
            now_s: request.now.as_secs_f64(),
            alpha: 1.0 + SCARCITY_WEIGHT * group.scarcity,
            work_weight: WORK_WEIGHT / self.unit.0,
            stream_s: STREAM_S + group.fleet.stream_s(),
            in_flight_max: (SKEW_MAX * group.in_flight + SKEW_FREE) as u32,
            service_s: group.fleet.service_s(),
            seconds_per_token: group.fleet.seconds_per_token(),
        }
    }

    /// What a request with `prompt` would cost; none for one of too many nodes.
    #[inline(always)]
    fn cost(&self, terms: &Terms, prompt: &Prompt<'_>, candidate: &Candidate) -> Option<Cost> {
        let at = candidate.ordinal as usize;
        let (pace, &cached) = (self.paces.get(at)?, self.matched.get(at)?);
        let in_flight = candidate.load.in_flight();
        let others = candidate.queue_depth.saturating_sub(in_flight);
        Some(Cost {
            waiting_s: pace.waiting_s(terms.now_s) + f64::from(others) * terms.service_s,
            cached,
            prefill_s: pace.prefill_s(prompt.tokens_after(cached), terms.seconds_per_token),
            in_flight,
            streams_s: terms.stream_s * f64::from(in_flight),
            work_s: f64::from(pace.work) * terms.work_weight,
            beyond_s: if in_flight > terms.in_flight_max { BEYOND_S } else { 0.0 },
        })
    }

    /// The candidate of the least cost.
    fn cheapest(
        &self,
        terms: &Terms,
        prompt: &Prompt<'_>,
        candidates: Candidates<'_>,
    ) -> Option<Choice> {
        let (mut least, mut best, mut idlest_s) = (f64::INFINITY, usize::MAX, f64::INFINITY);
        let mut in_flight = 0;
        let mut weigh = |index, candidate| {
            let Some(cost) = self.cost(terms, prompt, candidate) else { return };
            let (sum, waiting_s) = (cost.sum(terms.alpha), cost.waiting_s);
            in_flight += u64::from(cost.in_flight);
            idlest_s = if waiting_s < idlest_s { waiting_s } else { idlest_s };
            if sum < least {
                (least, best) = (sum, index);
            }
        };
        let all = candidates.list.candidates.iter().enumerate();
        if candidates.tried.is_empty() {
            all.for_each(|(index, candidate)| weigh(index, candidate));
        } else {
            all.filter(|(index, _)| candidates.is_left(*index))
                .for_each(|(index, candidate)| weigh(index, candidate));
        }
        (best != usize::MAX).then_some(Choice { index: best, idlest_s, in_flight })
    }

    /// `node` gets the request.
    fn send(&mut self, request: &RouteRequest<'_>, node: &Candidate, cost: &Cost) -> Expected {
        let prompt = &request.prompt;
        let at = node.ordinal as usize;
        let (pace, backend) = (&mut self.paces[at], &mut self.backends[at]);
        let sent = Sent {
            ordinal: node.ordinal,
            model: request.model,
            now_s: request.now.as_secs_f64(),
            tokens: prompt.tokens_after(cost.cached),
        };
        let expected = backend.send(pace, sent, cost.prefill_s);
        pace.work += (cost.prefill_s * self.unit.0) as f32;
        let stamp = backend.add(prompt.blocks.len() as u32, cost.cached);
        let backends = &self.backends;
        let is_fresh = |ordinal: u16, stamp| backends[usize::from(ordinal)].has(stamp);
        self.map.insert(prompt.blocks, node.ordinal as u16, stamp, is_fresh);
        expected
    }

    /// What is known of the backends of `model`.
    fn group(&mut self, model: u64) -> &mut Group {
        if self.groups.len() == GROUPS_MAX && !self.groups.contains_key(&model) {
            // Models come and go; those that are there are known again soon.
            self.groups.clear();
        }
        self.groups.entry(model).or_default()
    }

    /// A decision was made among `count` with so many in flight in all.
    fn decided(&mut self, model: u64, count: usize, choice: &Choice, cost: &Cost) {
        let group = self.group(model);
        let busy = f64::from(u8::from(choice.idlest_s > 0.0));
        group.scarcity += (busy - group.scarcity) / SCARCITY_SPAN;
        group.in_flight = choice.in_flight as f64 / count as f64;
        group.fleet.sent(cost.prefill_s);
        self.unit.0 *= 1.0 + 1.0 / (WORK_SPAN * count as f64);
        if self.unit.0 > UNIT_MAX {
            self.paces.iter_mut().for_each(|pace| pace.work /= self.unit.0 as f32);
            self.unit.0 = 1.0;
        }
    }
}

impl Prefix {
    /// What is locked is in order after each statement; a panic elsewhere leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy for Prefix {
    fn pick(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        let state = &mut *self.state();
        state.prepare(&request.prompt, candidates.list);
        let terms = state.terms(request);
        let choice = state.cheapest(&terms, &request.prompt, candidates)?;
        let candidate = &candidates.list.candidates[choice.index];
        let cost = state.cost(&terms, &request.prompt, candidate)?;
        let expected = state.send(request, candidate, &cost);
        state.decided(request.model, candidates.count(), &choice, &cost);
        let cached_tokens = request.prompt.tokens - request.prompt.tokens_after(cost.cached);
        let (index, expected) = (choice.index, Some(expected));
        Some(Pick { index, expected, cached_tokens: Some(cached_tokens) })
    }

    fn opinions(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        let state = &mut *self.state();
        state.prepare(&request.prompt, candidates.list);
        let terms = state.terms(request);
        let opinion = |(index, node): (usize, &Candidate)| {
            let cost = state.cost(&terms, &request.prompt, node)?;
            let cached = cost.cached.saturating_mul(request.prompt.block_tokens);
            let reasons = vec![
                ("waiting_s", cost.waiting_s),
                ("cached_tokens", f64::from(cached.min(request.prompt.tokens))),
                ("prefill_s", cost.prefill_s),
                ("prefill_weight", terms.alpha),
                ("in_flight", f64::from(cost.in_flight)),
                ("streams_s", cost.streams_s),
                ("recent_work_s", cost.work_s),
                ("in_flight_max", f64::from(terms.in_flight_max)),
            ];
            Some(Opinion { index, score: Some(cost.sum(terms.alpha)), reasons })
        };
        candidates.each().filter_map(opinion).collect()
    }

    fn answered(&self, expected: &Expected, now: Duration) {
        let state = &mut *self.state();
        let at = expected.ordinal as usize;
        if let Some(backend) = state.backends.get_mut(at) {
            let (pace, now_s) = (&mut state.paces[at], now.as_secs_f64());
            if let Some(group) = state.groups.get_mut(&expected.model) {
                backend.answered(pace, expected, now_s, &mut group.fleet);
            }
        }
    }

    fn streamed(&self, model: u64, seen: &StreamSeen) {
        self.state().group(model).fleet.streamed(seen);
    }

    fn abandoned(&self, expected: &Expected) {
        let (state, at) = (&mut *self.state(), expected.ordinal as usize);
        if let Some(backend) = state.backends.get_mut(at) {
            backend.abandoned(&mut state.paces[at], expected);
        }
    }
}

#[cfg(test)]
mod tests;
