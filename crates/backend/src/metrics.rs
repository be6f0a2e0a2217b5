//! What a backend measures: the engine's gauges and counters as they are read, and histograms of
//! each request, under our names and under those that the field's dashboards and autoscalers read.

mod table;

pub use table::METRICS;

use crate::served::Served;
use inferno_engine::{Finish, FinishReason, Miss};
use inferno_shared::{
    MetricsCollector,
    membership::ModelRef,
    metrics::{Metric, RequestGuard},
    vitals::NodeVitals,
};
use prometheus::{Histogram, IntCounterVec};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use table::{
    DECODE, END_TO_END, INFERENCE, INTER_TOKEN, PREFILL, PREFIX_MISSES, QUEUE, READINGS, REASONS,
    Reading, SUCCESS, TIME_TO_FIRST_TOKEN, kv_share,
};

/// The histograms and counters of one served model.
#[derive(Debug)]
pub struct BackendMetrics {
    model: String,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    success: IntCounterVec,
}

impl BackendMetrics {
    /// Registers them, and the engine's own numbers, for the model `served`.
    ///
    /// # Errors
    /// If a name is taken, which would be a mistake of ours.
    pub fn register(
        metrics: &MetricsCollector,
        served: &Served,
    ) -> Result<Arc<Self>, prometheus::Error> {
        for Reading { metric, read } in READINGS {
            let served = served.clone();
            metrics.registry().read_at_scrape(metric, move |emit| {
                emit(&[&served.info().id], read(served.stats()));
            })?;
        }
        let misses = served.clone();
        metrics.registry().read_at_scrape(PREFIX_MISSES, move |emit| {
            for why in Miss::ALL {
                let tokens = misses.stats().prefix_missed_tokens_total(why);
                emit(&[&misses.info().id, why.label()], tokens as f64);
            }
        })?;
        Ok(Arc::new(Self::of(metrics, &served.info().id)?))
    }

    fn of(metrics: &MetricsCollector, model: &str) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let histogram = |metric: Metric| {
            registry.histograms(metric).map(|histograms| histograms.with_label_values(&[model]))
        };
        let success = registry.counters(SUCCESS)?;
        for reason in REASONS {
            success.with_label_values(&[model, reason]);
        }
        Ok(Self {
            model: model.into(),
            time_to_first_token: histogram(TIME_TO_FIRST_TOKEN)?,
            inter_token: histogram(INTER_TOKEN)?,
            end_to_end: histogram(END_TO_END)?,
            queue: histogram(QUEUE)?,
            prefill: histogram(PREFILL)?,
            decode: histogram(DECODE)?,
            inference: histogram(INFERENCE)?,
            success,
        })
    }

    /// Follows one request.
    pub fn observe(self: &Arc<Self>, guard: RequestGuard) -> Observer {
        Observer { metrics: Arc::clone(self), guard, last_tokens: Vec::new() }
    }
}

/// What happened to an observed request.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// Tokens came.
    Tokens {
        /// For which choice.
        choice: usize,
        /// How many.
        count: usize,
    },
    /// It ended as it should.
    Finish(&'a Finish),
    /// It failed in the middle of its answer.
    Failure,
    /// This error status is its answer.
    Refused(http::StatusCode),
}

/// Follows one request from its arrival until it is dropped.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<BackendMetrics>,
    guard: RequestGuard,
    /// When the last token of each choice came.
    last_tokens: Vec<Option<Instant>>,
}

impl Observer {
    /// Notes what happened, now.
    pub fn saw(&mut self, observed: Observed<'_>) {
        match observed {
            Observed::Tokens { choice, count } => self.tokens(choice, count),
            Observed::Finish(finish) => self.finish(finish),
            Observed::Failure => self.guard.failed(),
            Observed::Refused(status) => self.guard.answered(status.as_u16()),
        }
    }

    fn tokens(&mut self, choice: usize, count: usize) {
        let now = Instant::now();
        let is_first = self.last_tokens.is_empty();
        if self.last_tokens.len() <= choice {
            self.last_tokens.resize(choice + 1, None);
        }
        match self.last_tokens[choice].replace(now) {
            Some(last) => {
                let each = now.duration_since(last).as_secs_f64() / count.max(1) as f64;
                (0..count).for_each(|_| self.metrics.inter_token.observe(each));
            }
            None if is_first => {
                self.metrics.time_to_first_token.observe(self.guard.elapsed().as_secs_f64());
            }
            None => {}
        }
    }

    fn finish(&mut self, finish: &Finish) {
        let metrics = &self.metrics;
        let timings = &finish.timings;
        metrics.end_to_end.observe(self.guard.elapsed().as_secs_f64());
        metrics.queue.observe(timings.queue.as_secs_f64());
        metrics.prefill.observe(timings.prefill.as_secs_f64());
        metrics.decode.observe(timings.decode.as_secs_f64());
        metrics.inference.observe((timings.prefill + timings.decode).as_secs_f64());
        let reason = match finish.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        metrics.success.with_label_values(&[metrics.model.as_str(), reason]).inc();
    }
}

/// A counter's growth a second, over the last second or more.
#[derive(Debug)]
struct Rate(Mutex<(Instant, u64, f64)>);

impl Rate {
    fn of(&self, total: u64) -> f64 {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before, rate) = &mut *window;
        let elapsed_s = since.elapsed().as_secs_f64();
        if elapsed_s >= 1.0 {
            *rate = total.saturating_sub(*before) as f64 / elapsed_s;
            (*since, *before) = (Instant::now(), total);
        }
        *rate
    }
}

/// Fills the vitals that only a backend has.
pub fn fill_vitals(
    served: &Served,
    model: &ModelRef,
) -> impl Fn(&mut NodeVitals) + Send + Sync + 'static {
    let (served, model) = (served.clone(), model.clone());
    let rate = Rate(Mutex::new((Instant::now(), 0, 0.0)));
    move |vitals| {
        let stats = served.stats();
        vitals.queue_depth = stats.waiting();
        vitals.kv_cache_usage = 100.0 * kv_share(stats);
        vitals.kv_cache_tokens = stats.kv_tokens_total();
        vitals.tokens_per_second = rate.of(stats.generation_tokens_total());
        vitals.models = vec![model.clone()];
        vitals.fingerprint = served.fingerprint().map(|fingerprint| fingerprint.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_is_registered() {
        let node = MetricsCollector::new();
        BackendMetrics::of(&node, "a-model").expect("each name once");
        let mut registered = node.registry().described();
        registered.extend(READINGS.map(|reading| reading.metric));
        registered.push(PREFIX_MISSES);
        let mut table = METRICS.to_vec();
        registered.sort_by_key(|metric| metric.name);
        table.sort_by_key(|metric| metric.name);
        assert_eq!(registered, table);
    }
}
