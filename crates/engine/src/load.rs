//! From a file and options to a model that is ready to run.

use crate::cache::BLOCK_TOKENS;
use crate::engine::{BudgetLine, EngineOptions, ModelInfo, ModelSource};
use crate::error::LoadError;
use crate::gguf::GgufFile;
use crate::memory::{self, Needs};
use crate::model::{Decoder, Scratch};
use crate::numerics::{Fingerprint, known_or_later};
use crate::runner::{Runner, SCORED_ROWS};
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use crate::worker::STEP_TOKENS_MAX;
use inferno_kernels::{Cpu, Level};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A model that is ready to run.
pub(crate) struct Loaded {
    pub(crate) info: ModelInfo,
    pub(crate) runner: Runner,
    /// Blocks of the runner's cache.
    pub(crate) blocks: u32,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Result<Template, TemplateAbsence>,
    /// Set now or later, when the file's hash is known.
    pub(crate) fingerprint: Arc<OnceLock<Fingerprint>>,
}

/// Why there is no template.
pub(crate) enum TemplateAbsence {
    /// The file has none.
    NotInFile,
    /// It is not valid Jinja.
    Broken(String),
}

/// Maps the file, reads the tokenizer and the template, checks the memory and takes the weights.
pub(crate) fn load(source: &ModelSource, options: &EngineOptions) -> Result<Loaded, LoadError> {
    require_vectors()?;
    let mut file = open(&source.path)?;
    let tokenizer = Tokenizer::load(&file).map_err(|error| error.at(&source.path))?;
    let template = template(&file, &tokenizer, &source.path)?;
    let decoder = Decoder::load(&mut file).map_err(|error| error.at(&source.path))?;
    let context = context_length(&decoder, options);
    let needs = needs(&decoder, context, options);
    let blocks = needs.blocks(options.kv_bytes, memory::available())?;
    let mut info = info(source, options, &file, &decoder, context);
    info.budget = budget(&needs, blocks);
    info.vocab_size = info.vocab_size.min(tokenizer.vocab_size());
    info.eos = tokenizer.eos().to_vec();
    info.has_chat_template = template.is_ok();
    let cpu = Cpu::with_level(options.threads, options.level).map_err(LoadError::Threads)?;
    cpu.repack(decoder.weights()).map_err(|error| LoadError::Gguf {
        path: source.path.clone(),
        source: file.not_finite(error),
    })?;
    let runner = Runner::new(cpu, decoder, blocks as usize);
    let map = file.bytes();
    let hash = move || {
        let hash = Sha256::digest(&map[..]).into();
        // The weights are in their tiles: what was read for the hash alone is not wanted again.
        map.release(0..map.len());
        Some(hash)
    };
    let fingerprint = known_or_later(source.sha256.as_deref(), context, hash)?;
    Ok(Loaded { info, runner, blocks, tokenizer, template, fingerprint })
}

/// What a model would take on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// GGUF's name of the architecture.
    pub architecture: String,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Where the memory would go.
    pub budget: Vec<BudgetLine>,
    /// Bytes that can be taken now.
    pub available_bytes: u64,
}

/// Finds out whether the model at `path`, a GGUF file or the directory of an encoder, could be loaded with
/// `options`, and what it would take. Maps the file and reads its metadata; starts nothing.
///
/// # Errors
/// As [`Engine::load`](crate::Engine::load), as far as the file, the processor and the memory are the reason.
pub fn survey(path: &Path, options: &EngineOptions) -> Result<Survey, LoadError> {
    require_vectors()?;
    if path.is_dir() {
        return Ok(crate::embed::survey(path, options)?);
    }
    let mut file = open(path)?;
    let decoder = Decoder::load(&mut file).map_err(|error| error.at(path))?;
    let context_length = context_length(&decoder, options);
    let available = memory::available();
    let needs = needs(&decoder, context_length, options);
    let blocks = needs.blocks(options.kv_bytes, available)?;
    Ok(Survey {
        architecture: decoder.config().architecture.clone(),
        context_length,
        budget: budget(&needs, blocks),
        available_bytes: available.bytes,
    })
}

/// What the model was trained for, or less where the options say so.
fn context_length(decoder: &Decoder, options: &EngineOptions) -> usize {
    let trained = decoder.config().context_length;
    options.context_max.map_or(trained, |most| most.clamp(1, trained))
}

/// On x86-64, nothing is quick without AVX2.
fn require_vectors() -> Result<(), LoadError> {
    if cfg!(target_arch = "x86_64") && Level::available().len() < 2 {
        let what = "this processor, which has no AVX2, FMA and F16C,".into();
        return Err(LoadError::Unsupported { what, supported: "x86-64 from 2013 on, aarch64" });
    }
    Ok(())
}

fn open(path: &Path) -> Result<GgufFile, LoadError> {
    GgufFile::open(path)
        .map_err(|source| LoadError::File { path: path.to_owned(), source })?
        .map_err(|source| LoadError::Gguf { path: path.to_owned(), source })
}

fn template(
    file: &GgufFile,
    tokenizer: &Tokenizer,
    path: &Path,
) -> Result<Result<Template, TemplateAbsence>, LoadError> {
    let source = file.text("tokenizer.chat_template");
    let source = source.map_err(|source| LoadError::Gguf { path: path.to_owned(), source })?;
    let Some(source) = source else { return Ok(Err(TemplateAbsence::NotInFile)) };
    Ok(Template::new(source, tokenizer).map_err(|error| {
        tracing::warn!(%error, "the chat template cannot be used");
        TemplateAbsence::Broken(error.to_string())
    }))
}

/// What the model takes of the memory.
fn needs(decoder: &Decoder, context: usize, options: &EngineOptions) -> Needs {
    let (config, vocab) = (decoder.config(), decoder.vocab());
    let sequences = options.concurrency();
    let sampled = sequences.max(SCORED_ROWS);
    Needs {
        weights: decoder.weight_bytes(),
        activations: Scratch::bytes(config, vocab, STEP_TOKENS_MAX, sampled) as u64,
        block: decoder.kv_shape().block_bytes() as u64,
        sequence_blocks: context.div_ceil(BLOCK_TOKENS) as u64,
        context,
        sequences: sequences as u64,
    }
}

/// What [`ModelInfo`] says, apart from the tokenizer's part and the budget.
fn info(
    source: &ModelSource,
    options: &EngineOptions,
    file: &GgufFile,
    decoder: &Decoder,
    context_length: usize,
) -> ModelInfo {
    ModelInfo {
        id: source.id.clone(),
        architecture: decoder.config().architecture.clone(),
        parameters: file.parameters(),
        context_length,
        vocab_size: decoder.vocab(),
        eos: Vec::new(),
        has_chat_template: false,
        budget: Vec::new(),
        threads: options.threads.max(1),
        level: options.level.to_string(),
    }
}

fn budget(needs: &Needs, blocks: u32) -> Vec<BudgetLine> {
    let lines = [
        ("weights (repacked)", needs.weights),
        ("KV cache (taken as used)", u64::from(blocks) * needs.block),
        ("activations (at most)", needs.activations),
        ("the rest of the process (at most)", memory::REST_BYTES),
    ];
    lines.map(|(name, bytes)| BudgetLine { name, bytes }).to_vec()
}
