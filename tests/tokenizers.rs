//! Our tokenizers against Hugging Face's, Google's and llama.cpp's on real vocabularies (`data/README.md`).

use inferno_engine::gguf::GgufFile;
use inferno_engine::output::OutputText;
use inferno_engine::tokenizer::Tokenizer;
use inferno_tests::model_path;
use inferno_tests::vocabulary::{GEMMA3, QWEN2};
use serde_json::Value;
use std::path::Path;

fn load(path: &Path) -> Tokenizer {
    let file = GgufFile::open(path).expect("the file is there").expect("it is GGUF");
    Tokenizer::load(&file).expect("its tokenizer is supported")
}

fn json(name: &str) -> Value {
    let path = format!("{}/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a reference file")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// Ids of the hard corpus, and back to text.
fn equals_the_library_on_the_hard_corpus(
    tokenizer: &Tokenizer,
    model: &str,
    back: fn(&str) -> String,
) {
    let reference = json("tokenizers");
    let texts = reference["texts"].as_array().expect("texts");
    let of_model = reference["ids"][model].as_array().expect("ids");
    // The libraries are asked for the text alone.
    let begins = tokenizer.encode("").expect("encodes").len() == 1;
    assert!(texts.len() > 200 && of_model.len() == texts.len(), "{model}");
    for (text, expected) in texts.iter().zip(of_model) {
        let text = text.as_str().expect("text");
        let mut found = tokenizer.encode(text).expect("encodes");
        if begins {
            assert_eq!(Some(found.remove(0)), tokenizer.bos(), "{model}: {text:?}");
        }
        assert_eq!(found, ids(expected), "{model}: {text:?}");
        assert_eq!(tokenizer.decode(&found), back(text), "{model}: {text:?}");
    }
}

/// Prompts and tokenizer cases of another engine.
fn equals_the_engine(tokenizer: &Tokenizer, name: &str, apart_from: &[&str]) {
    let reference = json(name);
    let cases = reference["tokenizer_cases"].as_array().expect("cases");
    let prompts = reference["cases"].as_array().expect("cases");
    let (mut compared, mut apart) = (0, 0);
    let texts = cases.iter().map(|case| (&case["text"], &case["ids"]));
    let prompts = prompts.iter().map(|case| (&case["prompt"], &case["prompt_ids"]));
    for (text, expected) in texts.chain(prompts) {
        let Some(text) = text.as_str() else { continue };
        let found = tokenizer.encode(text).expect("encodes");
        if apart_from.contains(&text) {
            assert_ne!(found, ids(expected), "{name}: {text:?} is no exception any more");
            apart += 1;
            continue;
        }
        assert_eq!(found, ids(expected), "{name}: {text:?}");
        compared += 1;
    }
    assert_eq!(apart, apart_from.len(), "{name}: every exception is there");
    assert!(compared > 0, "{name}");
}

/// What random tokens show piece by piece is what they are as a whole, and nothing of it is ever taken back.
fn random_tokens_come_out_whole(tokenizer: &Tokenizer) {
    let mut state = 1u64;
    let mut dice = move |sides: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides
    };
    let short: Vec<u32> =
        (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.bytes(*id).len() == 1).collect();
    let mut broken = 0;
    for _ in 0..2_000 {
        // Every other token is a single byte, so that characters break often.
        let token = |n: usize| match n % 2 {
            0 => dice(tokenizer.vocab_size()) as u32,
            _ => short[dice(short.len())],
        };
        let ids: Vec<u32> = (0..24).map(token).collect();
        let bytes: Vec<u8> =
            ids.iter().flat_map(|id| tokenizer.visible_bytes(*id)).copied().collect();
        let whole = String::from_utf8_lossy(&bytes);
        broken += usize::from(whole.contains(char::REPLACEMENT_CHARACTER));
        let stop: String = whole.chars().skip(20).take(3).collect();
        let ends = whole.find(&stop).filter(|_| !stop.is_empty());
        let mut output = OutputText::new(ends.map(|_| stop).into_iter().collect(), false);
        let (mut shown, mut stopped) = (String::new(), false);
        for id in ids {
            if !stopped {
                let (released, now) = output.push(tokenizer.visible_bytes(id));
                shown += &released;
                stopped = now;
            }
            assert!(whole.starts_with(&shown), "{shown:?} of {whole:?}");
        }
        if !stopped {
            shown += &output.finish().0;
        }
        assert_eq!(shown, whole[..ends.unwrap_or(whole.len())]);
    }
    assert!(broken > 500, "only {broken} of the sequences hold broken characters");
}

/// A million letters, in one piece where the rules do not cut, and in as little time as any other text.
fn long_runs_are_taken(tokenizer: &Tokenizer) {
    for unit in ["a", " ", "\n", "é", "🦀", "0", ".", "ab ", "a\u{301}"] {
        let text = unit.repeat((1 << 20) / unit.len());
        let found = tokenizer.encode(&text).expect("encodes");
        let ids = found.strip_prefix(tokenizer.bos().as_slice()).unwrap_or(&found);
        // Normal form C makes two characters one.
        assert!(tokenizer.decode(ids).len() >= 1 << 19, "{unit:?}");
    }
}

#[test]
fn smollm2() {
    let tokenizer = load(&model_path());
    // Control characters that its vocabulary has no bytes for vanish, as they do in Hugging Face's.
    let back =
        |text: &str| text.replace(['\u{4}', '\u{6}', '\u{13}', '\u{14}', '\u{16}', '\u{1d}'], "");
    equals_the_library_on_the_hard_corpus(&tokenizer, "smollm2", back);
    for name in ["smollm2.llamacpp", "smollm2.numpy"] {
        equals_the_engine(&tokenizer, name, &[]);
    }
    random_tokens_come_out_whole(&tokenizer);
    long_runs_are_taken(&tokenizer);
}

#[test]
fn qwen2() {
    let (_folder, path) = QWEN2.header();
    let tokenizer = load(&path);
    let composed = |text: &str| unicode_normalization::UnicodeNormalization::nfc(text).collect();
    equals_the_library_on_the_hard_corpus(&tokenizer, "qwen25coder15b", composed);
    equals_the_engine(&tokenizer, "qwen25coder15b.numpy", &[]);
    equals_the_engine(&tokenizer, "qwen25coder15b.llamacpp", &["e\u{301} vs é"]);
    random_tokens_come_out_whole(&tokenizer);
    long_runs_are_taken(&tokenizer);
}

#[test]
fn gemma3() {
    let (_folder, path) = GEMMA3.header();
    let tokenizer = load(&path);
    equals_the_library_on_the_hard_corpus(&tokenizer, "gemma3-270m", |text| text.replace('▁', " "));
    for name in ["gemma3-270m.llamacpp", "gemma3-270m.numpy"] {
        equals_the_engine(&tokenizer, name, &[]);
    }
    random_tokens_come_out_whole(&tokenizer);
    long_runs_are_taken(&tokenizer);
}
