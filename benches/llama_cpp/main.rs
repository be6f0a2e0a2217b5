//! The engine against llama.cpp on the same file: alone, and through HTTP with several streams.
//!
//! ```text
//! scripts/build-llama-cpp
//! cargo bench -p inferno-tests --bench llama_cpp -- [MODEL.gguf] [--rounds N] [--threads N] [--peer FOLDER]
//!     [--only alone|streams|company] [--streams N,N]
//! ```
//!
//! Rounds (default 5) alternate between the two, so that what else the machine does slows both alike;
//! printed are medians and their ratio. Every prompt is new to both, so that no prefix cache helps. MODEL
//! is by default the default model; FOLDER holds llama.cpp's programs (`target/peers/bin`).
//!
//! Three parts: `alone` is prefill of 512 tokens and decode of 128, in this process against llama-bench;
//! `streams` is `inferno bench` over 1, 4, 16 and 32 connections (or N, …) against each server; `company` is what
//! running streams of ours suffer from another's long prompt.

mod alone;
mod company;
mod streams;

use inferno_tests::model_path;
use std::path::PathBuf;

/// What was asked for.
struct Setup {
    model: PathBuf,
    rounds: usize,
    threads: usize,
    /// Where llama.cpp's programs are.
    peer: PathBuf,
    only: Option<String>,
    /// How many connections ask at a time.
    streams: Vec<usize>,
}

impl Setup {
    /// # Panics
    /// On arguments it does not know.
    fn from_arguments() -> Self {
        let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin");
        let (mut model, mut only) = (None, None);
        let (mut rounds, mut threads, mut peer) = (5, 2, peers);
        let mut streams = vec![1, 4, 16, 32];
        // cargo adds a flag of its own.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => rounds = value().parse().expect("a number of rounds"),
                "--threads" => threads = value().parse().expect("a number of threads"),
                "--peer" => peer = value().into(),
                "--only" => only = Some(value()),
                "--streams" => {
                    let number = |text: &str| text.parse().expect("numbers of streams");
                    streams = value().split(',').map(number).collect();
                }
                _ if argument.starts_with("--") => panic!("unknown argument {argument}"),
                _ => model = Some(argument.into()),
            }
        }
        Self { model: model.unwrap_or_else(model_path), rounds, threads, peer, only, streams }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn say(line: &str) {
    println!("{line}");
}

/// The middle one; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A row of a table: ours, theirs, and how many times ours is theirs.
fn row(what: &str, ours: Vec<f64>, theirs: Vec<f64>) {
    let (ours, theirs) = (median(ours), median(theirs));
    say(&format!("| {what} | {ours:.1} | {theirs:.1} | {:.2} |", ours / theirs));
}

fn main() {
    let setup = Setup::from_arguments();
    let (model, rounds) = (setup.model.display(), setup.rounds);
    say(&format!("{model}, {} threads, medians of {rounds} rounds", setup.threads));
    say("| | Inferno | llama.cpp | ratio |\n|---|---|---|---|");
    if setup.wants("alone") {
        alone::measure(&setup);
    }
    if setup.wants("streams") {
        streams::measure(&setup);
    }
    if setup.wants("company") {
        company::measure(&setup);
    }
}
