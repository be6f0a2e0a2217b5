//! The one with the least work outstanding.

use super::{Policy, RoundRobin, RouteRequest};
use inferno_shared::membership::NodeView;
use std::sync::Arc;

/// The one with the least work outstanding; among equals each in turn, so that an idle fleet
/// shares the work rather than its first member having it all.
#[derive(Debug, Default)]
pub(crate) struct LeastOutstanding {
    ties: RoundRobin,
}

/// Our own requests in flight, plus what the node reported as waiting beyond them: other proxies
/// send requests too. The report is up to a check's interval old, hence only the excess counts.
fn outstanding(node: &NodeView) -> u64 {
    u64::from(node.load.in_flight()).max(node.reported.queue_depth)
}

impl Policy for LeastOutstanding {
    fn pick(&self, _: &RouteRequest<'_>, candidates: &[Arc<NodeView>]) -> Option<usize> {
        let start = self.ties.next(candidates.len())?;
        // Each load is read once: it changes under us.
        let in_turn = (start..candidates.len()).chain(0..start);
        in_turn.min_by_key(|&index| outstanding(&candidates[index]))
    }
}
