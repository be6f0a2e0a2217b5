//! What distinguishes one Llama-family model from another, read from GGUF metadata.
//!
//! Each field is a switch of the one decoder. A file that sets something the decoder does not implement is
//! refused here, with the name of what it sets.

use crate::error::LoadError;
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
    pub fn load(file: &mut GgufFile) -> Result<Self, ConfigError> {
        let architecture = file.text("general.architecture")?.unwrap_or_default().to_owned();
        if architecture != "llama" {
            return Err(unsupported(format!("the architecture {architecture:?}"), SUPPORTED));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        refuse_unknown_switches(file, &key)?;
        let hidden = file.count(&key("embedding_length"))?;
        let heads = file.count(&key("attention.head_count"))?;
        let kv_heads = file.integer(&key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = file.integer(&key("attention.key_length"))?.unwrap_or(hidden / heads);
        check_heads(file, heads, kv_heads, head_dim, &key)?;
        let norm_eps = key("attention.layer_norm_rms_epsilon");
        Ok(Self {
            layers: file.count(&key("block_count"))?,
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: file.count(&key("feed_forward_length"))?,
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

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The metadata is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A model or switch that is not implemented.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What would be accepted.
        supported: &'static str,
    },
}

impl ConfigError {
    /// As the error of loading the model at `path`.
    pub(crate) fn at(self, path: &std::path::Path) -> LoadError {
        match self {
            Self::Gguf(source) => LoadError::Gguf { path: path.to_owned(), source },
            Self::Unsupported { what, supported } => LoadError::Unsupported { what, supported },
        }
    }
}

pub(super) fn unsupported(what: String, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported { what, supported }
}

fn refuse_unknown_switches(
    file: &GgufFile,
    key: &dyn Fn(&str) -> String,
) -> Result<(), ConfigError> {
    for name in REFUSED {
        let neutral = match file.get(&key(name)) {
            None => true,
            Some(value) => {
                value.to_u64().is_ok_and(|n| n == 0) || value.to_f32().is_ok_and(|x| x == 1.0)
            }
        };
        if !neutral {
            return Err(unsupported(format!("the setting {}", key(name)), "models without it"));
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
) -> Result<(), ConfigError> {
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(unsupported(
            format!("{heads} query heads on {kv_heads} key heads"),
            "whole groups",
        ));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(16) {
        return Err(unsupported(format!("a head of {head_dim} elements"), "multiples of 16"));
    }
    if file.integer(&key("attention.value_length"))?.is_some_and(|length| length != head_dim) {
        return Err(unsupported("values of another length than keys".into(), "equal lengths"));
    }
    Ok(())
}

/// `θ^(−2i/d)` for each pair `i`, divided by linear scaling and by the factors of Llama 3.1's tensor
/// `rope_freqs.weight`, which carries that model's scaling.
fn rope_frequencies(
    file: &mut GgufFile,
    head_dim: usize,
    key: &dyn Fn(&str) -> String,
) -> Result<Vec<f64>, ConfigError> {
    let width = file.integer(&key("rope.dimension_count"))?.unwrap_or(head_dim);
    if width == 0 || width % 2 == 1 || width > head_dim {
        return Err(unsupported(
            format!("rotating {width} of {head_dim} elements"),
            "an even part",
        ));
    }
    let base = file.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let scale = match file.text(&key("rope.scaling.type"))? {
        None | Some("none") => 1.0,
        Some("linear") => file.float(&key("rope.scaling.factor"))?.unwrap_or(1.0),
        Some(other) => {
            return Err(unsupported(format!("{other:?} rope scaling"), "none, linear, llama3"));
        }
    };
    if base <= 1.0 || scale <= 0.0 {
        return Err(unsupported(
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
