//! The counters of one process, and the two forms in which they are read.
//!
//! Everything here is atomics: the operations server reads them and never takes a lock that the
//! data path or the engine holds.

mod describe;
mod node;
mod reference;
mod registry;
mod text;

pub use describe::{Emit, Kind, Label, Metric, STATUS, Values, status_label};
pub use reference::{Section, reference};
pub use registry::MetricRegistry;

use crate::{
    resources::Resources,
    vitals::{NodeVitals, ServiceState},
};
use std::{
    fmt,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{
            AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

type VitalsHook = Box<dyn Fn(&mut NodeVitals) + Send + Sync>;
type StallProbe = Box<dyn Fn() -> bool + Send + Sync>;

/// Counts what a process does; shared by everyone who has something to count.
pub struct MetricsCollector {
    started: Instant,
    state: AtomicU8,
    requests_total: AtomicU64,
    in_progress: AtomicU64,
    failed: AtomicU64,
    backoff: AtomicU64,
    finished: AtomicU64,
    response_us: AtomicU64,
    resources: Resources,
    registry: MetricRegistry,
    /// Room for a page of text, so that it need not grow while it is written.
    page_bytes: AtomicUsize,
    hooks: RwLock<Vec<VitalsHook>>,
    stalled: OnceLock<StallProbe>,
}

impl fmt::Debug for MetricsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsCollector").field("vitals", &self.vitals()).finish()
    }
}

impl MetricsCollector {
    /// A collector in state `loading`.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            state: AtomicU8::new(ServiceState::Loading as u8),
            requests_total: AtomicU64::new(0),
            in_progress: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            backoff: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            response_us: AtomicU64::new(0),
            resources: Resources::default(),
            registry: MetricRegistry::default(),
            page_bytes: AtomicUsize::new(0),
            hooks: RwLock::default(),
            stalled: OnceLock::new(),
        })
    }

    /// Where a service registers the metrics of its table.
    pub fn registry(&self) -> &MetricRegistry {
        &self.registry
    }

    /// Adds something that fills service-specific vitals; it must only read.
    pub fn on_vitals(&self, fill: impl Fn(&mut NodeVitals) + Send + Sync + 'static) {
        let mut hooks = self.hooks.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        hooks.push(Box::new(fill));
    }

    /// Moves to `state`. Draining is final.
    pub fn set_state(&self, state: ServiceState) {
        let _ = self.state.fetch_update(SeqCst, SeqCst, |now| {
            (now != ServiceState::Draining as u8).then_some(state as u8)
        });
    }

    /// Tells how to see that work waits and nothing moves. The first one given stays.
    pub fn set_stall_probe(&self, stalled: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.stalled.set(Box::new(stalled));
    }

    /// What this process does about requests now. Atomics only: `/health` answers from it.
    pub fn state(&self) -> ServiceState {
        if self.stalled.get().is_some_and(|stalled| stalled()) {
            return ServiceState::Stalled;
        }
        match self.state.load(SeqCst) {
            x if x == ServiceState::Ready as u8 => ServiceState::Ready,
            x if x == ServiceState::Draining as u8 => ServiceState::Draining,
            _ => ServiceState::Loading,
        }
    }

    /// Counts one request, from now until the guard is dropped.
    pub fn request_started(self: &Arc<Self>) -> RequestGuard {
        self.requests_total.fetch_add(1, Relaxed);
        self.in_progress.fetch_add(1, SeqCst);
        RequestGuard { metrics: Arc::clone(self), started: Instant::now(), end: End::Served }
    }

    /// Requests begun and not ended.
    pub fn requests_in_progress(&self) -> u64 {
        self.in_progress.load(SeqCst)
    }

    /// This node's vitals, now.
    pub fn vitals(&self) -> NodeVitals {
        let finished = self.finished.load(Relaxed);
        let state = self.state();
        let usage = self.resources.usage();
        let mut vitals = NodeVitals {
            requests_in_progress: self.requests_in_progress(),
            cpu_usage: usage.cpu_percent,
            memory_usage: usage.memory_percent,
            failed_responses: self.failed.load(Relaxed),
            backoff_requests: self.backoff.load(Relaxed),
            uptime_seconds: self.started.elapsed().as_secs(),
            state,
            requests_total: self.requests_total.load(Relaxed),
            average_response_ms: self.response_us.load(Relaxed) as f64
                / 1e3
                / finished.max(1) as f64,
            ..NodeVitals::default()
        };
        for hook in self.hooks.read().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            hook(&mut vitals);
        }
        vitals.ready = vitals.state == ServiceState::Ready;
        vitals
    }

    /// Prometheus text 0.0.4: `inferno_node_*` from `vitals`, then the service's own metrics.
    pub fn prometheus_text(&self, vitals: &NodeVitals) -> String {
        let mut page = String::with_capacity(self.page_bytes.load(Relaxed));
        node::write(&mut page, vitals);
        self.registry.write(&mut page);
        self.page_bytes.fetch_max(page.len() + 1_024, Relaxed);
        page
    }
}

/// One counted request.
#[derive(Debug)]
pub struct RequestGuard {
    metrics: Arc<MetricsCollector>,
    started: Instant,
    end: End,
}

/// How a request ended: in one of these ways, so that failures and refusals are never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it should, or by the client's fault.
    Served,
    /// For lack of capacity.
    Refused,
    /// By a failure of ours.
    Failed,
}

impl RequestGuard {
    /// The answer has this status: 503 is a refusal for lack of capacity, 500 and above a failure.
    pub fn answered(&mut self, status: u16) {
        self.end = match status {
            503 => End::Refused,
            500.. => End::Failed,
            _ => End::Served,
        };
    }

    /// The request ended in a failure of ours, whatever its status said.
    pub fn failed(&mut self) {
        self.end = End::Failed;
    }

    /// Since the request began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        metrics.response_us.fetch_add(micros, Relaxed);
        metrics.finished.fetch_add(1, Relaxed);
        metrics.failed.fetch_add(u64::from(self.end == End::Failed), Relaxed);
        metrics.backoff.fetch_add(u64::from(self.end == End::Refused), Relaxed);
        metrics.in_progress.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let metrics = MetricsCollector::new();
        let mut guard = metrics.request_started();
        assert_eq!(metrics.vitals().requests_in_progress, 1);
        guard.failed();
        drop(guard);
        let vitals = metrics.vitals();
        assert_eq!(
            (vitals.requests_in_progress, vitals.requests_total, vitals.failed_responses),
            (0, 1, 1)
        );
    }

    #[test]
    fn draining_is_final() {
        let metrics = MetricsCollector::new();
        assert_eq!(metrics.vitals().state, ServiceState::Loading);
        metrics.set_state(ServiceState::Ready);
        assert!(metrics.vitals().ready);
        metrics.set_state(ServiceState::Draining);
        metrics.set_state(ServiceState::Ready);
        assert_eq!(metrics.vitals().state, ServiceState::Draining);
        assert!(!metrics.vitals().ready);
    }

    #[test]
    fn a_request_ends_in_one_way() {
        for (status, then_failed, counted) in [
            (200, false, (0, 0)),
            (404, false, (0, 0)),
            (503, false, (0, 1)),
            (500, false, (1, 0)),
            (502, true, (1, 0)),
            (200, true, (1, 0)),
            (503, true, (1, 0)),
        ] {
            let metrics = MetricsCollector::new();
            let mut guard = metrics.request_started();
            guard.answered(status);
            if then_failed {
                guard.failed();
            }
            drop(guard);
            let vitals = metrics.vitals();
            let seen = (vitals.failed_responses, vitals.backoff_requests);
            assert_eq!(seen, counted, "{status}, then failed: {then_failed}");
        }
    }

    #[test]
    fn the_average_is_over_requests_that_have_ended() {
        let metrics = MetricsCollector::new();
        assert_eq!(metrics.vitals().average_response_ms, 0.0);
        let running = metrics.request_started();
        assert_eq!(metrics.vitals().average_response_ms, 0.0, "none has ended");
        let ended = metrics.request_started();
        while ended.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        drop(ended);
        let average_ms = metrics.vitals().average_response_ms;
        assert!(average_ms >= 2.0, "{average_ms}");
        assert!(average_ms <= running.elapsed().as_secs_f64() * 1e3, "{average_ms}");
    }

    #[test]
    fn a_stalled_engine_shows_whatever_was_set() {
        let metrics = MetricsCollector::new();
        metrics.set_state(ServiceState::Ready);
        metrics.set_stall_probe(|| true);
        assert_eq!(metrics.state(), ServiceState::Stalled);
        assert!(!metrics.vitals().ready);
    }
}
