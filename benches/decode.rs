//! Prefill and decode of one stream, against candle-transformers' quantized Llama on the same file.
//!
//! ```text
//! cargo bench -p inferno-benches --bench decode -- MODEL.gguf [THREADS] [ROUNDS]
//! ```
//!
//! Rounds alternate between the two, so that what else the machine does slows both alike. Printed are the
//! medians over the rounds and their ratio. `CANDLE_NUM_THREADS=THREADS` gives the peer as many threads; by
//! default it takes every physical core, and so do we.

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use inferno_benches::{median, rate};
use inferno_engine::{
    Engine, EngineOptions, GenerationEvent, GenerationRequest, ModelSource, SamplingParams,
};
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Tokens of the prompt: a chat of a few turns.
const PROMPT: usize = 128;
/// Tokens generated after it.
const ANSWER: usize = 64;

/// What one round took.
struct Round {
    prefill: Duration,
    decode: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let model =
        PathBuf::from(arguments.next().ok_or("usage: decode MODEL.gguf [THREADS] [ROUNDS]")?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.next().map_or(Ok(cores), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;

    let engine = ours(&model, threads)?;
    let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // New each time, so that our prefix cache knows nothing of it.
        let prompt: Vec<u32> =
            (0..PROMPT as u32).map(|n| 100 + (n * 37 + round as u32 * 11) % 900).collect();
        let (our_round, their_round) = (run_ours(&engine, &prompt)?, run_theirs(&model, &prompt)?);
        // The first warms both.
        if round > 0 {
            our_rounds.push(our_round);
            their_rounds.push(their_round);
        }
    }
    println!("{threads} threads, {rounds} rounds, tokens per second (medians)");
    report("prefill", PROMPT, &our_rounds, &their_rounds, |round| round.prefill);
    report("decode", ANSWER - 1, &our_rounds, &their_rounds, |round| round.decode);
    Ok(())
}

fn report(
    what: &str,
    tokens: usize,
    ours: &[Round],
    theirs: &[Round],
    time: fn(&Round) -> Duration,
) {
    let rate = |rounds: &[Round]| rate(tokens, median(rounds.iter().map(time).collect()));
    let (ours, theirs) = (rate(ours), rate(theirs));
    println!(
        "{what:8} inferno {ours:8.1}   candle-transformers {theirs:8.1}   ratio {:.2}",
        ours / theirs
    );
}

fn ours(model: &Path, threads: usize) -> Result<Engine, Box<dyn Error>> {
    let source = ModelSource { id: "bench".into(), path: model.into(), sha256: None };
    Ok(Engine::load(source, EngineOptions { threads, ..EngineOptions::default() })?)
}

fn run_ours(engine: &Engine, prompt: &[u32]) -> Result<Round, Box<dyn Error>> {
    let mut generation = engine.submit(GenerationRequest {
        prompt: prompt.to_vec(),
        max_tokens: Some(ANSWER),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::default()
    })?;
    while let Some(event) = generation.blocking_next() {
        match event {
            GenerationEvent::Prompt(_) | GenerationEvent::Token(_) => {}
            GenerationEvent::Finished(finish) => {
                let timings = finish.timings;
                return Ok(Round { prefill: timings.prefill, decode: timings.decode });
            }
            GenerationEvent::Failed(error) => return Err(error.into()),
        }
    }
    Err("the engine ended without an answer".into())
}

/// A fresh model each round: its cache cannot be emptied otherwise. Loading is not timed.
fn run_theirs(model: &Path, prompt: &[u32]) -> candle_core::Result<Round> {
    let mut file = File::open(model)?;
    let content = Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    let started = Instant::now();
    let mut next = greedy(&mut model, prompt, 0)?;
    let first_token = Instant::now();
    for position in prompt.len()..prompt.len() + ANSWER - 1 {
        next = greedy(&mut model, &[next], position)?;
    }
    Ok(Round { prefill: first_token - started, decode: first_token.elapsed() })
}

fn greedy(model: &mut ModelWeights, tokens: &[u32], position: usize) -> candle_core::Result<u32> {
    let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
    model.forward(&input, position)?.squeeze(0)?.argmax(0)?.to_scalar()
}
