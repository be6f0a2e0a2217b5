//! Who gets a request: policies, one a file.
//!
//! A policy sees the candidates that serve the model and picks one. It does no I/O and reads no
//! clock: the time comes with the request. What it remembers is its own, in atomics or under one
//! short lock. Requests in flight are counted by the caller in the moment of the choice, not when a
//! connection stands, so that a burst spreads.

mod least_outstanding;
mod power_of_two;
pub mod prefix;
mod round_robin;
mod session;
mod ticket;
mod weighted;

use inferno_shared::{
    config::RoutingPolicy,
    membership::{Candidate, CandidateList, Generation, Snapshot},
    registration::registry::Registry,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

use least_outstanding::LeastOutstanding;
use power_of_two::PowerOfTwo;
use prefix::Prefix;
use round_robin::RoundRobin;
use session::Session;
pub use ticket::Ticket;
use weighted::Weighted;

/// What a policy may know of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteRequest<'a> {
    /// When it is to be decided, since an origin that never moves.
    pub now: Duration,
    /// The model asked for, as a hash.
    pub model: u64,
    /// Its prompt.
    pub prompt: Prompt<'a>,
    /// Which session it belongs to, as a hash.
    pub session: Option<u64>,
}

/// A prompt as blocks that backends may have cached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prompt<'a> {
    /// A hash for each whole block, of it and all before it.
    pub blocks: &'a [u64],
    /// Tokens of a block, roughly.
    pub block_tokens: u32,
    /// Tokens of the whole prompt, roughly.
    pub tokens: u32,
}

impl Prompt<'_> {
    /// Tokens beyond its first `blocks` blocks.
    #[inline]
    fn tokens_after(&self, blocks: u32) -> u32 {
        self.tokens.saturating_sub(blocks.saturating_mul(self.block_tokens))
    }
}

/// Who may be picked: those of a list less those already `tried`, given by their indices.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// Everyone who serves the model.
    pub list: &'a CandidateList,
    /// Who failed the same request.
    pub tried: &'a [usize],
}

impl<'a> Candidates<'a> {
    /// How many are left.
    fn count(&self) -> usize {
        self.list.candidates.len() - self.tried.len()
    }

    /// Those left, with their indices.
    #[inline]
    fn each(self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let all = self.list.candidates.iter().enumerate();
        all.filter(move |(index, _)| self.is_left(*index))
    }

    #[inline]
    fn is_left(&self, index: usize) -> bool {
        self.tried.is_empty() || !self.tried.contains(&index)
    }

    /// The one with the least `key`; among equals the first from the index `start` on, going around.
    #[inline]
    fn least_by<K: PartialOrd>(self, start: usize, key: impl Fn(&Candidate) -> K) -> Option<usize> {
        let all = &self.list.candidates;
        let mut best: Option<(K, usize)> = None;
        for index in (start..all.len()).chain(0..start) {
            let key = key(&all[index]);
            if best.as_ref().is_none_or(|(least, _)| key < *least) && self.is_left(index) {
                best = Some((key, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Those left, with their indices, beginning at the index `start` and going around.
    fn around(self, start: usize) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let (before, after) = self.list.candidates.split_at(start);
        let all = (start..).zip(after).chain((0..).zip(before));
        all.filter(move |(index, _)| self.is_left(*index))
    }
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// The index of the chosen one.
    pub index: usize,
    /// What the policy wants to hear the end of.
    pub expected: Option<prefix::Expected>,
    /// Tokens of the prompt that it believes to be cached there, if it has an idea.
    pub cached_tokens: Option<u32>,
}

impl From<usize> for Pick {
    fn from(index: usize) -> Self {
        Self { index, expected: None, cached_tokens: None }
    }
}

/// What a policy thinks of one candidate: the lower the score, the better.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// The candidate's index.
    pub index: usize,
    /// What is compared; none where the policy compares nothing.
    pub score: Option<f64>,
    /// What the score is made of, by name.
    pub reasons: Vec<(&'static str, f64)>,
}

/// Chooses among candidates.
pub trait Policy: Send + Sync {
    /// The chosen one; `None` only if there is none to choose.
    fn pick(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick>;

    /// What it thinks of each candidate, without choosing.
    fn opinions(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion>;

    /// The first token of what was expected came.
    fn answered(&self, _expected: &prefix::Expected, _now: Duration) {}

    /// A stream of that model came to its end.
    fn streamed(&self, _model: u64, _seen: &prefix::StreamSeen) {}

    /// What was expected will not come.
    fn abandoned(&self, _expected: &prefix::Expected) {}
}

/// The policy of that name.
pub fn policy(name: RoutingPolicy) -> Arc<dyn Policy> {
    match name {
        RoutingPolicy::Prefix => Arc::<Prefix>::default(),
        RoutingPolicy::LeastOutstanding => Arc::<LeastOutstanding>::default(),
        RoutingPolicy::PowerOfTwo => Arc::new(PowerOfTwo),
        RoutingPolicy::RoundRobin => Arc::<RoundRobin>::default(),
        RoutingPolicy::Weighted => Arc::<Weighted>::default(),
        RoutingPolicy::Session => Arc::<Session>::default(),
    }
}

/// What [`Candidate::outstanding`] is made of.
fn load_reasons(candidate: &Candidate) -> Vec<(&'static str, f64)> {
    vec![
        ("in_flight", f64::from(candidate.load.in_flight())),
        ("reported_queue", f64::from(candidate.queue_depth)),
    ]
}

/// Opinions of a policy that compares `score`s.
fn opinions_by(candidates: Candidates<'_>, score: impl Fn(&Candidate) -> f64) -> Vec<Opinion> {
    let opinion = |(index, candidate)| Opinion {
        index,
        score: Some(score(candidate)),
        reasons: load_reasons(candidate),
    };
    candidates.each().map(opinion).collect()
}

/// Where the data path learns who serves what, and says what it found out itself.
pub trait Fleet: Send + Sync {
    /// The members now. Must not block: it is asked for each request.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Changes whenever the members do.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Nobody listened at the address of that incarnation.
    fn report_connect_refused(&self, id: &str, generation: Generation);
}

impl Fleet for Registry {
    fn snapshot(&self) -> Arc<Snapshot> {
        Self::snapshot(self)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }

    fn report_connect_refused(&self, id: &str, generation: Generation) {
        Self::report_connect_refused(self, id, generation);
    }
}

#[cfg(test)]
pub(crate) mod tests;
