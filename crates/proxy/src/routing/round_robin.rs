//! Each in turn.

use super::{Policy, RouteRequest};
use inferno_shared::membership::NodeView;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Each in turn, whatever its load.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    turn: AtomicUsize,
}

impl RoundRobin {
    /// An index below `count` that goes up by one at each call, and around.
    pub(super) fn next(&self, count: usize) -> Option<usize> {
        self.turn.fetch_add(1, Relaxed).checked_rem(count)
    }
}

impl Policy for RoundRobin {
    fn pick(&self, _: &RouteRequest<'_>, candidates: &[Arc<NodeView>]) -> Option<usize> {
        self.next(candidates.len())
    }
}
