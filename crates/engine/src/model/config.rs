//! What distinguishes one Llama-family model from another, read from GGUF metadata.
//!
//! Each field is a switch of the one decoder. A file that sets something the decoder does not implement is
//! refused here, with the name of what it sets.

use crate::error::ModelFileError;
use crate::gguf::{GgufError, GgufFile};
use inferno_kernels::cpu::RopeLayout;
use inferno_kernels::math;

/// Architectures (`general.architecture`) with a row in this file.
const SUPPORTED: &str =
    "llama (Llama 2 and 3, Mistral, SmolLM 2, TinyLlama, DeepSeek distills of Llama)";

/// Keys under the architecture's name that change the computation in ways not implemented, unless they have
/// their neutral value.
const REFUSED: [&str; 5] = [
    "expert_count",
    "attention.sliding_window",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
];

/// Most layers, heads, or elements of a row: far above any model, and low enough that no product of three
/// overflows.
const SIZE_MAX: usize = 1 << 20;

/// The switches of the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The file's architecture.
    pub architecture: String,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head; need not be `hidden / heads`. A multiple of 16.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Tokens the model was trained for.
    pub context_length: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Which elements of a head a rotation pairs.
    pub rope_layout: RopeLayout,
    /// Radians per position of each pair of elements; `2 ·` their number may be less than `head_dim`.
    pub rope_frequencies: Vec<f64>,
}

impl DecoderConfig {
    /// Reads the configuration of a model file.
    ///
    /// # Errors
    /// When keys are missing or wrong, or the model is not of a supported kind.
    pub fn load(file: &mut GgufFile) -> Result<Self, ModelFileError> {
        let architecture = file.text("general.architecture")?.unwrap_or_default().to_owned();
        if architecture != "llama" {
            return Err(ModelFileError::unsupported(
                format!("the architecture {architecture:?}"),
                SUPPORTED,
            ));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        refuse_unknown_switches(file, &key)?;
        let hidden = size(file, &key("embedding_length"))?;
        let heads = size(file, &key("attention.head_count"))?;
        let kv_heads = file.integer(&key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = file.integer(&key("attention.key_length"))?.unwrap_or(hidden / heads);
        check_heads(file, heads, kv_heads, head_dim, &key)?;
        let norm_eps = key("attention.layer_norm_rms_epsilon");
        Ok(Self {
            layers: size(file, &key("block_count"))?,
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: size(file, &key("feed_forward_length"))?,
            context_length: file.count(&key("context_length"))?,
            norm_eps: file.float(&norm_eps)?.ok_or(GgufError::MissingKey(norm_eps))?,
            rope_layout: RopeLayout::Interleaved,
            rope_frequencies: rope_frequencies(file, head_dim, &key)?,
            architecture,
        })
    }

    /// Width of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// A count of at most [`SIZE_MAX`].
fn size(file: &GgufFile, key: &str) -> Result<usize, ModelFileError> {
    match file.count(key)? {
        n if n > SIZE_MAX => {
            Err(ModelFileError::unsupported(format!("{key} of {n}"), "at most 1048576"))
        }
        n => Ok(n),
    }
}

fn refuse_unknown_switches(
    file: &GgufFile,
    key: &dyn Fn(&str) -> String,
) -> Result<(), ModelFileError> {
    for name in REFUSED {
        let neutral = match file.get(&key(name)) {
            None => true,
            Some(value) => {
                value.to_u64().is_ok_and(|n| n == 0) || value.to_f32().is_ok_and(|x| x == 1.0)
            }
        };
        if !neutral {
            return Err(ModelFileError::unsupported(
                format!("the setting {}", key(name)),
                "models without it",
            ));
        }
    }
    Ok(())
}

fn check_heads(
    file: &GgufFile,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    key: &dyn Fn(&str) -> String,
) -> Result<(), ModelFileError> {
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(ModelFileError::unsupported(
            format!("{heads} query heads on {kv_heads} key heads"),
            "whole groups",
        ));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(16) {
        return Err(ModelFileError::unsupported(
            format!("a head of {head_dim} elements"),
            "multiples of 16",
        ));
    }
    if heads.saturating_mul(head_dim) > SIZE_MAX {
        let what = format!("{heads} heads of {head_dim} elements");
        return Err(ModelFileError::unsupported(what, "1048576 elements over all heads"));
    }
    if file.integer(&key("attention.value_length"))?.is_some_and(|length| length != head_dim) {
        return Err(ModelFileError::unsupported(
            "values of another length than keys".into(),
            "equal lengths",
        ));
    }
    Ok(())
}

/// What linear scaling divides positions by. As in llama.cpp, a file that gives a factor and no type means
/// linear, older files have another key, and a factor of 0 is none.
fn linear_scale(file: &GgufFile, key: &dyn Fn(&str) -> String) -> Result<f32, ModelFileError> {
    let factor = match file.float(&key("rope.scaling.factor"))? {
        None => file.float(&key("rope.scale_linear"))?,
        given => given,
    };
    match file.text(&key("rope.scaling.type"))? {
        None | Some("linear") => Ok(factor.filter(|factor| *factor != 0.0).unwrap_or(1.0)),
        Some("none") => Ok(1.0),
        Some(other) => Err(ModelFileError::unsupported(
            format!("{other:?} rope scaling"),
            "none, linear, llama3",
        )),
    }
}

/// `θ^(−2i/d)` for each pair `i`, divided by linear scaling and by the factors of Llama 3.1's tensor
/// `rope_freqs.weight`, which carries that model's scaling.
fn rope_frequencies(
    file: &mut GgufFile,
    head_dim: usize,
    key: &dyn Fn(&str) -> String,
) -> Result<Vec<f64>, ModelFileError> {
    let width = file.integer(&key("rope.dimension_count"))?.unwrap_or(head_dim);
    if width == 0 || width % 2 == 1 || width > head_dim {
        return Err(ModelFileError::unsupported(
            format!("rotating {width} of {head_dim} elements"),
            "an even part",
        ));
    }
    let base = file.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let scale = linear_scale(file, key)?;
    if base <= 1.0 || scale <= 0.0 {
        return Err(ModelFileError::unsupported(
            format!("a rope base of {base} scaled by {scale}"),
            "positive numbers",
        ));
    }
    let factors = match file.has("rope_freqs.weight") {
        true => file.vector("rope_freqs.weight", width / 2)?,
        false => vec![1.0; width / 2],
    };
    let log_base = math::ln(f64::from(base));
    let frequency = |(pair, factor): (usize, &f32)| {
        math::exp(-log_base * (2 * pair) as f64 / width as f64)
            / f64::from(scale)
            / f64::from(*factor)
    };
    Ok(factors.iter().enumerate().map(frequency).collect())
}

#[cfg(test)]
mod tests {
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
        1.0 / config(&metadata).unwrap().rope_frequencies[0]
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
}
