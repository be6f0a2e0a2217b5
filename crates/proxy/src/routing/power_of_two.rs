//! The better of two at random.
//!
//! M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996: nearly as even as the best
//! of all, without the herd that runs to whoever many proxies see as idle.

use super::{Candidates, Opinion, Pick, Policy, RouteRequest, opinions_by};

/// The one of two at random with less work outstanding.
#[derive(Debug)]
pub(super) struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn pick(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Option<Pick> {
        let count = candidates.count();
        if count == 0 {
            return None;
        }
        let first = fastrand::usize(..count);
        // Any but the first.
        let second = (first + 1 + fastrand::usize(..count.saturating_sub(1).max(1))) % count;
        let at = |place| candidates.each().nth(place);
        let pair = [at(first)?, at(second)?];
        let (index, _) = pair.into_iter().min_by_key(|(_, node)| node.outstanding())?;
        Some(index.into())
    }

    fn opinions(&self, _: &RouteRequest<'_>, candidates: Candidates<'_>) -> Vec<Opinion> {
        opinions_by(candidates, |node| f64::from(node.outstanding()))
    }
}
