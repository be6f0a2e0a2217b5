//! What logging and tracing count of themselves. The counters are the process's, as its log is.

use prometheus::{IntCounter, Registry};
use std::sync::LazyLock;

type Counter = LazyLock<IntCounter>;

/// Panics, caught or not.
pub(super) static PANICS: Counter = LazyLock::new(|| {
    counter("inferno_panics_total", "Panics; each is a log line that says where.")
});

/// Lines that were logged and never written.
pub(super) static LINES_DROPPED: Counter = LazyLock::new(|| {
    counter(
        "inferno_log_lines_dropped_total",
        "Log lines that were lost because standard error was read too slowly, or by nobody.",
    )
});

/// Spans that the collector took.
pub(super) static SPANS_EXPORTED: Counter = LazyLock::new(|| {
    counter("inferno_spans_exported_total", "Spans that the OpenTelemetry collector took.")
});

/// Spans that found the queue full, or that the collector did not take.
pub(super) static SPANS_DROPPED: Counter = LazyLock::new(|| {
    counter(
        "inferno_spans_dropped_total",
        "Spans that were lost because the OpenTelemetry collector was slow or could not be reached.",
    )
});

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a metric's name")
}

/// Registers these counters.
///
/// # Errors
/// If one of their names is taken.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    [&PANICS, &LINES_DROPPED, &SPANS_EXPORTED, &SPANS_DROPPED]
        .into_iter()
        .try_for_each(|counter| registry.register(Box::new(IntCounter::clone(counter))))
}
