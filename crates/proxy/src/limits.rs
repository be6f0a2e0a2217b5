//! How much is open at once: client connections, and requests in progress.

use crate::{error::RequestError, metrics::ProxyMetrics};
use inferno_shared::config::ProxyLimits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Descriptors beyond connections and requests: listeners, logs, idle connections to backends, the
/// operations server.
const OTHER_FILES: u64 = 512;

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

/// Raises this process's soft limit on open files to what `limits` may take, as far as the system
/// lets it, and says where that is not enough: often 1,024 is what a process starts with.
pub(crate) fn make_room_for_files(limits: &ProxyLimits) {
    let needed = limits.connections_max as u64 + limits.requests_max as u64 + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = needed.clamp(soft, hard.max(soft));
    let raised = wanted == soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    let allowed = if raised { wanted } else { soft };
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "fewer open files are allowed than proxy.limits.* may take; raise the limit (LimitNOFILE=, \
             ulimit -n) or lower proxy.limits.connections_max and requests_max"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_open_files_is_raised_to_what_is_needed_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        // Other tests of this process need a few hundred at most.
        let low = soft.min(2_000);
        setrlimit(Resource::RLIMIT_NOFILE, low, hard).expect("lowering is always allowed");
        let room_for = |connections_max: usize| {
            let limits = ProxyLimits { connections_max, requests_max: 1, ..ProxyLimits::default() };
            make_room_for_files(&limits);
            getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").0
        };
        assert_eq!(room_for(1), low, "enough");
        assert_eq!(room_for(3_000), (3_001 + OTHER_FILES).min(hard));
        assert_eq!(room_for(usize::MAX >> 8), hard, "as far as it goes");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("as it was");
    }
}
