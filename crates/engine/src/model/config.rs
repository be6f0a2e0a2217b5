//! What distinguishes one model from another, read from GGUF metadata.
//!
//! Each field is a switch of the one decoder. A file that sets something the decoder does not implement, or
//! that its architecture does not have, is refused here, with the name of what it sets.

use super::family::{Family, SUPPORTED, Windows};
pub use super::family::{NormPlacement, QkNorm};
use super::metadata::{Metadata, SIZE_MAX};
use super::rope::Rotation;
use crate::error::ModelFileError;
use crate::gguf::{GgufError, GgufFile, Value};

use inferno_kernels::cpu::{Activation, HEAD_DIM_MAX, Rope};

/// Keys under the architecture's name that change the computation. Where the architecture does not read them
/// they must have their neutral value: 0, 1.0 or false.
const SWITCHES: [&str; 22] = [
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.temperature_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "rope.freq_base_swa",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.yarn_ext_factor",
    "expert_count",
    "expert_shared_count",
    "expert_weights_scale",
    "expert_gating_func",
    "expert_group_count",
    "leading_dense_block_count",
    "interleave_moe_layer_step",
    "use_parallel_residual",
];

/// The switches of the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The file's architecture.
    pub architecture: String,
    /// What differs from layer to layer.
    pub layers: Vec<LayerConfig>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head; need not be `hidden / heads`. A multiple of 16, at most 256.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Tokens the model was trained for.
    pub context_length: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Where the norms of a block stand.
    pub norms: NormPlacement,
    /// The norm of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether queries, keys and values must have a bias. Elsewhere they have one if the file has.
    pub qkv_bias: bool,
    /// The ways in which layers rotate; most models have one.
    pub ropes: Vec<Rope>,
    /// What scores are multiplied with.
    pub attention_scale: f32,
    /// Bends scores so that none is larger.
    pub attention_softcap: Option<f32>,
    /// Bends logits so that none is larger.
    pub logit_softcap: Option<f32>,
    /// What embeddings are multiplied with.
    pub embedding_scale: f32,
    /// What a block's output is multiplied with before it is added to the residual.
    pub residual_scale: f32,
    /// What logits are multiplied with.
    pub logit_scale: f32,
    /// What the gate of the feed-forward block goes through.
    pub activation: Activation,
    /// The feed-forward block as a mixture of experts.
    pub experts: Option<Experts>,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// How it rotates queries and keys, an index into [`DecoderConfig::ropes`]; not at all where `None`.
    pub rope: Option<usize>,
    /// Keys that a token sees, its own the last; all before where `None`.
    pub window: Option<usize>,
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token goes through.
    pub used: usize,
    /// Width of each.
    pub feed_forward: usize,
    /// Width of the one that every token goes through, where there is one.
    pub shared: Option<usize>,
    /// Whether the weights of the chosen ones are made to sum to 1.
    pub normalised: bool,
}

impl DecoderConfig {
    /// Reads the configuration of a model file.
    ///
    /// # Errors
    /// When keys are missing or wrong, or the model is not of a supported kind.
    pub fn load(file: &mut GgufFile) -> Result<Self, ModelFileError> {
        let architecture = file.text("general.architecture")?.unwrap_or_default().to_owned();
        let Some(family) = Family::of(&architecture) else {
            let what = format!("the architecture {architecture:?}");
            return Err(ModelFileError::unsupported(what, SUPPORTED));
        };
        let mut data = Metadata::new(file, &architecture);
        refuse_unread_switches(&data, &family)?;
        let hidden = data.size("embedding_length")?;
        let heads = data.size("attention.head_count")?;
        let kv_heads = data.integer("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = data.integer("attention.key_length")?.unwrap_or(hidden / heads);
        check_heads(&data, heads, kv_heads, head_dim)?;
        let layers = data.size("block_count")?;
        let norm_eps = "attention.layer_norm_rms_epsilon";
        let experts = experts(&data, &family)?;
        let (layers, ropes) = layer_configs(&mut data, &family, layers, head_dim)?;
        let one_or = |scale: Option<f32>| scale.unwrap_or(1.0);
        Ok(Self {
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: data.size("feed_forward_length")?,
            context_length: data.file.count(&data.key("context_length"))?,
            norm_eps: data
                .float(norm_eps)?
                .ok_or_else(|| GgufError::MissingKey(data.key(norm_eps)))?,
            norms: family.norms,
            qk_norm: family.qk_norm,
            qkv_bias: family.qkv_bias,
            attention_scale: attention_scale(
                &data,
                &family,
                layers.len(),
                (hidden, heads, head_dim),
            )?,
            attention_softcap: data.positive("attn_logit_softcapping")?,
            logit_softcap: data.positive("final_logit_softcapping")?,
            embedding_scale: match family.is_gemma() {
                true => (hidden as f32).sqrt(),
                false => one_or(data.positive("embedding_scale")?),
            },
            residual_scale: one_or(data.positive("residual_scale")?),
            logit_scale: 1.0 / one_or(data.positive("logit_scale")?),
            activation: family.activation,
            layers,
            ropes,
            experts,
            architecture,
        })
    }

    /// Width of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the queries.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

fn refuse_unread_switches(data: &Metadata<'_>, family: &Family) -> Result<(), ModelFileError> {
    let reads_windows = family.windows != Windows::None;
    let read = |name: &str| match name {
        "attention.sliding_window" | "attention.sliding_window_pattern" | "rope.freq_base_swa" => {
            reads_windows
        }
        "expert_count" => family.experts.is_some(),
        name => family.reads.contains(&name),
    };
    for name in SWITCHES {
        let neutral = match data.get(name) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::F32(x)) => x == 0.0 || x == 1.0,
            Some(value) => value.to_u64().is_ok_and(|n| n == 0),
        };
        if !neutral && !read(name) {
            return Err(ModelFileError::unsupported(
                format!("the setting {}", data.key(name)),
                "models without it",
            ));
        }
    }
    Ok(())
}

fn check_heads(
    data: &Metadata<'_>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) -> Result<(), ModelFileError> {
    let refuse = |what: String, supported| Err(ModelFileError::unsupported(what, supported));
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return refuse(format!("{heads} query heads on {kv_heads} key heads"), "whole groups");
    }
    if head_dim == 0 || !head_dim.is_multiple_of(16) || head_dim > HEAD_DIM_MAX {
        return refuse(format!("a head of {head_dim} elements"), "multiples of 16 up to 256");
    }
    if heads.saturating_mul(head_dim) > SIZE_MAX {
        let what = format!("{heads} heads of {head_dim} elements");
        return refuse(what, "1048576 elements over all heads");
    }
    if data.integer("attention.value_length")?.is_some_and(|length| length != head_dim) {
        return refuse("values of another length than keys".into(), "equal lengths");
    }
    Ok(())
}

/// The inverse of the square root of a head's width, but where the file says otherwise, and in the largest
/// models of Gemma 2 and 3, whose heads are wider or narrower than their share of the residual stream.
fn attention_scale(
    data: &Metadata<'_>,
    family: &Family,
    layers: usize,
    (hidden, heads, head_dim): (usize, usize, usize),
) -> Result<f32, ModelFileError> {
    let largest = matches!((family.name, layers), ("gemma2", 46) | ("gemma3", 62));
    let width = if largest { hidden / heads } else { head_dim };
    Ok(data.positive("attention.scale")?.unwrap_or(1.0 / (width as f32).sqrt()))
}

/// Which layers have a window and how each rotates, and the ways of rotation.
fn layer_configs(
    data: &mut Metadata<'_>,
    family: &Family,
    layers: usize,
    head_dim: usize,
) -> Result<(Vec<LayerConfig>, Vec<Rope>), ModelFileError> {
    let rotation = Rotation::read(data, head_dim)?;
    let windows = windows(data, family, layers)?;
    // A rotation of their own for layers with a window; OLMo's is the common one without its scaling.
    let base = data.positive("rope.freq_base_swa")?.or(family.window_theta);
    let base = match (family.windows, base) {
        (Windows::Periodic { .. }, None) if family.norms == NormPlacement::Post => {
            Some(data.float("rope.freq_base")?.unwrap_or(10_000.0))
        }
        (_, base) => base,
    };
    let mut ropes = vec![rotation.rope(family)];
    if let (Some(base), true) = (base, windows.iter().any(Option::is_some)) {
        ropes.push(rotation.of_windows(base)?.rope(family));
    }
    let finetuned = data.file.flag(&data.key("rope.scaling.finetuned"))?;
    // Granite's way of saying that a model does not rotate at all.
    let rotates = family.name != "granite" || finetuned != Some(false);
    let layers = windows.into_iter().enumerate().map(|(number, window)| {
        let rests = family.no_rope_period.is_some_and(|period| (number + 1).is_multiple_of(period));
        let rope = if window.is_some() { ropes.len() - 1 } else { 0 };
        LayerConfig { rope: (rotates && !rests).then_some(rope), window }
    });
    let layers = layers.collect();
    Ok((layers, ropes))
}

/// The window of each layer.
fn windows(
    data: &Metadata<'_>,
    family: &Family,
    layers: usize,
) -> Result<Vec<Option<usize>>, ModelFileError> {
    let stated = data.integer("attention.sliding_window")?.filter(|window| *window > 0);
    let (window, period) = match family.windows {
        Windows::None => (None, 0),
        Windows::All => (stated, 0),
        Windows::Periodic { period, default } => (stated.or(default), period),
    };
    let pattern = "attention.sliding_window_pattern";
    let has_window: Vec<bool> = match data.get(pattern) {
        Some(Value::List(flags)) => {
            let flags: Vec<bool> = flags.iter().filter_map(|flag| flag.to_bool().ok()).collect();
            if flags.len() < layers {
                return Err(data.file.wrong(&data.key(pattern), "a flag a layer").into());
            }
            flags
        }
        Some(_) => periodic(layers, data.integer(pattern)?.unwrap_or(0)),
        None => periodic(layers, period),
    };
    Ok((0..layers).map(|layer| window.filter(|_| has_window[layer])).collect())
}

/// All layers but every `period`-th; all where that is 0.
fn periodic(layers: usize, period: usize) -> Vec<bool> {
    (1..=layers).map(|number| period == 0 || !number.is_multiple_of(period)).collect()
}

fn experts(data: &Metadata<'_>, family: &Family) -> Result<Option<Experts>, ModelFileError> {
    let count = data.integer("expert_count")?.unwrap_or(0);
    let Some(rule) = family.experts.filter(|rule| count > 0 || !rule.optional) else {
        return Ok(None);
    };
    let count = if count == 0 { data.size("expert_count")? } else { count };
    let used = data.size("expert_used_count")?;
    if used > count || count > SIZE_MAX {
        return Err(ModelFileError::unsupported(
            format!("{used} of {count} experts"),
            "at most as many as there are, and those at most 1048576",
        ));
    }
    let wide = data.size("feed_forward_length")?;
    let feed_forward = match data.get("expert_feed_forward_length") {
        Some(_) => data.size("expert_feed_forward_length")?,
        None if rule.optional => wide,
        None => wide / used,
    };
    let shared = match data.get("expert_shared_feed_forward_length") {
        Some(_) if rule.shared => Some(data.size("expert_shared_feed_forward_length")?),
        None if rule.shared => Some(wide),
        _ => None,
    };
    Ok(Some(Experts { count, used, feed_forward, shared, normalised: rule.normalised }))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
