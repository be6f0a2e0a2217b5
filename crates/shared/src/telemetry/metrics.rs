//! What logging and tracing count of themselves. The counters are the process's, as its log is.

use crate::metrics::{Kind, Metric, MetricRegistry};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Panics, caught or not.
pub(super) static PANICS: Count = Count(AtomicU64::new(0));
/// Lines that were logged and never written.
pub(super) static LINES_DROPPED: Count = Count(AtomicU64::new(0));
/// Spans that the collector took.
pub(super) static SPANS_EXPORTED: Count = Count(AtomicU64::new(0));
/// Spans that found the queue full, or that the collector did not take.
pub(super) static SPANS_DROPPED: Count = Count(AtomicU64::new(0));

/// A counter that is there before anything is registered: a process may panic at its start.
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn inc(&self) {
        self.inc_by(1);
    }

    pub(super) fn inc_by(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Each counter and what it is.
const COUNTERS: [(Metric, &Count); 4] = [
    (
        counter("inferno_panics_total", "panics", "Panics; each is a log line that says where."),
        &PANICS,
    ),
    (
        counter(
            "inferno_log_lines_dropped_total",
            "lines",
            "Log lines that were lost because standard error was read too slowly, or by nobody.",
        ),
        &LINES_DROPPED,
    ),
    (
        counter(
            "inferno_spans_exported_total",
            "spans",
            "Spans that the OpenTelemetry collector took.",
        ),
        &SPANS_EXPORTED,
    ),
    (
        counter(
            "inferno_spans_dropped_total",
            "spans",
            "Spans that were lost because the OpenTelemetry collector was slow or could not be reached.",
        ),
        &SPANS_DROPPED,
    ),
];

/// Every metric of logging and tracing.
pub const METRICS: &[Metric] = &[COUNTERS[0].0, COUNTERS[1].0, COUNTERS[2].0, COUNTERS[3].0];

const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels: &[], unit, help }
}

/// Registers these counters.
///
/// # Errors
/// If one of their names is taken.
pub fn register(registry: &MetricRegistry) -> prometheus::Result<()> {
    COUNTERS.into_iter().try_for_each(|(metric, count)| {
        registry.read_at_scrape(metric, |emit| emit(&[], count.get() as f64))
    })
}
