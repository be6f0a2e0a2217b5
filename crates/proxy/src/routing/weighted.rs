//! By how much each can take.

use super::{Candidates, Opinion, Pick, Policy, RoundRobin, RouteRequest};
use inferno_shared::membership::Candidate;

/// What a node that says nothing can take: as many as a backend of ours does by default.
const USUAL_CONCURRENCY: u32 = 256;

/// The one that would be used the least with one more request, measured by the `max_concurrency` it registered
/// with; among equals each in turn.
#[derive(Debug, Default)]
pub(super) struct Weighted {
    ties: RoundRobin,
}

#[inline]
fn concurrency(node: &Candidate) -> f64 {
    let told = node.max_concurrency;
    f64::from(if told == 0 { USUAL_CONCURRENCY } else { told })
}

#[inline]
fn use_with_one_more(node: &Candidate) -> f64 {
    (f64::from(node.outstanding()) + 1.0) / concurrency(node)
}

impl Policy for Weighted {
    fn pick(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        candidates.least_by(self.ties.next(candidates), use_with_one_more).map(Pick::from)
    }

    fn opinions(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        let mut opinions = super::opinions_by(candidates, use_with_one_more);
        for opinion in &mut opinions {
            let node = &candidates.list.candidates[opinion.index];
            opinion.reasons.push(("max_concurrency", concurrency(node)));
        }
        opinions
    }
}
