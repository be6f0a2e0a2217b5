//! Metadata that is read, and metadata that is refused.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::TinyModel;
use candle_core::quantized::gguf_file::Value;

fn config(metadata: &[(&str, Value)]) -> Result<DecoderConfig, ModelFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    TinyModel { metadata: metadata.collect(), ..TinyModel::default() }.write(&path).unwrap();
    DecoderConfig::load(&mut GgufFile::open(&path).unwrap().unwrap())
}

/// The scale of a file that says this much about it.
fn scale(kind: Option<&str>, factor: Option<f32>, old: Option<f32>) -> f64 {
    let kind = kind.map(|kind| ("llama.rope.scaling.type", Value::String(kind.into())));
    let factor = factor.map(|factor| ("llama.rope.scaling.factor", Value::F32(factor)));
    let old = old.map(|factor| ("llama.rope.scale_linear", Value::F32(factor)));
    let metadata: Vec<_> = [kind, factor, old].into_iter().flatten().collect();
    1.0 / config(&metadata).unwrap().ropes[0].frequencies[0]
}

#[test]
fn rope_is_scaled_as_llama_cpp_reads_the_file() {
    assert_eq!(scale(None, None, None), 1.0);
    assert_eq!(scale(None, Some(4.0), None), 4.0, "linear is the default");
    assert_eq!(scale(Some("linear"), Some(4.0), Some(2.0)), 4.0, "the new key goes first");
    assert_eq!(scale(None, None, Some(2.0)), 2.0);
    assert_eq!(scale(None, Some(0.0), Some(2.0)), 1.0, "0 means none");
    assert_eq!(scale(Some("none"), Some(4.0), Some(2.0)), 1.0);
    let other = config(&[("llama.rope.scaling.type", Value::String("dynamic".into()))]);
    assert!(matches!(other, Err(ModelFileError::Unsupported { .. })));
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_computed_with_them() {
    let named = [
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
    ];
    for name in named {
        for size in [0, 1 << 21, 1 << 63, u64::MAX - 15] {
            let key = format!("llama.{name}");
            let refused = config(&[(key.as_str(), Value::U64(size))]);
            assert!(refused.is_err(), "{key} = {size}");
        }
    }
}

#[test]
fn settings_that_the_architecture_does_not_have_are_refused_by_name() {
    for (name, value) in [
        ("attention.sliding_window", Value::U32(4096)),
        ("attention.scale", Value::F32(0.5)),
        ("attn_logit_softcapping", Value::F32(50.0)),
        ("logit_scale", Value::F32(8.0)),
        ("attention.clamp_kqv", Value::F32(8.0)),
        ("use_parallel_residual", Value::Bool(true)),
        ("expert_gating_func", Value::U32(2)),
    ] {
        let key = format!("llama.{name}");
        let refused = config(&[(key.as_str(), value)]).unwrap_err().to_string();
        assert!(refused.contains(&key), "{refused}");
    }
    let neutral = [("llama.logit_scale", Value::F32(1.0)), ("llama.expert_count", Value::U32(0))];
    assert!(config(&neutral).is_ok());
}

#[test]
fn every_architecture_has_one_row() {
    for name in [
        "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "granite",
        "olmo2", "smollm3",
    ] {
        assert_eq!(Family::of(name).unwrap().name, name);
        assert!(SUPPORTED.contains(name));
    }
    assert!(Family::of("bert").is_none());
}

#[test]
fn windows_come_in_periods_or_as_stated() {
    assert_eq!(periodic(6, 6), [true, true, true, true, true, false]);
    assert_eq!(periodic(4, 2), [true, false, true, false]);
    assert_eq!(periodic(2, 0), [true, true]);
}

#[test]
fn every_fourth_layer_of_smollm_3_does_not_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let metadata = vec![("smollm3.block_count".to_owned(), Value::U32(8))];
    TinyModel { architecture: "smollm3".into(), metadata, ..TinyModel::default() }
        .write(&path)
        .unwrap();
    let config = DecoderConfig::load(&mut GgufFile::open(&path).unwrap().unwrap()).unwrap();
    let turns: Vec<bool> = config.layers.iter().map(|layer| layer.rope.is_some()).collect();
    assert_eq!(turns, [true, true, true, false, true, true, true, false]);
}
