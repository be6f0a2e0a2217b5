//! Where metrics are registered, from the rows that describe them and in no other way.

use super::describe::{Emit, Metric, ReadAtScrape};
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, Result, TextEncoder,
    core::Collector, proto::MetricFamily,
};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// The metrics of one process. Each method fails if the name is taken.
#[derive(Default)]
pub struct MetricRegistry {
    registry: Registry,
    described: Mutex<Vec<Metric>>,
}

impl fmt::Debug for MetricRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.described().iter().map(|metric| metric.name).collect();
        f.debug_tuple("MetricRegistry").field(&names).finish()
    }
}

impl MetricRegistry {
    /// A counter without labels.
    pub fn counter(&self, metric: Metric) -> Result<IntCounter> {
        self.add(metric, IntCounter::with_opts(metric.options())?)
    }

    /// A counter for each combination of label values.
    pub fn counters(&self, metric: Metric) -> Result<IntCounterVec> {
        self.add(metric, IntCounterVec::new(metric.options(), &metric.label_names())?)
    }

    /// A histogram without labels.
    pub fn histogram(&self, metric: Metric) -> Result<Histogram> {
        self.add(metric, Histogram::with_opts(metric.histogram_options())?)
    }

    /// A histogram for each combination of label values.
    pub fn histograms(&self, metric: Metric) -> Result<HistogramVec> {
        self.add(metric, HistogramVec::new(metric.histogram_options(), &metric.label_names())?)
    }

    /// A counter or gauge whose values `read` emits whenever metrics are asked for; it must only
    /// read. What has no value any more, like a node that is gone, leaves nothing stale behind.
    pub fn read_at_scrape(
        &self,
        metric: Metric,
        read: impl Fn(&mut Emit<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        let reader = ReadAtScrape::new(metric, read)?;
        self.registry.register(Box::new(reader))?;
        self.describe(metric);
        Ok(())
    }

    /// Every metric registered so far, also those that have no series yet.
    pub fn described(&self) -> Vec<Metric> {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Prometheus text 0.0.4: `first`, then all that is registered.
    pub(super) fn text(&self, first: Vec<MetricFamily>) -> String {
        let mut families = first;
        families.extend(self.registry.gather());
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be encoded");
            String::new()
        })
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: Metric, collector: C) -> Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        self.describe(metric);
        Ok(collector)
    }

    fn describe(&self, metric: Metric) {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).push(metric);
    }
}
