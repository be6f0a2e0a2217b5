//! The engine's handle: load a model, make prompts, submit requests.

use crate::cache::BlockPool;
use crate::error::{LoadError, PromptError, SubmitError, panic_message};
use crate::events;
use crate::generation::Active;
use crate::grammar::{Grammar, GrammarError, GrammarSource, Grammars};
use crate::life::Owned;
use crate::load::{Loaded, TemplateAbsence, load};
use crate::numerics::Fingerprint;
use crate::request::{Generation, GenerationRequest};
use crate::scheduler::{Scheduler, Terms};
use crate::stats::{EngineStats, QueueLimits, Queued};
use crate::template::{Chat, Template};
use crate::tokenizer::Tokenizer;
use crate::warm;
use crate::worker::{Command, STEP_TOKENS_MAX, StepScratch, Worker};
use inferno_kernels::Level;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The stack of the engine's thread: following a grammar recurses as deep as its regular expressions nest.
const STACK_BYTES: usize = 32 << 20;

/// Where a model comes from.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The name under which it is served.
    pub id: String,
    /// A GGUF file.
    pub path: PathBuf,
    /// The file's sha256 in hexadecimal where a manifest of the pull says it; else it is computed in the
    /// background.
    pub sha256: Option<String>,
}

/// How an engine is to run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// Bytes for the KV cache; by default a share of what the rest of the model leaves: three quarters under a
    /// memory limit of its own, else a quarter.
    pub kv_bytes: Option<u64>,
    /// Most requests computed together; never more than 512, the rows of a step.
    pub max_concurrency: usize,
    /// Tokens of prompt and answer together; by default, and at most, what the model was trained for.
    pub context_max: Option<usize>,
    /// Most requests waiting.
    pub queue_max: usize,
    /// Most tokens of the prompts of those that wait; one alone may have more.
    pub queue_tokens_max: usize,
    /// How long a client may not read its answer before the request is ended. It stands still meanwhile.
    pub reader_timeout: Duration,
    /// The instruction level of the kernels. Each gives the same bits.
    pub level: Level,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads,
            kv_bytes: None,
            max_concurrency: 256,
            context_max: None,
            queue_max: 1024,
            queue_tokens_max: 1 << 20,
            reader_timeout: Duration::from_secs(30),
            level: Level::best(),
        }
    }
}

impl EngineOptions {
    /// Most requests computed together: each has a row in every step.
    pub(crate) fn concurrency(&self) -> usize {
        self.max_concurrency.clamp(1, STEP_TOKENS_MAX)
    }
}

/// One line of the memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLine {
    /// What for.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
}

/// What there is to know of a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The name under which it is served.
    pub id: String,
    /// GGUF's name of the architecture.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
    /// Whether [`Engine::render_chat`] can work.
    pub has_chat_template: bool,
    /// Where the memory goes.
    pub budget: Vec<BudgetLine>,
    /// Threads that compute.
    pub threads: usize,
    /// The instruction level of the kernels: `plain`, `avx2` or `avx512`.
    pub level: String,
}

/// A running engine: a cheap handle to its thread. When the last handle is dropped, the thread ends after
/// the generations that it still has.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    info: ModelInfo,
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    template: Result<Template, TemplateAbsence>,
    fingerprint: Arc<OnceLock<Fingerprint>>,
    stats: Arc<EngineStats>,
    level: Level,
    queue: QueueLimits,
    thread: Owned<Command>,
}

impl Engine {
    /// Loads a model and starts its thread. Blocks: maps the file, reads the tokenizer, checks the memory,
    /// builds the decoder and makes the first steps.
    ///
    /// # Errors
    /// When the file cannot be read or is not supported, or the memory does not suffice.
    #[expect(clippy::needless_pass_by_value, reason = "both are made for one engine")]
    pub fn load(source: ModelSource, options: EngineOptions) -> Result<Self, LoadError> {
        let started = Instant::now();
        let engine = Self::start(load(&source, &options)?, &options)?;
        let (info, stats) = (engine.info(), engine.stats());
        tracing::info!(
            model = info.id,
            took_ms = started.elapsed().as_millis() as u64,
            context = info.context_length,
            kv_blocks = stats.kv_blocks_total(),
            level = info.level,
            "model loaded"
        );
        Ok(engine)
    }

    /// Warms a model up and gives it its thread.
    fn start(mut loaded: Loaded, options: &EngineOptions) -> Result<Self, LoadError> {
        let cost = warm::up(&mut loaded.runner);
        let level = loaded.runner.cpu().level();
        let (pool, tokenizer) = (BlockPool::new(loaded.blocks), Arc::new(loaded.tokenizer));
        let stats = Arc::new(EngineStats::new(pool.total()));
        let (inbox, commands) = mpsc::channel();
        let worker = Worker {
            inbox: commands,
            runner: loaded.runner,
            scheduler: Scheduler::new(pool.clone(), options.concurrency()),
            pool,
            cost,
            tokenizer: Arc::clone(&tokenizer),
            stats: Arc::clone(&stats),
            active: HashMap::new(),
            parked: BTreeMap::new(),
            reader_timeout: options.reader_timeout,
            next_id: 0,
            queued: Queued::default(),
            scratch: StepScratch::default(),
        };
        // Linux shows fifteen bytes of it.
        let name = format!("engine {}", loaded.info.id);
        let builder = thread::Builder::new().name(name).stack_size(STACK_BYTES);
        let inner = Inner {
            info: loaded.info,
            tokenizer,
            grammars: Grammars::default(),
            template: loaded.template,
            fingerprint: loaded.fingerprint,
            stats,
            level,
            queue: QueueLimits { requests: options.queue_max, tokens: options.queue_tokens_max },
            thread: Owned::start(builder, inbox, worker)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What there is to know of the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// What another engine must have equal to give the same tokens; `None` until the model file's hash is
    /// known.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner.fingerprint.get().copied()
    }

    /// Token ids of a text; special tokens in it count.
    ///
    /// # Errors
    /// When the tokenizer cannot take it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.inner.tokenizer.encode(text)
    }

    /// The text of token ids, special tokens spelled out.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.tokenizer.decode(ids)
    }

    /// Token ids of a conversation in the model's own form. Special-token strings inside messages come back
    /// as ordinary text.
    ///
    /// # Errors
    /// When the model has no template, or it refuses or fails.
    pub fn render_chat(&self, chat: &Chat) -> Result<Vec<u32>, PromptError> {
        let template = match &self.inner.template {
            Ok(template) => template,
            Err(TemplateAbsence::NotInFile) => return Err(PromptError::NoTemplate),
            Err(TemplateAbsence::Broken(why)) => return Err(PromptError::Template(why.clone())),
        };
        let render = || template.render(chat, &self.inner.tokenizer);
        catch_unwind(AssertUnwindSafe(render))
            .unwrap_or_else(|panic| Err(PromptError::Template(panic_message(panic.as_ref()))))
    }

    /// Compiles what an answer is to be. Takes milliseconds, the first time some hundreds: not for a thread that
    /// serves others.
    ///
    /// # Errors
    /// When the source is wrong, unsupported or beyond a limit.
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        self.inner.grammars.compile(source, &self.inner.tokenizer)
    }

    /// The beginning-of-sequence token, if the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.inner.tokenizer.bos()
    }

    /// The bytes of a token; none for an id that does not exist.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.inner.tokenizer.bytes(id)
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// When it does not fit the context, a parameter is out of range, the queue is full or the engine is
    /// stopped.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        let inner = &*self.inner;
        request.validate(inner.info.vocab_size)?;
        let limit = answer_limit(&request, inner.info.context_length)?;
        let place = inner.stats.enqueue(request.prompt.len(), inner.queue)?;
        let terms = Terms {
            priority: request.priority,
            deadline: request.deadline,
            salt: request.cache_salt.unwrap_or_default(),
            computes_all: request.prompt_logprobs.is_some(),
        };
        let (sender, events) = events::channel(inner.thread.inbox.clone());
        let (active, prompt) = Active::new(request, limit, sender, Instant::now(), inner.level);
        let command = Command::Generate(Box::new(active), prompt, terms, place);
        inner.thread.inbox.send(command).map_err(|_| SubmitError::Stopped)?;
        Ok(Generation::new(events))
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

    /// Waits until something that all requests share fails, which ends the engine, and says of what. The
    /// process should then end with an error. Never returns otherwise.
    pub async fn failed(&self) -> String {
        self.inner.thread.failed().await
    }

    /// Ends the thread and waits for it. Generations under way get [`crate::GenerationError::Stopped`].
    pub fn shutdown(&self) {
        self.inner.thread.end(Command::Shutdown);
    }
}

/// Most tokens of the answer.
fn answer_limit(request: &GenerationRequest, context: usize) -> Result<usize, SubmitError> {
    let prompt = request.prompt.len();
    let asked = request.max_tokens.unwrap_or(1);
    if prompt.saturating_add(asked) > context {
        return Err(SubmitError::ContextLength { prompt, max_tokens: asked, context });
    }
    Ok(request.max_tokens.unwrap_or(context - prompt))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
