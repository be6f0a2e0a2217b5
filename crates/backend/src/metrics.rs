//! What a backend measures: the engine's gauges and counters as they are read, and histograms of
//! each request, under our names and under those that the field's dashboards and autoscalers read.

use inferno_engine::{Engine, EngineStats, Finish, FinishReason};
use inferno_shared::{
    MetricsCollector, membership::ModelRef, metrics::RequestGuard, vitals::NodeVitals,
};
use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, Opts, Registry,
    core::{Collector, Desc},
    proto::{self, MetricFamily, MetricType},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Seconds; from a fast decode step to a very long prompt.
const SHORT: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds; for whole requests.
const LONG: &[f64] = &[
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0,
];

/// The histograms and counters of one served model.
#[derive(Debug)]
pub struct BackendMetrics {
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
    /// Registers them, and the engine's own numbers, for `engine`'s model.
    ///
    /// # Errors
    /// If a name is taken, which would be a mistake of ours.
    pub fn register(
        metrics: &MetricsCollector,
        engine: &Engine,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let registry = metrics.registry();
        let model = &engine.info().id;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            histogram(registry, model, name, help, buckets)
        };
        let success = IntCounterVec::new(
            Opts::new(
                "vllm:request_success_total",
                "Finished requests by the reason they finished.",
            )
            .const_label("model_name", model),
            &["finished_reason"],
        )?;
        registry.register(Box::new(success.clone()))?;
        registry.register(Box::new(EngineCollector::new(engine)?))?;
        Ok(Arc::new(Self {
            time_to_first_token: histogram(
                "vllm:time_to_first_token_seconds",
                "From arrival to the first token.",
                SHORT,
            )?,
            inter_token: histogram(
                "vllm:inter_token_latency_seconds",
                "Between two tokens of one answer.",
                SHORT,
            )?,
            end_to_end: histogram(
                "vllm:e2e_request_latency_seconds",
                "From arrival to the last token.",
                LONG,
            )?,
            queue: histogram(
                "vllm:request_queue_time_seconds",
                "Waiting for the first step.",
                LONG,
            )?,
            prefill: histogram(
                "vllm:request_prefill_time_seconds",
                "From the first step to the first token.",
                LONG,
            )?,
            decode: histogram(
                "vllm:request_decode_time_seconds",
                "From the first token to the last.",
                LONG,
            )?,
            inference: histogram(
                "vllm:request_inference_time_seconds",
                "From the first step to the last token.",
                LONG,
            )?,
            success,
        }))
    }

    /// Follows one request.
    pub fn observe(self: &Arc<Self>, guard: RequestGuard) -> Observer {
        Observer { metrics: Arc::clone(self), guard, last_token: None }
    }
}

fn histogram(
    registry: &Registry,
    model: &str,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let options =
        HistogramOpts::new(name, help).buckets(buckets.to_vec()).const_label("model_name", model);
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// What happened to an observed request.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// So many tokens came.
    Tokens(usize),
    /// It ended as it should.
    Finish(&'a Finish),
    /// It failed.
    Failure,
}

/// Follows one request from its arrival until it is dropped.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<BackendMetrics>,
    guard: RequestGuard,
    last_token: Option<Instant>,
}

impl Observer {
    /// Notes what happened, now.
    pub fn saw(&mut self, observed: Observed<'_>) {
        match observed {
            Observed::Tokens(count) => self.tokens(count),
            Observed::Finish(finish) => self.finish(finish),
            Observed::Failure => self.guard.failed(),
        }
    }

    fn tokens(&mut self, count: usize) {
        let now = Instant::now();
        match self.last_token.replace(now) {
            None => self.metrics.time_to_first_token.observe(self.guard.elapsed().as_secs_f64()),
            Some(last) => {
                let each = now.duration_since(last).as_secs_f64() / count.max(1) as f64;
                (0..count).for_each(|_| self.metrics.inter_token.observe(each));
            }
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
        metrics.success.with_label_values(&[reason]).inc();
    }
}

/// One number of the engine: name, help, kind, and where it is read.
type Reading = (&'static str, &'static str, MetricType, fn(&EngineStats) -> f64);

const READINGS: &[Reading] = &[
    (
        "vllm:num_requests_running",
        "Requests with a slot, in prefill or decoding.",
        MetricType::GAUGE,
        |s| s.running() as f64,
    ),
    ("vllm:num_requests_waiting", "Requests waiting for a slot.", MetricType::GAUGE, |s| {
        s.waiting() as f64
    }),
    (
        "vllm:kv_cache_usage_perc",
        "Share of the KV cache in use, 1 is all of it.",
        MetricType::GAUGE,
        kv_share,
    ),
    ("vllm:prompt_tokens_total", "Prompt tokens computed.", MetricType::COUNTER, |s| {
        s.prompt_tokens_total() as f64
    }),
    ("vllm:generation_tokens_total", "Tokens generated.", MetricType::COUNTER, |s| {
        s.generation_tokens_total() as f64
    }),
    (
        "vllm:num_preemptions_total",
        "Requests whose blocks went to older ones.",
        MetricType::COUNTER,
        |s| s.preemptions_total() as f64,
    ),
    (
        "inferno_engine_steps_total",
        "Steps made: the engine's heartbeat.",
        MetricType::COUNTER,
        |s| s.steps_total() as f64,
    ),
];

fn kv_share(stats: &EngineStats) -> f64 {
    stats.kv_blocks_used() as f64 / stats.kv_blocks_total().max(1) as f64
}

/// Reads the engine's atomics whenever metrics are asked for.
struct EngineCollector {
    engine: Engine,
    descriptions: Vec<Desc>,
}

impl EngineCollector {
    fn new(engine: &Engine) -> Result<Self, prometheus::Error> {
        let labels = || [("model_name".to_owned(), engine.info().id.clone())].into();
        let describe = |(name, help, _, _): &Reading| {
            Desc::new((*name).into(), (*help).into(), Vec::new(), labels())
        };
        let descriptions = READINGS.iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { engine: engine.clone(), descriptions })
    }

    fn family(&self, (name, help, kind, read): &Reading) -> MetricFamily {
        let value = read(self.engine.stats());
        let mut label = proto::LabelPair::default();
        label.set_name("model_name".into());
        label.set_value(self.engine.info().id.clone());
        let mut metric = proto::Metric::default();
        metric.set_label(vec![label]);
        if *kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        let mut family = MetricFamily::default();
        family.set_name((*name).into());
        family.set_help((*help).into());
        family.set_field_type(*kind);
        family.set_metric(vec![metric]);
        family
    }
}

impl Collector for EngineCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        READINGS.iter().map(|reading| self.family(reading)).collect()
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
    engine: &Engine,
    model: &ModelRef,
) -> impl Fn(&mut NodeVitals) + Send + Sync + 'static {
    let (engine, model) = (engine.clone(), model.clone());
    let rate = Rate(Mutex::new((Instant::now(), 0, 0.0)));
    move |vitals| {
        let stats = engine.stats();
        vitals.queue_depth = stats.waiting();
        vitals.kv_cache_usage = 100.0 * kv_share(stats);
        vitals.tokens_per_second = rate.of(stats.generation_tokens_total());
        vitals.models = vec![model.clone()];
        vitals.fingerprint = engine.fingerprint().map(|fingerprint| fingerprint.to_string());
    }
}
