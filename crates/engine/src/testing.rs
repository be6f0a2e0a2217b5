//! A tiny model with random weights, written as a real GGUF file: everything that an engine does, in
//! milliseconds and without a download. Its text means nothing.

use crate::tokenizer::character_of;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::fs::File;
use std::path::Path;

/// Width of the residual stream, and of everything by default.
const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const FEED_FORWARD: usize = 128;
const LAYERS: usize = 2;

/// Tokens that are marks: end of text, beginning and end of a turn.
const MARKS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Merges, each of two tokens made before.
const MERGES: [&str; 6] = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r"];

/// ChatML, as the default model has it.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\n' }}{% endif %}";

/// What can be chosen about the model; the default is a small Llama with ChatML.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// `general.architecture`.
    pub architecture: String,
    /// Tokens it claims to be trained for.
    pub context_length: u32,
    /// The chat template, if any.
    pub chat_template: Option<String>,
    /// Chooses the weights.
    pub seed: u64,
    /// A tensor that is left out.
    pub without: Option<String>,
    /// Tensors whose names contain one of these are left out.
    pub skip: Vec<String>,
    /// Metadata on top, which replaces what has the same key.
    pub metadata: Vec<(String, Value)>,
    /// The type of the matrices other than the embedding.
    pub dtype: GgmlDType,
    /// The type of the embedding.
    pub embedding_dtype: GgmlDType,
    /// Tensors on top, with their shapes; those of a name that is there already replace it.
    pub tensors: Vec<(String, Vec<usize>)>,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            architecture: "llama".into(),
            context_length: 256,
            chat_template: Some(CHATML.into()),
            seed: 1,
            without: None,
            skip: Vec::new(),
            metadata: Vec::new(),
            dtype: GgmlDType::Q4_1,
            embedding_dtype: GgmlDType::Q8_0,
            tensors: Vec::new(),
        }
    }
}

impl TinyModel {
    /// Writes the model to `path`.
    ///
    /// # Errors
    /// What candle's writer says.
    pub fn write(&self, path: &Path) -> candle_core::Result<()> {
        let metadata = self.metadata();
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let mut tensors = self.tensors()?;
        tensors.retain(|(name, _)| {
            Some(name) != self.without.as_ref()
                && !self.skip.iter().any(|part| name.contains(part.as_str()))
        });
        let tensors: Vec<_> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(path)?, &metadata, &tensors)
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let (tokens, kinds) = vocabulary();
        let list = |items: &[&str]| {
            Value::Array(items.iter().map(|item| Value::String((*item).into())).collect())
        };
        let mut metadata: Vec<(String, Value)> = [
            ("general.architecture", Value::String(self.architecture.clone())),
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String("smollm".into())),
            (
                "tokenizer.ggml.tokens",
                Value::Array(tokens.into_iter().map(Value::String).collect()),
            ),
            (
                "tokenizer.ggml.token_type",
                Value::Array(kinds.into_iter().map(Value::I32).collect()),
            ),
            ("tokenizer.ggml.merges", list(&MERGES)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let sizes = [
            ("block_count", LAYERS),
            ("context_length", self.context_length as usize),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", FEED_FORWARD),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
        ];
        let named = |name: &str| format!("{}.{name}", self.architecture);
        metadata.extend(sizes.map(|(name, size)| (named(name), Value::U32(size as u32))));
        metadata.push((named("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)));
        let template = self.chat_template.clone().map(Value::String);
        metadata.extend(template.map(|template| ("tokenizer.chat_template".to_owned(), template)));
        metadata.retain(|(key, _)| self.metadata.iter().all(|(replaced, _)| replaced != key));
        metadata.extend(self.metadata.iter().cloned());
        metadata
    }

    fn tensors(&self) -> candle_core::Result<Vec<(String, QTensor)>> {
        let vocab = vocabulary().0.len();
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("token_embd.weight".into(), vec![vocab, HIDDEN]),
            ("output_norm.weight".into(), vec![HIDDEN]),
        ];
        let keys = KV_HEADS * HEAD_DIM;
        for layer in 0..LAYERS {
            let parts = [
                ("attn_norm", vec![HIDDEN]),
                ("attn_q", vec![HEADS * HEAD_DIM, HIDDEN]),
                ("attn_k", vec![keys, HIDDEN]),
                ("attn_v", vec![keys, HIDDEN]),
                ("attn_output", vec![HIDDEN, HEADS * HEAD_DIM]),
                ("ffn_norm", vec![HIDDEN]),
                ("ffn_gate", vec![FEED_FORWARD, HIDDEN]),
                ("ffn_up", vec![FEED_FORWARD, HIDDEN]),
                ("ffn_down", vec![HIDDEN, FEED_FORWARD]),
            ];
            shapes.extend(parts.map(|(part, shape)| (format!("blk.{layer}.{part}.weight"), shape)));
        }
        shapes.retain(|(name, _)| self.tensors.iter().all(|(replaced, _)| replaced != name));
        shapes.extend(self.tensors.iter().cloned());
        let mut noise = Noise(self.seed);
        shapes
            .into_iter()
            .map(|(name, shape)| {
                let dtype =
                    if name == "token_embd.weight" { self.embedding_dtype } else { self.dtype };
                Ok((name, noise.tensor(shape, dtype)?))
            })
            .collect()
    }
}

/// Marks, one token a byte, and the merged ones; and what each is by GGUF's numbering.
fn vocabulary() -> (Vec<String>, Vec<i32>) {
    let bytes = (0..=u8::MAX).map(|byte| character_of(byte).to_string());
    let merged = MERGES.iter().map(|merge| merge.replace(' ', ""));
    let tokens: Vec<String> =
        MARKS.iter().map(|mark| (*mark).to_owned()).chain(bytes).chain(merged).collect();
    let kinds = (0..tokens.len()).map(|id| if id < MARKS.len() { 3 } else { 1 }).collect();
    (tokens, kinds)
}

/// A multiplicative generator (Lehmer), good enough to make weights differ.
struct Noise(u64);

impl Noise {
    /// In [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Norms (and all vectors) are floats around 1; the embedding, which has most rows, is wider than the rest.
    fn tensor(&mut self, shape: Vec<usize>, dtype: GgmlDType) -> candle_core::Result<QTensor> {
        let (dtype, base, spread) = match shape[..] {
            [_] => (GgmlDType::F32, 1.0, 0.2),
            [rows, _] if rows > 2 * FEED_FORWARD => (dtype, 0.0, 1.0),
            _ => (dtype, 0.0, 0.35),
        };
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| base + spread * self.next()).collect();
        QTensor::quantize(&Tensor::from_vec(values, shape, &Device::Cpu)?, dtype)
    }
}
