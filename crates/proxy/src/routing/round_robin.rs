//! Each in turn.

use super::{Candidates, Opinion, Pick, Policy, RouteRequest, load_reasons};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Each in turn, whatever its load.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    turn: AtomicUsize,
}

impl RoundRobin {
    /// An index below the number of nodes that goes up by one at each call, and around.
    pub(super) fn next(&self, candidates: Candidates<'_>) -> usize {
        self.turn.fetch_add(1, Relaxed).checked_rem(candidates.list.candidates.len()).unwrap_or(0)
    }
}

impl Policy for RoundRobin {
    fn pick(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        let (index, _) = candidates.around(self.next(candidates)).next()?;
        Some(index.into())
    }

    fn opinions(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        let opinion = |(index, node)| Opinion { index, score: None, reasons: load_reasons(node) };
        candidates.each().map(opinion).collect()
    }
}
