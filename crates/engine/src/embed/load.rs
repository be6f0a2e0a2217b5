//! From a model directory to an encoder that is ready to run.

use super::config::EncoderConfig;
use super::encoder::{Dense, Encoder, Layer, Norm, Scratch};
use super::error::EncoderError;
use super::folder::Folder;
use super::tokenizer::TextTokenizer;
use crate::engine::{BudgetLine, EngineOptions};
use crate::load::Survey;
use crate::memory;
use crate::safetensors::{SafetensorsError, SafetensorsFile};
use crate::worker::STEP_TOKENS_MAX;
use inferno_kernels::cpu::Weight;
use std::path::Path;

/// Parts of checkpoints that no sentence's vector is made with: `position_ids` counts from 0, the others are
/// heads for other tasks.
const WITHOUT_EFFECT: [&str; 3] = ["embeddings.position_ids", "pooler.", "cls."];

/// An encoder with its tokenizer.
pub(super) struct Loaded {
    pub(super) encoder: Encoder,
    pub(super) tokenizer: TextTokenizer,
    pub(super) budget: Vec<BudgetLine>,
    pub(super) parameters: u64,
}

/// Reads a directory: `config.json`, `tokenizer.json`, `model.safetensors` and, where they are there, the files
/// of sentence-transformers.
pub(super) fn load(path: &Path, options: &EngineOptions) -> Result<Loaded, EncoderError> {
    let folder = Folder(path);
    let (encoder, file) = read_encoder(&folder, options)?;
    let tokenizer = TextTokenizer::load(&folder, encoder.config.vocab)?;
    let budget = budget(&encoder);
    // The words' embeddings stay in the map, whose pages the system may take back.
    let needed = budget[1..].iter().map(|line| line.bytes).sum();
    let available = memory::available().bytes;
    if needed > available {
        return Err(EncoderError::Memory { needed, available });
    }
    Ok(Loaded { encoder, tokenizer, budget, parameters: file.parameters() })
}

/// The encoder of the directory `path`, without its tokenizer.
///
/// # Errors
/// When a file is unreadable, damaged or hostile, or the model is not of the BERT family.
pub fn load_encoder(path: &Path) -> Result<Encoder, EncoderError> {
    read_encoder(&Folder(path), &EngineOptions::default()).map(|(encoder, _)| encoder)
}

/// What the model at `path` would take; see [`crate::survey`].
pub(crate) fn survey(path: &Path, options: &EngineOptions) -> Result<Survey, EncoderError> {
    let loaded = load(path, options)?;
    Ok(Survey {
        architecture: ARCHITECTURE.into(),
        context_length: loaded.encoder.config.tokens_max,
        budget: loaded.budget,
        available_bytes: memory::available().bytes,
    })
}

/// `model_type` of the one family there is.
pub(super) const ARCHITECTURE: &str = "bert";

/// Most tokens of a step: any one text fits.
pub(super) fn step_tokens(config: &EncoderConfig) -> usize {
    STEP_TOKENS_MAX.max(config.tokens_max)
}

fn budget(encoder: &Encoder) -> Vec<BudgetLine> {
    let activations = Scratch::bytes(&encoder.config, step_tokens(&encoder.config));
    let repacked = encoder.weights().map(Weight::repacked_bytes).sum();
    let lines = [
        ("word embeddings (mapped, shared)", encoder.words.bytes()),
        ("weights (repacked)", repacked),
        ("activations (at most)", activations),
    ];
    lines.map(|(name, bytes)| BudgetLine { name, bytes: bytes as u64 }).to_vec()
}

fn read_encoder(
    folder: &Folder<'_>,
    options: &EngineOptions,
) -> Result<(Encoder, SafetensorsFile), EncoderError> {
    const NAME: &str = "model.safetensors";
    let mut config = EncoderConfig::load(folder)?;
    if let Some(most) = options.context_max {
        config.tokens_max = config.tokens_max.min(most.max(1));
    }
    let path = folder.path(NAME);
    let opened = SafetensorsFile::open(&path);
    let opened = opened.map_err(|source| EncoderError::File { path: path.clone(), source })?;
    let damaged = |source| EncoderError::Weights { path: path.clone(), source };
    let mut file = opened.map_err(damaged)?;
    let encoder = take(&mut file, config).map_err(damaged)?;
    let stranger = file.unused().into_iter().find(|name| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        !WITHOUT_EFFECT.iter().any(|part| name.starts_with(part))
    });
    match stranger {
        Some(name) => Err(EncoderError::unsupported(
            &path,
            format!("the tensor {name:?}"),
            "the tensors of a plain BertModel",
        )),
        None => Ok((encoder, file)),
    }
}

/// What the names begin with in checkpoints that have a head for another task.
const PREFIX: &str = "bert.";

fn take(file: &mut SafetensorsFile, config: EncoderConfig) -> Result<Encoder, SafetensorsError> {
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let prefixed = !file.has(WORDS) && file.has(&format!("{PREFIX}{WORDS}"));
    let mut tensors = Tensors { file, prefix: if prefixed { PREFIX } else { "" } };
    let EncoderConfig { hidden, vocab, kinds, positions: count, .. } = config;
    let kind = tensors.table("embeddings.token_type_embeddings", kinds, hidden)?;
    let mut positions = tensors.table("embeddings.position_embeddings", count, hidden)?;
    for position in positions.chunks_exact_mut(hidden) {
        position.iter_mut().zip(&kind).for_each(|(x, kind)| *x += kind);
    }
    let layers: Result<_, _> = (0..config.layers).map(|n| tensors.layer(&config, n)).collect();
    Ok(Encoder {
        words: tensors.matrix("embeddings.word_embeddings", vocab, hidden)?,
        positions,
        norm: tensors.norm("embeddings.LayerNorm", hidden)?,
        layers: layers?,
        config,
    })
}

/// Tensors by the names that BERT gives them.
struct Tensors<'a> {
    file: &'a mut SafetensorsFile,
    prefix: &'static str,
}

impl Tensors<'_> {
    fn layer(&mut self, config: &EncoderConfig, number: usize) -> Result<Layer, SafetensorsError> {
        let name = |part: &str| format!("encoder.layer.{number}.{part}");
        let EncoderConfig { hidden, feed_forward, .. } = *config;
        let projections =
            ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let [query, key, value] = &projections;
        let mut qkv_bias = Vec::with_capacity(3 * hidden);
        for projection in &projections {
            qkv_bias.extend(self.vector(projection, "bias", hidden)?);
        }
        Ok(Layer {
            qkv: [
                self.matrix(query, hidden, hidden)?,
                self.matrix(key, hidden, hidden)?,
                self.matrix(value, hidden, hidden)?,
            ],
            qkv_bias,
            output: self.dense(&name("attention.output.dense"), hidden, hidden)?,
            output_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            up: self.dense(&name("intermediate.dense"), feed_forward, hidden)?,
            down: self.dense(&name("output.dense"), hidden, feed_forward)?,
            down_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }

    fn dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<Dense, SafetensorsError> {
        let weight = [self.matrix(name, rows, cols)?];
        Ok(Dense { weight, bias: self.vector(name, "bias", rows)? })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, SafetensorsError> {
        let weight = self.vector(name, "weight", width)?;
        Ok(Norm { weight, bias: self.vector(name, "bias", width)? })
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight, SafetensorsError> {
        self.file.matrix(&format!("{}{name}.weight", self.prefix), rows, cols)
    }

    /// A small matrix, widened to single precision.
    fn table(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<f32>, SafetensorsError> {
        let weight = self.matrix(name, rows, cols)?;
        let mut table = vec![0.0; rows * cols];
        for (index, row) in table.chunks_exact_mut(cols).enumerate() {
            weight.row_into(index, row);
        }
        Ok(table)
    }

    fn vector(&mut self, name: &str, part: &str, len: usize) -> Result<Vec<f32>, SafetensorsError> {
        self.file.vector(&format!("{}{name}.{part}", self.prefix), len)
    }
}
