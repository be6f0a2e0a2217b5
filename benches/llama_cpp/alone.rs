//! One stream without HTTP: prefill and decode.

use super::{Setup, row};
use inferno_engine::{
    Engine, EngineOptions, GenerationEvent, GenerationRequest, ModelSource, SamplingParams, Timings,
};
use serde_json::Value;
use std::process::Command;

const PROMPT: usize = 512;
const ANSWER: usize = 128;

/// Tokens a second.
struct Speed {
    prefill: f64,
    decode: f64,
}

pub(super) fn measure(setup: &Setup) {
    let source = ModelSource { id: "bench".into(), path: setup.model.clone(), sha256: None };
    let options = EngineOptions { threads: setup.threads, ..EngineOptions::default() };
    let engine = Engine::load(source, options).expect("the model loads");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=setup.rounds {
        let (our_speed, their_speed) = (inferno(&engine, round), llama_bench(setup));
        // The first warms both.
        if round > 0 {
            ours.push(our_speed);
            theirs.push(their_speed);
        }
    }
    engine.shutdown();
    let of = |speeds: &[Speed], speed: fn(&Speed) -> f64| speeds.iter().map(speed).collect();
    for (what, speed) in [
        (format!("prefill of {PROMPT}, tokens/s"), (|s| s.prefill) as fn(&Speed) -> f64),
        (format!("decode of {ANSWER}, tokens/s"), |s| s.decode),
    ] {
        row(&what, of(&ours, speed), of(&theirs, speed));
    }
}

/// A prompt of its own for each round, then an answer to a short prompt: llama-bench decodes from
/// nothing, too.
fn inferno(engine: &Engine, round: usize) -> Speed {
    let vocab = engine.info().vocab_size;
    let prompt = |tokens: usize, salt: usize| -> Vec<u32> {
        let id = |n: usize| 100 + (n * 37 + salt * 101 + n * n * 13) % (vocab - 200);
        (0..tokens).map(|n| u32::try_from(id(n)).expect("an id")).collect()
    };
    let prefill = run(engine, prompt(PROMPT, 2 * round), 1).prefill;
    let decode = run(engine, prompt(1, 2 * round + 1), ANSWER).decode;
    Speed {
        prefill: PROMPT as f64 / prefill.as_secs_f64(),
        decode: (ANSWER - 1) as f64 / decode.as_secs_f64(),
    }
}

fn run(engine: &Engine, prompt: Vec<u32>, tokens: usize) -> Timings {
    let request = GenerationRequest {
        prompt,
        max_tokens: Some(tokens),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::default()
    };
    let mut generation = engine.submit(request).expect("it fits");
    while let Some(event) = generation.blocking_next() {
        match event {
            GenerationEvent::Prompt(_) | GenerationEvent::Token(_) => {}
            GenerationEvent::Finished(finish) => return finish.timings,
            GenerationEvent::Failed(error) => panic!("{error}"),
        }
    }
    unreachable!("a generation ends with an event")
}

fn llama_bench(setup: &Setup) -> Speed {
    let mut command = Command::new(setup.peer.join("llama-bench"));
    command.arg("-m").arg(&setup.model).args(["-t", &setup.threads.to_string()]);
    command.args(["-p", &PROMPT.to_string(), "-n", &ANSWER.to_string(), "-r", "1", "-o", "json"]);
    let output = command.output().expect("llama-bench runs; scripts/build-llama-cpp makes it");
    let tests: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let speed = |field: &str| {
        let test = tests.as_array().into_iter().flatten().find(|test| test[field] != 0);
        test.and_then(|test| test["avg_ts"].as_f64()).expect("a speed")
    };
    Speed { prefill: speed("n_prompt"), decode: speed("n_gen") }
}
