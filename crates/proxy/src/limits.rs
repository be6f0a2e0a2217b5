//! How much is open at once: client connections, and requests in progress.

use crate::{error::RequestError, metrics::ProxyMetrics};
use inferno_shared::config::ProxyLimits;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The limit on requests in progress.
#[derive(Debug)]
pub(crate) struct Requests {
    free: Semaphore,
    most: usize,
}

impl Requests {
    pub(crate) fn new(limits: &ProxyLimits) -> Self {
        Self { free: Semaphore::new(limits.requests_max), most: limits.requests_max }
    }

    /// A request's place, until it is dropped.
    ///
    /// # Errors
    /// If all are taken.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.free.try_acquire().map_err(|_| RequestError::RequestsExhausted { limit: self.most })
    }
}

/// The limit on open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    free: Semaphore,
    most: usize,
    /// One was refused since one was last admitted.
    full: AtomicBool,
    metrics: Arc<ProxyMetrics>,
}

impl Connections {
    pub(crate) fn new(limits: &ProxyLimits, metrics: Arc<ProxyMetrics>) -> Self {
        let most = limits.connections_max;
        Self { free: Semaphore::new(most), most, full: AtomicBool::new(false), metrics }
    }

    /// A connection's place, until it is dropped; none if all are taken, which is logged where it
    /// begins, for it may happen ten thousand times a second.
    pub(crate) fn admit(&self) -> Option<SemaphorePermit<'_>> {
        let Ok(place) = self.free.try_acquire() else {
            self.metrics.connections_refused.inc();
            if !self.full.swap(true, Relaxed) {
                let limit = self.most;
                tracing::warn!(
                    limit,
                    "proxy.limits.connections_max reached; new connections are closed"
                );
            }
            return None;
        };
        self.full.store(false, Relaxed);
        Some(place)
    }
}
