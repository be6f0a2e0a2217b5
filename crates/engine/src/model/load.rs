//! A decoder from the tensors of a GGUF file.

use super::config::DecoderConfig;
use super::decoder::{Decoder, Layer};
use crate::error::ModelFileError;
use crate::gguf::{GgufError, GgufFile};

impl Decoder {
    /// Takes the weights of a model file, in place.
    ///
    /// # Errors
    /// When tensors are missing or of the wrong shape, or the file has some that this decoder would leave
    /// out of the computation.
    pub fn load(file: &mut GgufFile) -> Result<Self, ModelFileError> {
        let config = DecoderConfig::load(file)?;
        let embedding = file.tall_weight("token_embd.weight", config.hidden)?;
        if embedding.rows() == 0 {
            return Err(ModelFileError::unsupported(
                "an empty vocabulary".into(),
                "at least one token",
            ));
        }
        let output = match file.has("output.weight") {
            true => file.weight("output.weight", embedding.rows(), config.hidden)?,
            false => embedding.clone(),
        };
        let layers: Result<_, _> = (0..config.layers).map(|n| layer(file, &config, n)).collect();
        let decoder = Self {
            layers: layers?,
            output_norm: file.vector("output_norm.weight", config.hidden)?,
            output: [output],
            embedding,
            config,
        };
        match file.unused().first() {
            Some(name) => Err(ModelFileError::unsupported(
                format!("the tensor {name}"),
                "the tensors of plain Llama",
            )),
            None => Ok(decoder),
        }
    }
}

fn layer(file: &mut GgufFile, config: &DecoderConfig, number: usize) -> Result<Layer, GgufError> {
    let name = |part: &str| format!("blk.{number}.{part}.weight");
    let (hidden, wide) = (config.hidden, config.feed_forward);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    Ok(Layer {
        attention_norm: file.vector(&name("attn_norm"), hidden)?,
        qkv: [
            file.weight(&name("attn_q"), queries, hidden)?,
            file.weight(&name("attn_k"), keys, hidden)?,
            file.weight(&name("attn_v"), keys, hidden)?,
        ],
        attention_output: [file.weight(&name("attn_output"), hidden, queries)?],
        feed_forward_norm: file.vector(&name("ffn_norm"), hidden)?,
        gate_up: [
            file.weight(&name("ffn_gate"), wide, hidden)?,
            file.weight(&name("ffn_up"), wide, hidden)?,
        ],
        down: [file.weight(&name("ffn_down"), hidden, wide)?],
    })
}
