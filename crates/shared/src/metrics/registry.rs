//! Where metrics are registered, from the rows that describe them and in no other way.

use super::{
    describe::{Emit, Metric},
    text::Row,
};
use prometheus::{Error, HistogramVec, IntCounter, IntCounterVec, Result, core::Collector};
use std::{
    fmt,
    sync::{PoisonError, RwLock},
};

/// Where the values of a metric are.
enum Source {
    Collector(Box<dyn Collector>),
    Read(Box<dyn Fn(&mut Emit<'_>) + Send + Sync>),
}

/// The metrics of one process. Each method fails if the name is taken.
#[derive(Default)]
pub struct MetricRegistry {
    /// Written only at the start.
    rows: RwLock<Vec<(Row, Source)>>,
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
        self.collect(metric, IntCounter::with_opts(metric.options())?)
    }

    /// A counter for each combination of label values.
    pub fn counters(&self, metric: Metric) -> Result<IntCounterVec> {
        self.collect(metric, IntCounterVec::new(metric.options(), &metric.label_names())?)
    }

    /// A histogram for each combination of label values.
    pub fn histograms(&self, metric: Metric) -> Result<HistogramVec> {
        self.collect(metric, HistogramVec::new(metric.histogram_options(), &metric.label_names())?)
    }

    /// A counter or gauge whose values `read` emits whenever metrics are asked for; it must only
    /// read. What has no value any more, like a node that is gone, leaves nothing stale behind.
    pub fn read_at_scrape(
        &self,
        metric: Metric,
        read: impl Fn(&mut Emit<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(metric, Source::Read(Box::new(read)))
    }

    /// Every metric registered so far, also those that have no series yet.
    pub fn described(&self) -> Vec<Metric> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(row, _)| row.metric).collect()
    }

    /// Writes all of it in Prometheus text 0.0.4.
    pub(super) fn write(&self, page: &mut String) {
        for (row, source) in self.rows.read().unwrap_or_else(PoisonError::into_inner).iter() {
            match source {
                Source::Collector(collector) => row.collected(page, collector.as_ref()),
                Source::Read(read) => row.read(page, read),
            }
        }
    }

    fn collect<C: Collector + Clone + 'static>(&self, metric: Metric, collector: C) -> Result<C> {
        self.add(metric, Source::Collector(Box::new(collector.clone())))?;
        Ok(collector)
    }

    fn add(&self, metric: Metric, source: Source) -> Result<()> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if rows.iter().any(|(row, _)| row.metric.name == metric.name) {
            return Err(Error::Msg(format!("the metric {} is registered already", metric.name)));
        }
        rows.push((Row::new(metric), source));
        Ok(())
    }
}
