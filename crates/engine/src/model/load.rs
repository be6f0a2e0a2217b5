//! A decoder from the tensors of a GGUF file.

use super::attention::AttentionBlock;
use super::config::{DecoderConfig, Experts, QkNorm};
use super::decoder::{Decoder, Layer, Norms};
use super::feed_forward::{FeedForward, Gated};
use super::moe::Mixture;
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
        let layers: Result<_, _> = (0..config.layers.len())
            .map(|number| LayerLoader { file, config: &config, number }.layer())
            .collect();
        let mut output_norm = file.vector("output_norm.weight", config.hidden)?;
        output_norm.iter_mut().for_each(|weight| *weight *= config.logit_scale);
        let decoder = Self { layers: layers?, output_norm, output: [output], embedding, config };
        match file.unused().first() {
            Some(name) => Err(ModelFileError::unsupported(
                format!("the tensor {name} in a file of this architecture"),
                "the tensors of the decoder's switches",
            )),
            None => Ok(decoder),
        }
    }
}

/// Takes the tensors of one layer.
struct LayerLoader<'a> {
    file: &'a mut GgufFile,
    config: &'a DecoderConfig,
    number: usize,
}

impl LayerLoader<'_> {
    fn layer(mut self) -> Result<Layer, GgufError> {
        let (hidden, norms) = (self.config.hidden, self.config.norms);
        let mut norms = |pre: &str, post: &str| -> Result<Norms, GgufError> {
            Ok(Norms {
                pre: norms.has_pre().then(|| self.vector(pre, hidden)).transpose()?,
                post: norms.has_post().then(|| self.vector(post, hidden)).transpose()?,
            })
        };
        Ok(Layer {
            attention_norms: norms("attn_norm", "post_attention_norm")?,
            feed_forward_norms: norms("ffn_norm", "post_ffw_norm")?,
            attention: self.attention()?,
            feed_forward: match self.config.experts {
                None => FeedForward::Dense(self.dense()?),
                Some(experts) => FeedForward::Mixture(self.mixture(experts)?),
            },
        })
    }

    fn attention(&mut self) -> Result<AttentionBlock, GgufError> {
        let config = self.config;
        let (hidden, queries, keys) = (config.hidden, config.query_width(), config.key_width());
        let parts = [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)];
        let fused = [("attn_qkv", queries + 2 * keys)];
        let parts = if self.has("attn_qkv.weight") { &fused[..] } else { &parts[..] };
        let (query_norm, key_norm) = match config.qk_norm {
            QkNorm::None => (None, None),
            QkNorm::PerHead => (Some(config.head_dim), Some(config.head_dim)),
            QkNorm::FullWidth => (Some(queries), Some(keys)),
        };
        let biased = config.qkv_bias || self.has(&format!("{}.bias", parts[0].0));
        let qkv: Result<_, _> =
            parts.iter().map(|(part, rows)| self.weight(part, *rows, hidden)).collect();
        let mut bias = Vec::new();
        for (part, rows) in parts.iter().filter(|_| biased) {
            let name = format!("blk.{}.{part}.bias", self.number);
            bias.extend(self.file.vector(&name, *rows)?);
        }
        Ok(AttentionBlock {
            qkv: qkv?,
            bias: biased.then_some(bias),
            query_norm: query_norm.map(|len| self.vector("attn_q_norm", len)).transpose()?,
            key_norm: key_norm.map(|len| self.vector("attn_k_norm", len)).transpose()?,
            output: [self.weight("attn_output", hidden, queries)?],
        })
    }

    /// Gate and up in two tensors, or one after the other in that of `ffn_up`.
    fn dense(&mut self) -> Result<Gated, GgufError> {
        let (hidden, wide) = (self.config.hidden, self.config.feed_forward);
        let gate_up = match self.has("ffn_gate.weight") {
            true => {
                vec![self.weight("ffn_gate", wide, hidden)?, self.weight("ffn_up", wide, hidden)?]
            }
            false => vec![self.weight("ffn_up", 2 * wide, hidden)?],
        };
        Ok(Gated { gate_up, down: [self.weight("ffn_down", hidden, wide)?] })
    }

    fn mixture(&mut self, experts: Experts) -> Result<Mixture, GgufError> {
        let (hidden, Experts { count, feed_forward: wide, .. }) = (self.config.hidden, experts);
        let mut stack = |part: &str, rows: usize, cols: usize| {
            let name = format!("blk.{}.{part}.weight", self.number);
            self.file.stacked_weights(&name, count, rows, cols)
        };
        let gates = stack("ffn_gate_exps", wide, hidden)?;
        let ups = stack("ffn_up_exps", wide, hidden)?;
        let downs = stack("ffn_down_exps", hidden, wide)?;
        let networks = gates.into_iter().zip(ups).zip(downs);
        let networks = networks
            .map(|((gate, up), down)| Gated { gate_up: vec![gate, up], down: [down] })
            .collect();
        let shared = experts.shared.map(|wide| -> Result<_, GgufError> {
            let gate_up = vec![
                self.weight("ffn_gate_shexp", wide, hidden)?,
                self.weight("ffn_up_shexp", wide, hidden)?,
            ];
            let down = [self.weight("ffn_down_shexp", hidden, wide)?];
            let name = format!("blk.{}.ffn_gate_inp_shexp.weight", self.number);
            let gate = self.file.row_weight(&name, hidden)?;
            Ok((Gated { gate_up, down }, [gate]))
        });
        Ok(Mixture {
            experts,
            router: [self.weight("ffn_gate_inp", count, hidden)?],
            networks,
            shared: shared.transpose()?,
        })
    }

    fn has(&self, part: &str) -> bool {
        self.file.has(&format!("blk.{}.{part}", self.number))
    }

    fn weight(
        &mut self,
        part: &str,
        rows: usize,
        cols: usize,
    ) -> Result<inferno_kernels::cpu::Weight, GgufError> {
        self.file.weight(&format!("blk.{}.{part}.weight", self.number), rows, cols)
    }

    fn vector(&mut self, part: &str, len: usize) -> Result<Vec<f32>, GgufError> {
        self.file.vector(&format!("blk.{}.{part}.weight", self.number), len)
    }
}
