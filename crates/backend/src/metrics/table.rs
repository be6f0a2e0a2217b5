//! Every metric of a backend: registered from here, documented from here.

use inferno_engine::{EngineStats, Miss};
use inferno_shared::metrics::{Kind, Label, Metric, Values};

/// From a fast decode step to a very long prompt.
const SHORT: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
]);
/// For whole requests.
const LONG: Kind = Kind::Histogram(&[
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0,
]);

const MODEL: Label = Label { name: "model_name", values: Values::Each("the served model") };
const REASON: Label = Label { name: "finished_reason", values: Values::OneOf(&REASONS) };
pub(super) const REASONS: [&str; 2] = ["stop", "length"];
const MISS: Label = Label { name: "reason", values: Values::OneOf(&MISSES) };
const MISSES: [&str; Miss::ALL.len()] = {
    let mut labels = [""; Miss::ALL.len()];
    let mut index = 0;
    while index < labels.len() {
        labels[index] = Miss::ALL[index].label();
        index += 1;
    }
    labels
};

/// A duration of the served model's requests.
const fn seconds(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, labels: &[MODEL], unit: "seconds", help }
}

pub(super) const TIME_TO_FIRST_TOKEN: Metric =
    seconds("vllm:time_to_first_token_seconds", SHORT, "From arrival to the first token.");
pub(super) const INTER_TOKEN: Metric =
    seconds("vllm:inter_token_latency_seconds", SHORT, "Between two tokens of one answer.");
pub(super) const END_TO_END: Metric =
    seconds("vllm:e2e_request_latency_seconds", LONG, "From arrival to the last token.");
pub(super) const QUEUE: Metric =
    seconds("vllm:request_queue_time_seconds", LONG, "Waiting for the first step.");
pub(super) const PREFILL: Metric =
    seconds("vllm:request_prefill_time_seconds", LONG, "From the first step to the first token.");
pub(super) const DECODE: Metric =
    seconds("vllm:request_decode_time_seconds", LONG, "From the first token to the last.");
pub(super) const INFERENCE: Metric =
    seconds("vllm:request_inference_time_seconds", LONG, "From the first step to the last token.");

pub(super) const SUCCESS: Metric = Metric {
    name: "vllm:request_success_total",
    kind: Kind::Counter,
    labels: &[MODEL, REASON],
    unit: "requests",
    help: "Requests that finished, by why they did; each reason is there from the start.",
};

/// One number of the engine, and where it is read.
pub(super) struct Reading {
    pub(super) metric: Metric,
    pub(super) read: fn(&EngineStats) -> f64,
}

const fn reading(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    read: fn(&EngineStats) -> f64,
) -> Reading {
    Reading { metric: Metric { name, kind, labels: &[MODEL], unit, help }, read }
}

const RUNNING: Reading = reading(
    "vllm:num_requests_running",
    Kind::Gauge,
    "requests",
    "Requests with a slot, in prefill or decoding.",
    |stats| stats.running() as f64,
);
const WAITING: Reading = reading(
    "vllm:num_requests_waiting",
    Kind::Gauge,
    "requests",
    "Requests waiting for a slot.",
    |stats| stats.waiting() as f64,
);
const KV_CACHE_USAGE: Reading = reading(
    "vllm:kv_cache_usage_perc",
    Kind::Gauge,
    "ratio",
    "Share of the KV cache that requests hold, 1 is all of it.",
    kv_share,
);
const KV_BLOCKS: Reading = reading(
    "inferno_kv_blocks",
    Kind::Gauge,
    "blocks",
    "Blocks of the KV cache, of 32 tokens each.",
    |stats| stats.kv_blocks_total() as f64,
);
const KV_BLOCKS_USED: Reading = reading(
    "inferno_kv_blocks_used",
    Kind::Gauge,
    "blocks",
    "Blocks of the KV cache that requests hold.",
    |stats| stats.kv_blocks_used() as f64,
);
const KV_BLOCKS_KEPT: Reading = reading(
    "inferno_kv_blocks_kept",
    Kind::Gauge,
    "blocks",
    "Blocks of the KV cache that nobody holds, kept for a prefix to come; the rest is free.",
    |stats| stats.kv_blocks_kept() as f64,
);
const KV_EVICTIONS: Reading = reading(
    "inferno_kv_evictions_total",
    Kind::Counter,
    "blocks",
    "Kept blocks whose memory was needed for something else.",
    |stats| stats.kv_evictions_total() as f64,
);
const PREFIX_QUERIES: Reading = reading(
    "vllm:prefix_cache_queries_total",
    Kind::Counter,
    "tokens",
    "Prompt tokens looked for in the prefix cache: hits and misses.",
    |stats| (stats.prefix_hit_tokens_total() + missed(stats)) as f64,
);
const PREFIX_HITS: Reading = reading(
    "vllm:prefix_cache_hits_total",
    Kind::Counter,
    "tokens",
    "Prompt tokens found in the prefix cache, and not computed.",
    |stats| stats.prefix_hit_tokens_total() as f64,
);
const PAUSED: Reading = reading(
    "inferno_requests_paused",
    Kind::Gauge,
    "requests",
    "Requests that stand still because their clients do not read.",
    |stats| stats.paused() as f64,
);
const WAITING_TOKENS: Reading = reading(
    "inferno_queue_tokens",
    Kind::Gauge,
    "tokens",
    "Tokens of the requests waiting for a slot.",
    |stats| stats.waiting_tokens() as f64,
);
const DEADLINES: Reading = reading(
    "inferno_deadlines_exceeded_total",
    Kind::Counter,
    "requests",
    "Requests ended because their deadline was over.",
    |stats| stats.deadlines_exceeded_total() as f64,
);
const SLOW_READERS: Reading = reading(
    "inferno_slow_readers_total",
    Kind::Counter,
    "requests",
    "Requests ended because their client did not read.",
    |stats| stats.slow_readers_total() as f64,
);
const PROMPT_TOKENS: Reading = reading(
    "vllm:prompt_tokens_total",
    Kind::Counter,
    "tokens",
    "Prompt tokens computed.",
    |stats| stats.prompt_tokens_total() as f64,
);
const GENERATION_TOKENS: Reading = reading(
    "vllm:generation_tokens_total",
    Kind::Counter,
    "tokens",
    "Tokens generated.",
    |stats| stats.generation_tokens_total() as f64,
);
const PREEMPTIONS: Reading = reading(
    "vllm:num_preemptions_total",
    Kind::Counter,
    "requests",
    "Times that a request lost its blocks to others, to be computed again.",
    |stats| stats.preemptions_total() as f64,
);
const STEPS: Reading = reading(
    "inferno_engine_steps_total",
    Kind::Counter,
    "steps",
    "Steps made: the engine's heartbeat.",
    |stats| stats.steps_total() as f64,
);

/// Has a series for each reason.
pub(super) const PREFIX_MISSES: Metric = Metric {
    name: "inferno_prefix_cache_misses_total",
    kind: Kind::Counter,
    labels: &[MODEL, MISS],
    unit: "tokens",
    help: "Prompt tokens that had to be computed: never seen (cold), made room for others (evicted), cached for another key \
           (other_key), computed by two at once (concurrent), a hash of two meanings (collision), behind the last full block \
           or the last token itself (tail).",
};

pub(super) const READINGS: [Reading; 17] = [
    RUNNING,
    WAITING,
    WAITING_TOKENS,
    PAUSED,
    KV_CACHE_USAGE,
    KV_BLOCKS,
    KV_BLOCKS_USED,
    KV_BLOCKS_KEPT,
    KV_EVICTIONS,
    PREFIX_QUERIES,
    PREFIX_HITS,
    PROMPT_TOKENS,
    GENERATION_TOKENS,
    PREEMPTIONS,
    DEADLINES,
    SLOW_READERS,
    STEPS,
];

/// Every metric that only a backend has.
pub const METRICS: &[Metric] = &[
    RUNNING.metric,
    WAITING.metric,
    WAITING_TOKENS.metric,
    PAUSED.metric,
    KV_CACHE_USAGE.metric,
    KV_BLOCKS.metric,
    KV_BLOCKS_USED.metric,
    KV_BLOCKS_KEPT.metric,
    KV_EVICTIONS.metric,
    PREFIX_QUERIES.metric,
    PREFIX_HITS.metric,
    PREFIX_MISSES,
    PROMPT_TOKENS.metric,
    GENERATION_TOKENS.metric,
    PREEMPTIONS.metric,
    DEADLINES.metric,
    SLOW_READERS.metric,
    STEPS.metric,
    SUCCESS,
    TIME_TO_FIRST_TOKEN,
    INTER_TOKEN,
    END_TO_END,
    QUEUE,
    PREFILL,
    DECODE,
    INFERENCE,
];

/// 1 is all of it.
pub(super) fn kv_share(stats: &EngineStats) -> f64 {
    stats.kv_blocks_used() as f64 / stats.kv_blocks_total().max(1) as f64
}

/// Prompt tokens that were computed, for whatever reason.
fn missed(stats: &EngineStats) -> u64 {
    Miss::ALL.iter().map(|why| stats.prefix_missed_tokens_total(*why)).sum()
}
