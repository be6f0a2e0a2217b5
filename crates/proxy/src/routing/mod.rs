//! Who gets a request: policies, one a file.
//!
//! A policy sees the candidates that serve the model and picks one. It does no I/O, reads no clock
//! and holds no lock; what it remembers is in atomics of its own. Load is counted by the caller in
//! the moment of the choice, not when a connection stands, so that a burst spreads.

mod least_outstanding;
mod round_robin;

use inferno_shared::{
    config::RoutingPolicy,
    membership::{Generation, NodeView, Snapshot},
    registration::registry::Registry,
};
use std::sync::Arc;

use least_outstanding::LeastOutstanding;
use round_robin::RoundRobin;

/// What a policy may know of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteRequest<'a> {
    /// The model asked for; every candidate serves it.
    pub(crate) model: &'a str,
}

/// Chooses among candidates.
pub(crate) trait Policy: Send + Sync {
    /// The index of the chosen one; `None` only if there is none to choose.
    fn pick(&self, request: &RouteRequest<'_>, candidates: &[Arc<NodeView>]) -> Option<usize>;
}

/// The policy of that name.
pub(crate) fn policy(name: RoutingPolicy) -> Box<dyn Policy> {
    match name {
        RoutingPolicy::LeastOutstanding => Box::<LeastOutstanding>::default(),
        RoutingPolicy::RoundRobin => Box::<RoundRobin>::default(),
    }
}

/// Where the data path learns who serves what, and says what it found out itself.
pub trait Fleet: Send + Sync {
    /// The members now. Must not block: it is asked for each request.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Nobody listened at the address of that incarnation.
    fn report_connect_refused(&self, id: &str, generation: Generation);
}

impl Fleet for Registry {
    fn snapshot(&self) -> Arc<Snapshot> {
        Self::snapshot(self)
    }

    fn report_connect_refused(&self, id: &str, generation: Generation) {
        Self::report_connect_refused(self, id, generation);
    }
}

#[cfg(test)]
mod tests;
