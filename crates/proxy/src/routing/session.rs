//! A session stays where it is.
//!
//! By rendezvous hashing (D. Thaler and C. Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996): each
//! node draws a number for the session, and the highest has it. Every proxy agrees without being told, and a node
//! that leaves moves its own sessions only.

use super::{Candidates, LeastOutstanding, Opinion, Pick, Policy, RouteRequest, load_reasons};
use inferno_shared::membership::Candidate;

/// The node that the session's hash falls to; without a session, the one with the least work outstanding.
#[derive(Debug, Default)]
pub(super) struct Session {
    without: LeastOutstanding,
}

/// What `node` draws for `session`: the last steps of SplitMix64 (S. Vigna, 2015) over both.
fn draw(session: u64, node: &Candidate) -> u64 {
    let mixed = session ^ node.key;
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Policy for Session {
    fn pick(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        let Some(session) = request.session else {
            return self.without.pick(request, candidates);
        };
        let (index, _) = candidates.each().max_by_key(|(_, node)| draw(session, node))?;
        Some(index.into())
    }

    fn opinions(&self, request: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        let Some(session) = request.session else {
            return self.without.opinions(request, candidates);
        };
        let share = |node| 1.0 - draw(session, node) as f64 / u64::MAX as f64;
        let opinion = |(index, node)| Opinion {
            index,
            score: Some(share(node)),
            reasons: load_reasons(node),
        };
        candidates.each().map(opinion).collect()
    }
}
