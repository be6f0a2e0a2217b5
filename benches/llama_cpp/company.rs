//! What streams suffer while another request's long prompt is computed.
//!
//! A few streams decode; after a while a prompt of 4,000 tokens arrives. Compared are the gaps between
//! a stream's tokens before and during its prefill, and the prefill's time with that of the same length
//! alone.

use super::{Setup, median, say};
use inferno_engine::{
    Engine, EngineOptions, Generation, GenerationEvent, GenerationRequest, ModelSource,
    SamplingParams,
};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const STREAMS: usize = 4;
const PROMPT: usize = 4_000;
/// Tokens a stream gives before the prompt arrives.
const BEFORE: usize = 100;
/// More than any prefill lasts.
const ANSWER: usize = 6_000;

pub(super) fn measure(setup: &Setup) {
    let source = ModelSource { id: "bench".into(), path: setup.model.clone(), sha256: None };
    let options = EngineOptions { threads: setup.threads, ..EngineOptions::default() };
    let engine = Engine::load(source, options).expect("the model loads");
    let (mut calm, mut busy) = (Gaps::default(), Gaps::default());
    let (mut alone, mut beside) = (vec![], vec![]);
    for round in 0..setup.rounds {
        alone.push(prefill(&engine, 2 * round).as_secs_f64() * 1e3);
        let (before, during, took) = disturbed(&engine, 2 * round + 1);
        calm.add(before);
        busy.add(during);
        beside.push(took.as_secs_f64() * 1e3);
    }
    engine.shutdown();
    let (alone, beside) = (median(alone), median(beside));
    say(&format!("\n{STREAMS} streams, and another's prompt of {PROMPT} tokens:"));
    let ((calm_p50, calm_p99), (busy_p50, busy_p99)) = (calm.medians(), busy.medians());
    say(&format!(
        "inter-token before p50 {calm_p50:.2} ms, p99 {calm_p99:.2} ms; during p50 {busy_p50:.2} ms ({:.2} \
         times that before), p99 {busy_p99:.2} ms ({:.2} times)",
        busy_p50 / calm_p50,
        busy_p99 / calm_p50
    ));
    say(&format!(
        "the prefill: {alone:.0} ms alone, {beside:.0} ms beside them: {:.2} times",
        beside / alone
    ));
}

/// Percentiles of the gaps between tokens, of each round.
#[derive(Default)]
struct Gaps {
    p50s: Vec<f64>,
    p99s: Vec<f64>,
}

impl Gaps {
    fn add(&mut self, mut gaps: Vec<f64>) {
        gaps.sort_by(f64::total_cmp);
        self.p50s.push(percentile(&gaps, 0.5));
        self.p99s.push(percentile(&gaps, 0.99));
    }

    /// The medians over the rounds.
    fn medians(self) -> (f64, f64) {
        (median(self.p50s), median(self.p99s))
    }
}

fn submit(engine: &Engine, tokens: usize, salt: usize, answer: usize) -> Generation {
    let vocab = engine.info().vocab_size;
    let id = |n: usize| 100 + (n * 31 + salt * 211 + n * n * 7) % (vocab - 200);
    let request = GenerationRequest {
        prompt: (0..tokens).map(|n| u32::try_from(id(n)).expect("an id")).collect(),
        max_tokens: Some(answer),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::default()
    };
    engine.submit(request).expect("it fits")
}

fn prefill(engine: &Engine, salt: usize) -> Duration {
    let mut generation = submit(engine, PROMPT, salt, 1);
    while let Some(event) = generation.blocking_next() {
        if let GenerationEvent::Finished(finish) = event {
            return finish.timings.prefill;
        }
    }
    unreachable!("a generation ends with an event")
}

/// Gaps in milliseconds before and during the prefill, and how long it took.
fn disturbed(engine: &Engine, salt: usize) -> (Vec<f64>, Vec<f64>, Duration) {
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let generation = submit(engine, 16, 1_000 * (salt + 1) + stream, ANSWER);
                scope.spawn(|| gaps(generation, &begun, &ended))
            })
            .collect();
        while engine.stats().running() < STREAMS as u64 {
            thread::yield_now();
        }
        // Each stream gives its first tokens undisturbed.
        let tokens = || engine.stats().generation_tokens_total();
        let from = tokens();
        while tokens() < from + (STREAMS * BEFORE) as u64 {
            thread::sleep(Duration::from_millis(5));
        }
        begun.store(true, Relaxed);
        let took = prefill(engine, salt);
        ended.store(true, Relaxed);
        let (mut before, mut during) = (Vec::new(), Vec::new());
        for stream in streams {
            let (calm, busy) = stream.join().expect("a stream ends");
            before.extend(calm);
            during.extend(busy);
        }
        (before, during, took)
    })
}

/// Reads a stream to the end of the prefill; dropping it then cancels it.
fn gaps(
    mut generation: Generation,
    begun: &AtomicBool,
    ended: &AtomicBool,
) -> (Vec<f64>, Vec<f64>) {
    let (mut before, mut during, mut last) = (Vec::new(), Vec::new(), None::<Instant>);
    while let Some(GenerationEvent::Token(event)) = generation.blocking_next() {
        let now = Instant::now();
        let gap = last.map(|last| (now - last).as_secs_f64() * 1e3 / event.token_ids.len() as f64);
        last = Some(now);
        if ended.load(Relaxed) {
            break;
        }
        if begun.load(Relaxed) { &mut during } else { &mut before }.extend(gap);
    }
    (before, during)
}

/// Of sorted values.
fn percentile(values: &[f64], share: f64) -> f64 {
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
