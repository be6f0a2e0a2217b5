//! The result of a run: one JSON object whose names do not change, and the base of the table.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::failure::ErrorKind;
use super::figures::Figures;
use super::latency::Summary;
use super::plan::Plan;

/// Raised when a name in the report changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Everything that is told of a run; documented field by field in `docs/bench.md`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    version: &'static str,
    pub(super) started_unix_ms: u64,
    pub(super) setup: Plan,
    pub(super) file: Option<FileFacts>,
    pub(crate) interrupted: bool,
    pub(super) elapsed_s: f64,
    pub(crate) requests: Requests,
    pub(super) errors: BTreeMap<ErrorKind, ErrorFacts>,
    pub(super) http_statuses: BTreeMap<u16, u64>,
    pub(super) finish_reasons: BTreeMap<String, u64>,
    pub(super) tokens: TokenFacts,
    pub(super) throughput: Throughput,
    pub(super) goodput: Option<Goodput>,
    pub(super) latency_ms: LatencyFacts,
    pub(super) client: ClientFacts,
}

/// What the run itself knows, beside what it measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) started_unix_ms: u64,
    pub(super) elapsed: Duration,
    pub(super) cpu: Duration,
    pub(super) interrupted: bool,
    pub(super) file: Option<FileFacts>,
    pub(super) warmup: Warmup,
}

/// Requests before the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Warmup {
    pub(super) completed: u64,
    pub(super) failed: u64,
}

/// A file of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FileFacts {
    pub(super) entries: u64,
    /// Cut to the maximum context.
    pub(super) clipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Requests {
    pub(crate) sent: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Broken off by Ctrl-C.
    pub(super) in_flight: u64,
    /// Waited for a place among those in flight.
    pub(super) held: u64,
    pub(super) warmup: Warmup,
    /// Failed among those that ended.
    pub(crate) error_rate: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ErrorFacts {
    pub(super) count: u64,
    pub(super) example: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct TokenFacts {
    /// By the server's count, of completed requests.
    pub(super) prompt: u64,
    pub(super) completion: u64,
    /// What the made-up ones among the prompts were meant to have.
    pub(super) prompt_asked: u64,
    pub(super) stream_events: u64,
    pub(super) answers_without_usage: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Throughput {
    pub(super) requests_per_s: f64,
    pub(super) output_tokens_per_s: f64,
    pub(super) total_tokens_per_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Goodput {
    pub(super) good: u64,
    /// Of all that ended, failures among them.
    pub(super) share: f64,
    pub(super) requests_per_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct LatencyFacts {
    pub(super) ttft: Option<Summary>,
    pub(super) tpot: Option<Summary>,
    pub(super) inter_token: Option<Summary>,
    pub(super) end_to_end: Option<Summary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct ClientFacts {
    pub(super) cpu_s: f64,
    /// Of its threads together: at 100 the client was the bottleneck.
    pub(super) cpu_percent: f64,
    /// From scheduled to sent.
    pub(super) lateness_ms: Option<Summary>,
}

impl Report {
    pub(super) fn new(setup: Plan, figures: &Figures, circumstances: Circumstances) -> Self {
        let seconds = circumstances.elapsed.as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: circumstances.started_unix_ms,
            file: circumstances.file,
            interrupted: circumstances.interrupted,
            elapsed_s: seconds,
            requests: requests(figures, circumstances.warmup),
            errors: errors(figures),
            http_statuses: figures.statuses.clone(),
            finish_reasons: figures.finish_reasons.clone(),
            tokens: tokens(figures),
            throughput: Throughput {
                requests_per_s: per_second(figures.completed),
                output_tokens_per_s: per_second(figures.tokens.completion),
                total_tokens_per_s: per_second(figures.tokens.prompt + figures.tokens.completion),
            },
            goodput: setup.objectives.is_set().then(|| Goodput {
                good: figures.good,
                share: share(figures.good, figures.completed + figures.failed),
                requests_per_s: per_second(figures.good),
            }),
            latency_ms: latencies(figures),
            client: client(figures, &circumstances, setup.threads),
            setup,
        }
    }
}

fn requests(figures: &Figures, warmup: Warmup) -> Requests {
    Requests {
        sent: figures.sent,
        completed: figures.completed,
        failed: figures.failed,
        in_flight: figures.in_flight(),
        held: figures.held,
        warmup,
        error_rate: share(figures.failed, figures.completed + figures.failed),
    }
}

fn errors(figures: &Figures) -> BTreeMap<ErrorKind, ErrorFacts> {
    let errors = figures.errors.iter();
    errors
        .map(|(kind, errors)| {
            (*kind, ErrorFacts { count: errors.count, example: errors.example.clone() })
        })
        .collect()
}

fn tokens(figures: &Figures) -> TokenFacts {
    TokenFacts {
        prompt: figures.tokens.prompt,
        completion: figures.tokens.completion,
        prompt_asked: figures.tokens.prompt_asked,
        stream_events: figures.tokens.events,
        answers_without_usage: figures.tokens.without_usage,
    }
}

fn latencies(figures: &Figures) -> LatencyFacts {
    LatencyFacts {
        ttft: figures.ttft.summary(),
        tpot: figures.tpot.summary(),
        inter_token: figures.inter_token.summary(),
        end_to_end: figures.end_to_end.summary(),
    }
}

fn client(figures: &Figures, circumstances: &Circumstances, threads: usize) -> ClientFacts {
    let cpu_s = circumstances.cpu.as_secs_f64();
    let available_s = circumstances.elapsed.as_secs_f64() * threads as f64;
    ClientFacts {
        cpu_s,
        cpu_percent: if available_s > 0.0 { 100.0 * cpu_s / available_s } else { 0.0 },
        lateness_ms: figures.lateness.summary(),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
