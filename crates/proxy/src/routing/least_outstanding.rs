//! The one with the least work outstanding.

use super::{Candidates, Opinion, Pick, Policy, RoundRobin, RouteRequest, opinions_by};
use inferno_shared::membership::Candidate;

/// The one with the least work outstanding; among equals each in turn, so that an idle fleet
/// shares the work rather than its first member having it all.
#[derive(Debug, Default)]
pub(super) struct LeastOutstanding {
    ties: RoundRobin,
}

impl Policy for LeastOutstanding {
    fn pick(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        let start = self.ties.next(candidates);
        // Each load is read once: it changes under us.
        candidates.least_by(start, Candidate::outstanding).map(Pick::from)
    }

    fn opinions(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        opinions_by(candidates, |node| f64::from(node.outstanding()))
    }
}
