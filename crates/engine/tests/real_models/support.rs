//! Real model files against the answers of other engines (`tests/data/README.md`), from the references' own
//! token ids, so that the decoder alone is on trial.

use inferno_engine::batch::Batch;
use inferno_engine::cache::BLOCK_TOKENS;
use inferno_engine::gguf::GgufFile;
use inferno_engine::model::Decoder;
use inferno_engine::runner::Runner;
use inferno_kernels::Cpu;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Nats by which correct engines differ on the first token.
const TOLERANCE: f64 = 0.4;
/// Margin above which correct engines choose alike.
const MARGIN: f64 = 0.25;
/// Blocks of the cache: room for any prompt of the references.
const BLOCKS: u32 = 8;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The model's file, fetched once into the build folder.
fn model_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models");
    let script = repository().join("tests/models.py");
    let brought = Command::new("python3")
        .arg(script)
        .arg(name)
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .expect("python3 runs");
    assert!(brought.status.success(), "the model {name} could not be had");
    PathBuf::from(String::from_utf8(brought.stdout).expect("a path").trim_end())
}

/// Natural logarithms of the probabilities of the token after `prompt`.
fn next_token(runner: &mut Runner, prompt: &[u32]) -> Vec<f64> {
    assert!(prompt.len() <= BLOCKS as usize * BLOCK_TOKENS, "the cache is too small");
    let batch = Batch {
        tokens: prompt.to_vec(),
        positions: (0..prompt.len() as u32).collect(),
        sequences: vec![0; prompt.len()],
        tables: vec![(0..BLOCKS).collect()],
        sampled: vec![prompt.len() - 1],
    };
    let logits: Vec<f64> = runner.step(&batch).iter().copied().map(f64::from).collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.into_iter().map(|logit| logit - largest - total.ln()).collect()
}

/// Holds the model `name` against `tests/data/REFERENCE.SOURCE.json`.
pub fn agrees_with_references(name: &str, reference: &str, sources: &[&str]) {
    let mut file = GgufFile::open(&model_file(name)).expect("opens").expect("is GGUF");
    let decoder = Decoder::load(&mut file).expect("is a model we run");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runner = Runner::new(Cpu::new(threads).expect("threads"), decoder, BLOCKS as usize);
    for source in sources {
        let path = repository().join(format!("tests/data/{reference}.{source}.json"));
        let text = std::fs::read_to_string(path).expect("a reference file");
        let reference: Value = serde_json::from_str(&text).expect("JSON");
        for case in reference["cases"].as_array().expect("cases") {
            let what = format!("{source}: {}", case["name"]);
            let number = |value: &Value| value.as_u64().expect("an id") as u32;
            let prompt =
                case["prompt_ids"].as_array().expect("ids").iter().map(number).collect::<Vec<_>>();
            let ours = next_token(&mut runner, &prompt);
            let top: Vec<(usize, f64)> = case["first_top10"]
                .as_array()
                .expect("ten")
                .iter()
                .map(|pair| (number(&pair[0]) as usize, pair[1].as_f64().expect("a number")))
                .collect();
            let best =
                (0..ours.len()).max_by(|a, b| ours[*a].total_cmp(&ours[*b])).expect("a vocabulary");
            if top[0].1 - top[1].1 > MARGIN {
                assert_eq!(best, top[0].0, "{what}: the first choice");
            }
            for (id, expected) in top {
                let difference = (ours[id] - expected).abs();
                println!("{what}: token {id} differs by {difference:.3} nat");
                assert!(difference <= TOLERANCE, "{what}: token {id} differs by {difference} nat");
            }
        }
    }
}
