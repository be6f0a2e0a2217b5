//! Our engine against other engines' answers on the real model (`data/README.md`).

use inferno_engine::{
    Chat, Engine, EngineOptions, GenerationEvent, GenerationRequest, Message, ModelSource,
    SamplingParams, TokenLogprob,
};
use inferno_tests::{MODEL, model_path};
use serde_json::Value;
use std::{collections::HashMap, sync::OnceLock};

/// Nats by which an engine that rounds activations to eight bits may differ from one of floats on the first token.
/// A reference that rounds too is granted its own distance from the floats on top.
const TOLERANCE: f64 = 0.4;
/// Margin above which correct engines choose alike.
const MARGIN: f64 = 0.25;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let source = ModelSource { id: MODEL.into(), path: model_path(), sha256: None };
        let options = EngineOptions { kv_bytes: Some(512 << 20), ..EngineOptions::default() };
        Engine::load(source, options).expect("the model loads")
    })
}

fn reference(name: &str) -> Value {
    let path = format!("{}/data/smollm2.{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a reference file")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| u32::try_from(id.as_u64().expect("an id")).expect("small"))
        .collect()
}

/// The likeliest first tokens of a case and their log-probabilities.
fn first_top10(case: &Value) -> Vec<(u64, f64)> {
    let pairs = case["first_top10"].as_array().expect("ten").iter();
    pairs
        .map(|pair| (pair[0].as_u64().expect("an id"), pair[1].as_f64().expect("a number")))
        .collect()
}

/// The tokens of the case that correct engines answer alike to the last token.
fn chat_prompt() -> Vec<u32> {
    let cases = reference("llamacpp");
    let mut cases = cases["cases"].as_array().expect("cases").iter();
    ids(&cases.find(|case| case["name"] == "chat_japan").expect("it")["prompt_ids"])
}

/// Greedy tokens with the chances of the first.
fn greedy(prompt: Vec<u32>, max_tokens: usize) -> (Vec<u32>, TokenLogprob) {
    let request = GenerationRequest {
        prompt,
        max_tokens: Some(max_tokens),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        logprobs: Some(20),
        ..GenerationRequest::default()
    };
    let mut generation = engine().submit(request).expect("taken");
    let (mut tokens, mut chances) = (Vec::new(), Vec::new());
    while let Some(event) = generation.blocking_next() {
        match event {
            GenerationEvent::Token(event) => {
                tokens.extend(event.token_ids);
                chances.extend(event.logprobs);
            }
            GenerationEvent::Prompt(_) | GenerationEvent::Finished(_) => {}
            GenerationEvent::Failed(error) => panic!("{error}"),
        }
    }
    (tokens, chances.swap_remove(0))
}

#[test]
fn the_tokenizer_equals_the_references() {
    for name in ["llamacpp", "numpy"] {
        for case in reference(name)["tokenizer_cases"].as_array().expect("cases") {
            let text = case["text"].as_str().expect("text");
            assert_eq!(
                engine().encode(text).expect("encodes"),
                ids(&case["ids"]),
                "{name}: {text:?}"
            );
            if let Some(decoded) = case["decoded"].as_str() {
                assert_eq!(engine().decode(&ids(&case["ids"])), decoded, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn the_template_gives_the_references_prompt() {
    let content = "What is the capital of Japan? Answer in one sentence.";
    let message = Message { role: "user".into(), content: content.into(), name: None };
    let chat = Chat { messages: vec![message], add_generation_prompt: true, created_unix_s: 0 };
    assert_eq!(engine().render_chat(&chat).expect("renders"), chat_prompt());
}

#[test]
fn the_chat_case_is_answered_to_the_token() {
    let (tokens, _) = greedy(chat_prompt(), 16);
    assert_eq!(tokens, [504, 3575, 282, 3085, 314, 19081, 30, 2]);
}

#[test]
fn first_tokens_are_as_likely_as_the_references_find_them() {
    let floats = reference("numpy");
    let floats: HashMap<(&Value, u64), f64> = floats["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .flat_map(|case| {
            first_top10(case).into_iter().map(|(id, chance)| ((&case["name"], id), chance))
        })
        .collect();
    for name in ["llamacpp", "numpy", "candle"] {
        for case in reference(name)["cases"].as_array().expect("cases") {
            let what = format!("{name}: {}", case["name"]);
            let top = first_top10(case);
            let (_, ours) = greedy(ids(&case["prompt_ids"]), 1);
            if top[0].1 - top[1].1 > MARGIN {
                assert_eq!(u64::from(ours.token.id), top[0].0, "{what}: the first choice");
            }
            for (rank, (id, expected)) in top.into_iter().enumerate() {
                let found = ours.top.iter().find(|chance| u64::from(chance.id) == id);
                // A reference's tenth choice may lie beyond our twenty; its first five may not.
                assert!(rank >= 5 || found.is_some(), "{what}: token {id} is not among ours");
                if let Some(chance) = found {
                    let difference = (f64::from(chance.logprob) - expected).abs();
                    let float = floats.get(&(&case["name"], id)).copied();
                    let granted = float.map_or(0.0, |float| (expected - float).abs());
                    assert!(
                        difference <= TOLERANCE + granted,
                        "{what}: token {id} differs by {difference} nat"
                    );
                }
            }
        }
    }
}
