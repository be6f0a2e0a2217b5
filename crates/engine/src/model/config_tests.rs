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
    let yarn = config(&[("llama.rope.scaling.type", Value::String("yarn".into()))]);
    assert!(matches!(yarn, Err(ModelFileError::Unsupported { .. })));
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
