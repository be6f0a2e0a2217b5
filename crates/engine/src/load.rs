//! From a file and options to a model that is ready to run.

use crate::cache::BLOCK_TOKENS;
use crate::engine::{BudgetLine, EngineOptions, ModelInfo, ModelSource};
use crate::error::LoadError;
use crate::gguf::GgufFile;
use crate::memory;
use crate::model::{Decoder, Scratch};
use crate::numerics::{Fingerprint, parse_sha256};
use crate::runner::{Runner, SCORED_ROWS};
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use crate::worker::STEP_TOKENS_MAX;
use inferno_kernels::{Cpu, Level, MappedFile};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

/// The part of the memory still available that the KV cache takes when no size is given: several engines
/// may share a host, and each counts what the others have really taken.
const KV_SHARE: u64 = 4;

/// Most blocks a cache can number.
const BLOCKS_MAX: u64 = u32::MAX as u64;

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
    let blocks = cache_blocks(&decoder, context, options)?;
    let mut info = info(source, options, &file, &decoder, context, blocks);
    info.vocab_size = info.vocab_size.min(tokenizer.vocab_size());
    info.eos = tokenizer.eos().to_vec();
    info.has_chat_template = template.is_ok();
    let cpu = Cpu::with_level(options.threads, options.level).map_err(LoadError::Threads)?;
    cpu.repack(decoder.weights());
    let runner = Runner::new(cpu, decoder, blocks as usize);
    let fingerprint = fingerprint(source.sha256.as_deref(), file.bytes(), context)?;
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
    let blocks = cache_blocks(&decoder, context_length, options)?;
    Ok(Survey {
        architecture: decoder.config().architecture.clone(),
        context_length,
        budget: budget(options, &decoder, blocks),
        available_bytes: memory::available_bytes(),
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

/// Blocks of the cache: what the options or the machine allow, which must hold one sequence of `context`.
fn cache_blocks(
    decoder: &Decoder,
    context: usize,
    options: &EngineOptions,
) -> Result<u32, LoadError> {
    let block = decoder.kv_shape().block_bytes() as u64;
    let per_sequence = context.div_ceil(BLOCK_TOKENS) as u64;
    let free = memory::available_bytes().saturating_sub(decoder.weight_bytes());
    let (available, origin) = match options.kv_bytes {
        Some(configured) if configured > free => {
            return Err(LoadError::Overcommitted { configured, available: free });
        }
        Some(configured) => (configured, "configured"),
        None => (free / KV_SHARE, "a quarter of what is available"),
    };
    let useful = per_sequence.saturating_mul(options.concurrency() as u64);
    let blocks = (available / block).min(useful).min(BLOCKS_MAX);
    if blocks < per_sequence {
        let needed = per_sequence.saturating_mul(block);
        return Err(LoadError::Memory { needed, available, origin, context });
    }
    Ok(blocks as u32)
}

/// What [`ModelInfo`] says, apart from the tokenizer's part.
fn info(
    source: &ModelSource,
    options: &EngineOptions,
    file: &GgufFile,
    decoder: &Decoder,
    context_length: usize,
    blocks: u32,
) -> ModelInfo {
    ModelInfo {
        id: source.id.clone(),
        architecture: decoder.config().architecture.clone(),
        parameters: file.parameters(),
        context_length,
        vocab_size: decoder.vocab(),
        eos: Vec::new(),
        has_chat_template: false,
        budget: budget(options, decoder, blocks),
        threads: options.threads.max(1),
        level: options.level.to_string(),
    }
}

fn budget(options: &EngineOptions, decoder: &Decoder, blocks: u32) -> Vec<BudgetLine> {
    let (config, vocab) = (decoder.config(), decoder.vocab());
    let sampled = options.concurrency().max(SCORED_ROWS);
    let activations = Scratch::bytes(config, vocab, STEP_TOKENS_MAX, sampled);
    let kv_bytes = u64::from(blocks) * decoder.kv_shape().block_bytes() as u64;
    let lines = [
        ("weights (repacked)", decoder.weight_bytes()),
        ("KV cache (taken as used)", kv_bytes),
        ("activations (at most)", activations as u64),
    ];
    lines.map(|(name, bytes)| BudgetLine { name, bytes }).to_vec()
}

/// The fingerprint, at once where the hash is known, else set later by a thread that hashes the file.
fn fingerprint(
    sha256: Option<&str>,
    file: Arc<MappedFile>,
    context: usize,
) -> Result<Arc<OnceLock<Fingerprint>>, LoadError> {
    let cell = Arc::new(OnceLock::new());
    if let Some(text) = sha256 {
        let hash = parse_sha256(text).ok_or_else(|| LoadError::Hash(text.to_owned()))?;
        cell.get_or_init(|| Fingerprint::new(&hash, context));
        return Ok(cell);
    }
    let later = Arc::clone(&cell);
    let hash = move || {
        let hash: [u8; 32] = Sha256::digest(&file[..]).into();
        later.get_or_init(|| Fingerprint::new(&hash, context));
    };
    thread::Builder::new().name("model-hash".into()).spawn(hash).map_err(LoadError::Threads)?;
    Ok(cell)
}
