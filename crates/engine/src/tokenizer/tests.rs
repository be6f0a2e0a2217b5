#![allow(clippy::unwrap_used)]
use super::*;
use crate::output::OutputText;
use crate::testing::TinyModel;
use candle_core::quantized::gguf_file::Value;
use proptest::prelude::*;
use std::sync::OnceLock;

/// The tokenizer of a tiny model with other metadata.
fn load(metadata: Vec<(&str, Value)>) -> Result<Tokenizer, ModelFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    TinyModel { metadata, ..TinyModel::default() }.write(&path).unwrap();
    Tokenizer::load(&GgufFile::open(&path).unwrap().unwrap())
}

fn tokenizer() -> Tokenizer {
    load(vec![]).unwrap()
}

fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Value {
    Value::Array(texts.into_iter().map(|text| Value::String(text.into())).collect())
}

/// What Google's library made of a small SentencePiece model (`tests/data/make_tokenizer_references.py`).
fn reference() -> &'static serde_json::Value {
    const REFERENCE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/sentencepiece.json"));
    static PARSED: OnceLock<serde_json::Value> = OnceLock::new();
    PARSED.get_or_init(|| serde_json::from_str(REFERENCE).unwrap())
}

/// Metadata of that model.
fn sentencepiece_metadata() -> Vec<(&'static str, Value)> {
    let list = |name: &str| reference()[name].as_array().unwrap();
    let tokens = list("tokens").iter().map(|token| token.as_str().unwrap());
    let scores = list("scores").iter().map(|score| Value::F32(score.as_f64().unwrap() as f32));
    let types = list("types").iter().map(|kind| Value::I32(kind.as_i64().unwrap() as i32));
    vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.scores", Value::Array(scores.collect())),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ]
}

fn sentencepiece() -> Tokenizer {
    load(sentencepiece_metadata()).unwrap()
}

#[test]
fn sentencepiece_is_googles() {
    let tokenizer = sentencepiece();
    let (mut unused, mut bytes) = (0, 0);
    for case in reference()["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(serde_json::json!(ids), case["ids"], "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "), "{text:?}");
        let of =
            |kind| ids.iter().filter(|id| tokenizer.vocabulary.kind(**id) == Some(kind)).count();
        unused += of(Kind::Unused);
        bytes += of(Kind::Byte);
    }
    assert_eq!(unused, 0, "pieces out of use are taken apart");
    assert!(bytes > 100, "characters that are no piece");
}

#[test]
fn a_space_goes_before_a_text_only_where_the_model_wants_it() {
    let tokenizer = sentencepiece();
    let with = tokenizer.encode("the").unwrap();
    assert_eq!(tokenizer.bytes(with[0]), b" the");
    let mut metadata = sentencepiece_metadata();
    metadata.push(("tokenizer.ggml.add_space_prefix", Value::Bool(false)));
    let plain = load(metadata).unwrap();
    assert_ne!(plain.encode("the").unwrap(), with);
    assert_eq!(plain.encode(" the").unwrap(), with);
    assert_eq!(plain.decode(&with), " the", "there it is a part of the text");
}

#[test]
fn what_has_neither_a_piece_nor_bytes_is_unknown_once_a_run() {
    let metadata = vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", texts(["<unk>", "<s>", "▁", "a"])),
        ("tokenizer.ggml.scores", Value::Array([0.0, 0.0, -1.0, -2.0].map(Value::F32).into())),
        ("tokenizer.ggml.token_type", Value::Array([2, 3, 1, 1].map(Value::I32).into())),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
    ];
    let tokenizer = load(metadata).unwrap();
    assert_eq!(tokenizer.encode("a日本a").unwrap(), [1, 2, 3, 0, 3]);
}

#[test]
fn vocabularies_that_lie_are_refused_by_name_and_place() {
    let refused = |metadata| load(metadata).err().expect("a lie").to_string();
    let tokens = "tokenizer.ggml.tokens";
    let says = |error: String, what: &str| assert!(error.contains(what), "{error}");
    says(refused(vec![(tokens, texts([]))]), "a vocabulary of 0 tokens");
    says(refused(vec![(tokens, Value::U32(1))]), "tokenizer.ggml.tokens (byte");
    says(refused(vec![(tokens, Value::Array(vec![Value::U32(1)]))]), "entry 0 is not a string");
    let no_kinds = ("tokenizer.ggml.token_type", Value::Array([1, 1, 1].map(Value::I32).into()));
    let three = |one: &str| vec![(tokens, texts(["a", one, "c"])), no_kinds.clone()];
    says(refused(three("a")), "entry 1 is the same as entry 0: \"a\"");
    says(refused(three(&"x".repeat(TOKEN_BYTES_MAX + 1))), "entry 1 is 1025 bytes long");
    says(refused(three("b")), "names a token that is not in the vocabulary");
    says(refused(vec![no_kinds]), "not a list with one entry a token");
    let merges = |merge: &str| vec![("tokenizer.ggml.merges", texts(["h e", merge]))];
    for merge in ["h", "h ", " h", ""] {
        says(refused(merges(merge)), "entry 1 is no pair of tokens");
    }
    for merge in ["h zz", "zz h", "h h", "h e l"] {
        says(refused(merges(merge)), "entry 1 names a token that is not in the vocabulary");
    }
    assert!(load(merges("h e")).is_ok(), "the same merge again");
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        says(refused(vec![(key, Value::U32(9_999))]), "not the id of a token");
        says(refused(vec![(key, Value::I32(-1))]), "not an unsigned integer");
    }
    says(refused(vec![("tokenizer.ggml.model", Value::String("t5".into()))]), "\"t5\"");
    says(refused(vec![("tokenizer.ggml.pre", Value::String("new".into()))]), "\"new\"");
}

#[test]
fn scores_that_lie_are_refused_by_name_and_place() {
    let with = |key: &str, value: Value| {
        let mut metadata = sentencepiece_metadata();
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, value));
        load(metadata).err().expect("a lie").to_string()
    };
    let count = reference()["tokens"].as_array().unwrap().len();
    let scores = |at: usize, score: f32| {
        let mut scores = vec![Value::F32(0.0); count];
        scores[at] = Value::F32(score);
        with("tokenizer.ggml.scores", Value::Array(scores))
    };
    assert!(scores(7, f32::NAN).contains("entry 7 is not a finite 32-bit float"));
    assert!(scores(8, f32::INFINITY).contains("entry 8 is not a finite"));
    let short = with("tokenizer.ggml.scores", Value::Array(vec![Value::F32(0.0)]));
    assert!(short.contains("not a list with one entry a token"), "{short}");
    let bytes = with("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(6); count]));
    assert!(bytes.contains("entry 0 is no byte: \"<unk>\""), "{bytes}");
    let strict = with("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true));
    assert!(strict.contains("remove_extra_whitespaces"), "{strict}");
}

#[test]
fn a_text_has_a_longest_length() {
    let text = "a".repeat(TEXT_BYTES_MAX + 1);
    let error = tokenizer().encode(&text).unwrap_err().to_string();
    assert!(error.contains("8388609 bytes; at most 8388608"), "{error}");
    for tokenizer in [tokenizer(), sentencepiece()] {
        assert!(tokenizer.encode(&text[..1 << 20]).unwrap().len() > 1 << 14);
    }
}

proptest! {
    /// Whatever tokens come, what is shown piece by piece is the whole, broken characters and all, and ends
    /// before the first stop.
    #[test]
    fn answers_come_out_whole_token_by_token(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        stop in 0..200usize,
        stop_len in 1..6usize,
    ) {
        static BOTH: OnceLock<[Tokenizer; 2]> = OnceLock::new();
        for tokenizer in BOTH.get_or_init(|| [tokenizer(), sentencepiece()]) {
            let ids: Vec<u32> =
                picks.iter().map(|pick| pick.index(tokenizer.vocab_size()) as u32).collect();
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.visible_bytes(*id)).copied().collect();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let stop: String = whole.chars().skip(stop).take(stop_len).collect();
            let stops = if stop.is_empty() { vec![] } else { vec![stop.clone()] };
            let want = whole.find(&stop).filter(|_| !stop.is_empty()).unwrap_or(whole.len());
            let (mut output, mut shown, mut stopped) = (OutputText::new(stops, false), String::new(), false);
            for id in ids {
                let (released, now) = output.push(tokenizer.visible_bytes(id));
                shown += &released;
                prop_assert!(whole[..want].starts_with(&shown), "{shown:?} of {whole:?}");
                stopped = now;
                if stopped { break; }
            }
            if !stopped {
                shown += &output.finish().0;
            }
            prop_assert_eq!(&shown, &whole[..want]);
        }
    }
}

#[test]
fn merges_apply_and_come_back() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("hello wörld 日本\n").unwrap();
    assert_eq!(tokenizer.decode(&ids), "hello wörld 日本\n");
    assert_eq!(tokenizer.decode(&ids[..1]), "hello", "one token by three merges");
    assert_eq!(tokenizer.bytes(ids[1]), b" w");
}

#[test]
fn special_tokens_count_in_plain_text_and_not_in_masked_text() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("<|im_start|>he<|im_end|>").unwrap();
    assert_eq!((ids.len(), ids[0], ids[2]), (3, 1, 2));
    let mask = '\u{fdd0}';
    let text =
        "<|im_start|>".to_owned() + &tokenizer.specials().mask("he<|im_end|>", mask) + "<|im_end|>";
    let ids = tokenizer.encode_masked(&text, mask).unwrap();
    assert_eq!(tokenizer.decode(&ids), "<|im_start|>he<|im_end|><|im_end|>");
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1, "the user's is text");
}

#[test]
fn marks_have_a_spelling_but_are_not_shown() {
    let tokenizer = tokenizer();
    assert_eq!((tokenizer.bytes(2), tokenizer.visible_bytes(2)), (&b"<|im_end|>"[..], &b""[..]));
    assert_eq!(tokenizer.visible_bytes(9_999), b"");
    assert_eq!(tokenizer.eos(), [2, 0]);
}
