//! An encoder's switches, from `config.json` and the files that sentence-transformers puts beside it.

use super::error::EncoderError;
use super::folder::Folder;
use serde::Deserialize;
use std::path::Path;

/// How a text's vector is made of its tokens'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
}

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Number of layers.
    pub layers: usize,
    /// Width of a token's state, and of the embedding.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width between the two products of the feed-forward block.
    pub feed_forward: usize,
    /// Added to variances.
    pub eps: f32,
    /// Token ids.
    pub vocab: usize,
    /// Positions there are embeddings for.
    pub positions: usize,
    /// Kinds of segments; every token here is of the first.
    pub kinds: usize,
    /// Tokens of a text that the model looks at, at most `positions`.
    pub tokens_max: usize,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1.
    pub normalize: bool,
}

/// As much of `config.json` as changes the computation.
#[derive(Deserialize)]
struct BertConfig {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    #[serde(default)]
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// One line of `modules.json`: what follows on what.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct PromptConfig {
    #[serde(default)]
    default_prompt_name: Option<String>,
}

/// What is done with the tokens' states.
struct Head {
    pooling: Pooling,
    normalize: bool,
}

impl EncoderConfig {
    /// Reads the switches of a directory. Without `modules.json` the pooling is that of `1_Pooling`, else the mean,
    /// and vectors are normalised.
    ///
    /// # Errors
    /// When a file is unreadable, or asks for something that is not implemented.
    pub(super) fn load(folder: &Folder<'_>) -> Result<Self, EncoderError> {
        let bert: BertConfig = folder.json("config.json")?;
        check(&folder.path("config.json"), &bert)?;
        let head = head(folder)?;
        let sentence: SentenceConfig =
            folder.json_if_there("sentence_bert_config.json")?.unwrap_or_default();
        let unsupported = |name: &str, what: &str, supported| {
            Err(EncoderError::unsupported(&folder.path(name), what, supported))
        };
        if sentence.do_lower_case {
            return unsupported(
                "sentence_bert_config.json",
                "do_lower_case",
                "lower case by tokenizer.json",
            );
        }
        let prompts: PromptConfig =
            folder.json_if_there("config_sentence_transformers.json")?.unwrap_or_default();
        if prompts.default_prompt_name.is_some() {
            let name = "config_sentence_transformers.json";
            return unsupported(name, "a default prompt", "texts without one");
        }
        let positions = bert.max_position_embeddings;
        Ok(Self {
            layers: bert.num_hidden_layers,
            hidden: bert.hidden_size,
            heads: bert.num_attention_heads,
            feed_forward: bert.intermediate_size,
            eps: bert.layer_norm_eps,
            vocab: bert.vocab_size,
            positions,
            kinds: bert.type_vocab_size,
            tokens_max: sentence.max_seq_length.unwrap_or(positions).clamp(1, positions),
            pooling: head.pooling,
            normalize: head.normalize,
        })
    }
}

fn check(path: &Path, bert: &BertConfig) -> Result<(), EncoderError> {
    let unsupported =
        |what: String, supported| Err(EncoderError::unsupported(path, what, supported));
    if bert.model_type != "bert" {
        return unsupported(format!("model_type {:?}", bert.model_type), "\"bert\"");
    }
    if bert.hidden_act != "gelu" {
        return unsupported(format!("hidden_act {:?}", bert.hidden_act), "\"gelu\"");
    }
    if let Some(kind) = bert.position_embedding_type.as_ref().filter(|kind| *kind != "absolute") {
        return unsupported(format!("position_embedding_type {kind:?}"), "\"absolute\"");
    }
    if bert.is_decoder {
        return unsupported("is_decoder".into(), "encoders");
    }
    for (name, count) in [
        ("hidden_size", bert.hidden_size),
        ("num_hidden_layers", bert.num_hidden_layers),
        ("num_attention_heads", bert.num_attention_heads),
        ("intermediate_size", bert.intermediate_size),
        ("vocab_size", bert.vocab_size),
        ("max_position_embeddings", bert.max_position_embeddings),
        ("type_vocab_size", bert.type_vocab_size),
    ] {
        // Larger than any model, and small enough for no product of two to overflow.
        if !(1..=1 << 24).contains(&count) {
            return unsupported(format!("{name} {count}"), "1 to 16777216");
        }
    }
    if !bert.hidden_size.is_multiple_of(bert.num_attention_heads) {
        let what =
            format!("hidden_size {} over {} heads", bert.hidden_size, bert.num_attention_heads);
        return unsupported(what, "heads that divide it");
    }
    if !(bert.layer_norm_eps > 0.0 && bert.layer_norm_eps < 1.0) {
        return unsupported(format!("layer_norm_eps {}", bert.layer_norm_eps), "above 0, below 1");
    }
    Ok(())
}

/// Pooling and normalisation, by `modules.json` where there is one.
fn head(folder: &Folder<'_>) -> Result<Head, EncoderError> {
    const NAME: &str = "modules.json";
    const SUPPORTED: &str =
        "Transformer in the directory itself, then Pooling, then perhaps Normalize";
    let Some(modules) = folder.json_if_there::<Vec<Module>>(NAME)? else {
        return Ok(Head { pooling: pooling(folder)?, normalize: true });
    };
    // The class's own name: packages have moved it about.
    let names: Vec<&str> =
        modules.iter().map(|module| module.kind.rsplit('.').next().unwrap_or_default()).collect();
    let normalize = match names[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            let what = format!("the sequence {names:?}");
            return Err(EncoderError::unsupported(&folder.path(NAME), what, SUPPORTED));
        }
    };
    if !modules[0].path.is_empty() {
        let what = format!("a Transformer in {:?}", modules[0].path);
        return Err(EncoderError::unsupported(&folder.path(NAME), what, SUPPORTED));
    }
    if modules[1].path != POOLING {
        let what = format!("a Pooling in {:?}", modules[1].path);
        return Err(EncoderError::unsupported(&folder.path(NAME), what, POOLING));
    }
    Ok(Head { pooling: pooling(folder)?, normalize })
}

/// The folder of the pooling's configuration: the one that sentence-transformers writes.
const POOLING: &str = "1_Pooling";

/// The one `pooling_mode_…` that is on in the pooling's configuration; the mean without one.
fn pooling(folder: &Folder<'_>) -> Result<Pooling, EncoderError> {
    let name = format!("{POOLING}/config.json");
    let Some(flags) = folder.json_if_there::<serde_json::Map<String, serde_json::Value>>(&name)?
    else {
        return Ok(Pooling::Mean);
    };
    let modes = flags.iter().filter(|(key, on)| key.starts_with("pooling_mode_") && **on == true);
    let modes: Vec<&str> = modes.map(|(key, _)| key.as_str()).collect();
    match modes[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        _ => Err(EncoderError::unsupported(
            &folder.path(&name),
            format!("pooling by {modes:?}"),
            "pooling_mode_mean_tokens or pooling_mode_cls_token",
        )),
    }
}
