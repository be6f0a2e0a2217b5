//! The embedder's handle: load a model, make token ids, submit texts.

use super::encoder::{Encoder, Scratch};
use super::error::EmbedError;
use super::load::{ARCHITECTURE, load, step_tokens};
use super::tokenizer::TextTokenizer;
use super::turns::Turns;
use super::worker::{Claim, Command, Job, Outcome, Worker};
use crate::engine::{EngineOptions, ModelInfo, ModelSource};
use crate::error::{GenerationError, LoadError, SubmitError};
use crate::life::Owned;
use crate::numerics::{Fingerprint, known_or_later, parse_sha256};
use crate::request::Timings;
use crate::stats::{EngineStats, QueueLimits, Queued};
use crate::store;
use inferno_kernels::{Cpu, Level};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most texts of one request, as OpenAI has it.
pub const INPUTS_MAX: usize = 2048;
/// Most bytes of a text, for each token that the model looks at. Only a text of white space or of words too long
/// for any vocabulary has more bytes and still few enough tokens; a tokenizer takes many bytes of memory for each.
const BYTES_PER_TOKEN: usize = 256;

/// Most texts that wait, for each place in the queue of requests: with the default of 1024 places they take some
/// 40 MB, tokens and vectors together.
const TEXTS_PER_PLACE: usize = 16;

/// The vectors of a request's texts.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// One of each text, in the order they came in; [`Embedder::dimensions`] numbers each.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub prompt_tokens: usize,
    /// Where the time went; `prefill` is from the first step to the last.
    pub timings: Timings,
}

/// A request under way. Dropping it cancels: what no step has taken is not computed.
#[derive(Debug)]
pub struct Embedding(oneshot::Receiver<Outcome>);

impl Embedding {
    /// The vectors, when all are there.
    ///
    /// # Errors
    /// When the embedder stopped under it.
    pub async fn finished(self) -> Outcome {
        self.0.await.unwrap_or(Err(GenerationError::Stopped))
    }

    /// As [`Embedding::finished`], for threads without a runtime.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When called from within an async runtime.
    pub fn blocking_finished(self) -> Outcome {
        self.0.blocking_recv().unwrap_or(Err(GenerationError::Stopped))
    }
}

/// A running embedder: a cheap handle to its thread. When the last handle is dropped, the thread ends after the
/// requests that it still has.
#[derive(Clone)]
pub struct Embedder {
    inner: Arc<Inner>,
}

struct Inner {
    info: ModelInfo,
    dimensions: usize,
    tokenizer: TextTokenizer,
    fingerprint: Arc<OnceLock<Fingerprint>>,
    stats: Arc<EngineStats>,
    /// Texts that wait or are being computed.
    backlog: Arc<AtomicUsize>,
    queue_max: usize,
    thread: Owned<Command>,
}

impl Embedder {
    /// Loads the model directory `source.path` and starts its thread. Blocks: maps the weights and looks at each
    /// once, reads the tokenizer, makes the first steps. Of the options, `kv_bytes` and `max_concurrency` mean
    /// nothing here.
    ///
    /// # Errors
    /// When a file cannot be read or is not supported, or the memory does not suffice.
    #[expect(clippy::needless_pass_by_value, reason = "as Engine::load: both are made for one")]
    pub fn load(source: ModelSource, options: EngineOptions) -> Result<Self, LoadError> {
        let began = Instant::now();
        let loaded = load(&source.path, &options)?;
        let cpu = Cpu::new(options.threads).map_err(LoadError::Threads)?;
        // They were found finite when they were read.
        cpu.repack(loaded.encoder.weights()).ok();
        let config = loaded.encoder.config();
        let info = ModelInfo {
            id: source.id,
            architecture: ARCHITECTURE.into(),
            parameters: loaded.parameters,
            context_length: config.tokens_max,
            vocab_size: config.vocab,
            eos: Vec::new(),
            has_chat_template: false,
            budget: loaded.budget,
            threads: options.threads.max(1),
            level: Level::best().to_string(),
        };
        let hash = move || match store::sha256_of(&source.path, &mut |_| {}) {
            Ok(text) => parse_sha256(&text),
            Err(error) => {
                tracing::warn!(%error, "the model cannot be hashed and has no fingerprint");
                None
            }
        };
        let fingerprint = known_or_later(source.sha256.as_deref(), info.context_length, hash)?;
        let parts =
            Parts { info, tokenizer: loaded.tokenizer, fingerprint, encoder: loaded.encoder };
        let embedder = parts.start(cpu, options.queue_max)?;
        let info = embedder.info();
        tracing::info!(
            model = info.id,
            took_ms = began.elapsed().as_millis() as u64,
            tokens_max = info.context_length,
            dimensions = embedder.dimensions(),
            level = info.level,
            "embedding model loaded"
        );
        Ok(embedder)
    }

    /// What there is to know of the model; `context_length` is the most tokens of a text.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// Numbers in a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.inner.dimensions
    }

    /// What another embedder must have equal to give the same vectors, bit for bit; `None` until the model's hash
    /// is known.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner.fingerprint.get().copied()
    }

    /// Token ids of texts, with the special tokens that the model wants around each.
    ///
    /// # Errors
    /// When there are too many, or one is empty, too large or cannot be tokenised.
    pub fn encode(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EmbedError> {
        check_count(texts.len())?;
        let limit = self.inner.info.context_length.saturating_mul(BYTES_PER_TOKEN);
        let encode = |(index, text): (usize, &String)| match text.len() {
            0 => Err(EmbedError::Empty { index }),
            bytes if bytes > limit => Err(EmbedError::TooManyBytes { index, bytes, limit }),
            _ => catch_unwind(AssertUnwindSafe(|| self.inner.tokenizer.encode(text)))
                .ok()
                .flatten()
                .ok_or(EmbedError::Tokenizer { index }),
        };
        texts.iter().enumerate().map(encode).collect()
    }

    /// Puts texts of token ids into the queue. The ids are taken as they are: no special token is added.
    ///
    /// # Errors
    /// When there are too many or too long ones, an id does not exist, the queue is full or the embedder has ended.
    pub fn submit(&self, texts: Vec<Vec<u32>>) -> Result<Embedding, EmbedError> {
        let inner = &*self.inner;
        self.check(&texts)?;
        let limit = inner.queue_max;
        let tokens = texts.iter().map(Vec::len).sum();
        let place =
            inner.stats.enqueue(tokens, QueueLimits { requests: limit, tokens: usize::MAX })?;
        let limit = limit.saturating_mul(TEXTS_PER_PLACE);
        let claim = Claim::take(&inner.backlog, texts.len(), limit);
        let claim = claim.ok_or(EmbedError::Backlog { limit })?;
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            vectors: vec![Vec::new(); texts.len()],
            missing: texts.len(),
            texts,
            reply,
            submitted: Instant::now(),
            started: None,
            _claim: claim,
        };
        let command = Command::Embed(Box::new(job), place);
        inner.thread.inbox.send(command).map_err(|_| SubmitError::Stopped)?;
        Ok(Embedding(outcome))
    }

    fn check(&self, texts: &[Vec<u32>]) -> Result<(), EmbedError> {
        check_count(texts.len())?;
        let ModelInfo { context_length: limit, vocab_size: vocab, .. } = self.inner.info;
        for (index, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err(EmbedError::Empty { index });
            }
            if text.len() > limit {
                return Err(EmbedError::TooLong { index, tokens: text.len(), limit });
            }
            if let Some(id) = text.iter().find(|id| **id as usize >= vocab) {
                return Err(EmbedError::UnknownToken { index, id: *id, vocab });
            }
        }
        Ok(())
    }

    /// Counters and gauges; reading them takes no lock.
    #[must_use]
    pub fn stats(&self) -> &EngineStats {
        &self.inner.stats
    }

    /// Whether work waits and no step was made for `after`.
    #[must_use]
    pub fn is_stalled(&self, after: Duration) -> bool {
        self.inner.stats.is_stalled(after)
    }

    /// Waits until a step fails, which ends the embedder, and says of what. Never returns otherwise.
    pub async fn failed(&self) -> String {
        self.inner.thread.failed().await
    }

    /// Ends the thread and waits for it. Requests under way get [`GenerationError::Stopped`].
    pub fn shutdown(&self) {
        self.inner.thread.end(Command::Shutdown);
    }
}

fn check_count(inputs: usize) -> Result<(), EmbedError> {
    match inputs {
        1..=INPUTS_MAX => Ok(()),
        _ => Err(EmbedError::Count { inputs, limit: INPUTS_MAX }),
    }
}

/// A model that needs a thread.
struct Parts {
    info: ModelInfo,
    tokenizer: TextTokenizer,
    fingerprint: Arc<OnceLock<Fingerprint>>,
    encoder: Encoder,
}

impl Parts {
    fn start(self, cpu: Cpu, queue_max: usize) -> Result<Embedder, LoadError> {
        let dimensions = self.encoder.config().hidden;
        let step_tokens = step_tokens(self.encoder.config());
        let stats = Arc::new(EngineStats::new(0));
        let (inbox, commands) = mpsc::channel();
        let mut worker = Worker {
            inbox: commands,
            cpu,
            encoder: self.encoder,
            scratch: Scratch::default(),
            step_tokens,
            stats: Arc::clone(&stats),
            turns: Turns::default(),
            jobs: HashMap::new(),
            next_id: 0,
            queued: Queued::default(),
        };
        worker.warm_up();
        let builder = thread::Builder::new().name("embedder".into());
        let inner = Inner {
            info: self.info,
            dimensions,
            tokenizer: self.tokenizer,
            fingerprint: self.fingerprint,
            stats,
            backlog: Arc::default(),
            queue_max,
            thread: Owned::start(builder, inbox, worker)?,
        };
        Ok(Embedder { inner: Arc::new(inner) })
    }
}

#[cfg(test)]
#[path = "embedder_tests.rs"]
mod tests;
