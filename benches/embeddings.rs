//! Texts embedded per second, against candle-transformers' BERT on the same directory.
//!
//! ```text
//! cargo bench -p inferno-benches --bench embeddings -- DIRECTORY [THREADS] [ROUNDS]
//! ```
//!
//! Rounds alternate between the two, so that what else the machine does slows both alike. Both get all texts at
//! once, of equal length, so that the peer needs no padding. Printed are the medians over the rounds and their
//! ratio. `CANDLE_NUM_THREADS=THREADS` and `RAYON_NUM_THREADS=THREADS` give the peer as many threads.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use inferno_benches::{median, rate};
use inferno_engine::{EngineOptions, ModelSource, embed::Embedder};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Tokens of all texts of a round.
const TOKENS: usize = 4096;
/// Tokens of each text.
const LENGTHS: [usize; 3] = [32, 128, 256];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let folder = arguments.next().ok_or("usage: embeddings DIRECTORY [THREADS] [ROUNDS]")?;
    let folder = PathBuf::from(folder);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.next().map_or(Ok(cores), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;

    let source = ModelSource { id: "bench".into(), path: folder.clone(), sha256: None };
    let ours = Embedder::load(source, EngineOptions { threads, ..EngineOptions::default() })?;
    let theirs = candle(&folder)?;
    println!("{threads} threads, {rounds} rounds, texts per second (medians)");
    for length in LENGTHS.into_iter().filter(|length| *length <= ours.info().context_length) {
        let texts = texts(length);
        let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let (our_round, their_round) = (run_ours(&ours, &texts)?, run_theirs(&theirs, &texts)?);
            // The first warms both.
            if round > 0 {
                our_rounds.push(our_round);
                their_rounds.push(their_round);
            }
        }
        let rate = |rounds: Vec<Duration>| rate(texts.len(), median(rounds));
        let (ours, theirs) = (rate(our_rounds), rate(their_rounds));
        println!(
            "{length:4} tokens  inferno {ours:8.1}   candle-transformers {theirs:8.1}   ratio {:.2}",
            ours / theirs
        );
    }
    Ok(())
}

/// Ids that every vocabulary of the family has; what they are does not matter.
fn texts(length: usize) -> Vec<Vec<u32>> {
    let id = |text: usize, token: usize| (1_000 + (text * length + token) * 37 % 20_000) as u32;
    (0..TOKENS / length).map(|text| (0..length).map(|token| id(text, token)).collect()).collect()
}

fn candle(folder: &Path) -> Result<BertModel, Box<dyn Error>> {
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let weights = std::fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
    Ok(BertModel::load(weights, &config)?)
}

fn run_ours(embedder: &Embedder, texts: &[Vec<u32>]) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let embedded = embedder.submit(texts.to_vec())?.blocking_finished()?;
    assert_eq!(embedded.vectors.len(), texts.len());
    Ok(began.elapsed())
}

/// In batches of the tokens that our steps have.
fn run_theirs(model: &BertModel, texts: &[Vec<u32>]) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    for batch in texts.chunks((inferno_engine::STEP_TOKENS_MAX / texts[0].len()).max(1)) {
        let ids: Vec<&[u32]> = batch.iter().map(|text| &text[..]).collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let states = model.forward(&ids, &ids.zeros_like()?, None)?;
        let mean = states.mean(1)?;
        let length = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
        let vectors = mean.broadcast_div(&length)?.to_vec2::<f32>()?;
        assert_eq!(vectors.len(), batch.len());
    }
    Ok(began.elapsed())
}
