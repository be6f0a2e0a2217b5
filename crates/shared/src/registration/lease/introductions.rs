//! Proxies that introduced themselves, on their way to the leases; and what the leases show of the
//! proxies they know.

use super::book::LeaseView;
use crate::{endpoint::Endpoint, registration::wire::KnownProxy};
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Introductions waiting to be looked at; more are dropped, and come again.
const INTRODUCTIONS_WAITING: usize = 64;

/// Tells a node's leases of proxies that introduced themselves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Introductions {
    sender: mpsc::Sender<Endpoint>,
    view: Arc<ArcSwap<Vec<LeaseView>>>,
}

/// The other end, for [`Leases::start`].
#[derive(Debug)]
pub struct Introduced {
    pub(super) receiver: mpsc::Receiver<Endpoint>,
    pub(super) view: Arc<ArcSwap<Vec<LeaseView>>>,
}

/// A way to introduce proxies, also before the leases are begun.
pub fn introductions() -> (Introductions, Introduced) {
    let (sender, receiver) = mpsc::channel(INTRODUCTIONS_WAITING);
    let view = Arc::<ArcSwap<Vec<LeaseView>>>::default();
    (Introductions { sender, view: Arc::clone(&view) }, Introduced { receiver, view })
}

impl Introductions {
    /// Register with that proxy too.
    pub fn introduce(&self, proxy: Endpoint) {
        if self.sender.try_send(proxy).is_err() {
            tracing::debug!(
                "too many introductions at once; the proxy will introduce itself again"
            );
        }
    }

    /// Every proxy this node knows, as `/peers` shows them.
    pub fn shown(&self) -> Vec<KnownProxy> {
        let shown = |lease: &LeaseView| KnownProxy {
            operations: lease.endpoint.to_literal(),
            held: lease.instance.is_some(),
            learned: lease.learned,
            failures: lease.failures,
        };
        self.view.load().iter().map(shown).collect()
    }
}
