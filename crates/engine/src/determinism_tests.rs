//! Same request, same tokens (DESIGN, section 7): random schedules, budgets, threads, instruction levels, cache
//! states, preemptions, priorities, pauses and cancelled neighbours, against each request alone on a fresh
//! cache. Tokens, log-probabilities and every logit, bit for bit.
//!
//! Runs for `INFERNO_DETERMINISM_SECONDS` (20 by default). A failure names its seed;
//! `INFERNO_DETERMINISM_SEED` runs that one alone.

#![allow(clippy::unwrap_used, clippy::print_stderr)]
use crate::batch::Batch;
use crate::cache::{BLOCK_TOKENS, BlockPool, CacheSalt};
use crate::gguf::GgufFile;
use crate::model::Decoder;
use crate::request::SamplingParams;
use crate::runner::Runner;
use crate::sampling::{History, Key, Restrictions, Sampler, Scratch, logprobs};
use crate::scheduler::{Scheduler, SequenceId, Terms};
use crate::testing::TinyModel;
use crate::tokenizer::Tokenizer;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use fastrand::Rng;
use inferno_kernels::{Cpu, Level};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Longest prompt, and longest answer.
const PROMPT_MAX: usize = 150;
const ANSWER_MAX: usize = 60;
/// Seeds after which each thing that shall not matter must have happened.
const SEEDS_TELLING: u64 = 15;

/// What a request asks for.
#[derive(Clone)]
struct Request {
    prompt: Vec<u32>,
    max_tokens: usize,
    sampling: SamplingParams,
    terms: Terms,
}

/// One token of an answer, and a hash of the logits and log-probabilities that it was drawn from.
type Drawn = (u32, u64);

/// How often the things happened that shall not matter.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    hits: u64,
    evictions: u64,
    preemptions: u64,
    cancels: u64,
    pauses: u64,
    tokens: u64,
}

/// A model file and its tokenizer.
struct Model {
    path: PathBuf,
    tokenizer: Tokenizer,
}

/// The models that are run: each a shape or a type of weights of its own.
fn models(folder: &Path) -> Vec<Model> {
    let base = TinyModel::default;
    let with = |key: &str, value: Value| vec![(key.to_owned(), value)];
    let shapes = [
        base(),
        TinyModel { dtype: GgmlDType::Q8_0, seed: 2, ..base() },
        TinyModel { dtype: GgmlDType::Q4_0, seed: 3, ..base() },
        TinyModel { dtype: GgmlDType::Q5_0, seed: 4, ..base() },
        TinyModel { metadata: with("llama.rope.freq_base", Value::F32(1e6)), seed: 5, ..base() },
    ];
    let written = shapes.iter().enumerate().map(|(number, shape)| {
        let path = folder.join(format!("{number}.gguf"));
        shape.write(&path).unwrap();
        let tokenizer = Tokenizer::load(&GgufFile::open(&path).unwrap().unwrap()).unwrap();
        Model { path, tokenizer }
    });
    written.collect()
}

/// A runner on a cache of its own, and what draws from it.
struct Subject<'m> {
    model: &'m Model,
    runner: Runner,
    pool: BlockPool,
    scheduler: Scheduler,
    level: Level,
    live: BTreeMap<SequenceId, Live>,
    batch: Batch,
    preemptions: u64,
}

/// A request under way.
struct Live {
    sampler: Sampler,
    history: History,
    max_tokens: usize,
    prompt: usize,
    drawn: Vec<Drawn>,
}

impl<'m> Subject<'m> {
    fn new(model: &'m Model, threads: usize, level: Level, blocks: usize, running: usize) -> Self {
        let mut file = GgufFile::open(&model.path).unwrap().unwrap();
        let decoder = Decoder::load(&mut file).unwrap();
        let cpu = Cpu::with_level(threads, level).unwrap();
        cpu.repack(decoder.weights()).unwrap();
        let pool = BlockPool::new(blocks as u32);
        Self {
            model,
            runner: Runner::new(cpu, decoder, blocks),
            scheduler: Scheduler::new(pool.clone(), running),
            pool,
            level,
            live: BTreeMap::new(),
            batch: Batch::default(),
            preemptions: 0,
        }
    }

    fn add(&mut self, id: SequenceId, request: &Request) {
        let key = Key { seed: request.sampling.seed, prompt_index: 0, choice: 0 };
        let live = Live {
            sampler: Sampler::new(request.sampling.clone(), key, self.level),
            history: History::new(&request.prompt),
            max_tokens: request.max_tokens,
            prompt: request.prompt.len(),
            drawn: Vec::new(),
        };
        self.live.insert(id, live);
        self.scheduler.add(id, request.prompt.clone(), request.terms);
    }

    fn remove(&mut self, id: SequenceId) -> Option<Vec<Drawn>> {
        self.scheduler.remove(id);
        self.live.remove(&id).map(|live| live.drawn)
    }

    /// One step; the answers that are complete with it.
    fn step(&mut self, budget: usize) -> Vec<(SequenceId, Vec<Drawn>)> {
        let step = self.scheduler.schedule(budget);
        self.preemptions += step.preempted.len() as u64;
        if step.entries.is_empty() {
            return Vec::new();
        }
        let mut sampling = Vec::new();
        self.batch.fill(&self.scheduler, &step, &mut sampling);
        let vocab = self.runner.decoder().vocab();
        let logits = self.runner.step(&self.batch);
        self.scheduler.commit(&step);
        let mut complete = Vec::new();
        for (id, logits) in sampling.iter().zip(logits.chunks_exact(vocab)) {
            let live = self.live.get_mut(id).unwrap();
            let drawn = live.draw(logits, &self.model.tokenizer, self.level);
            live.drawn.push(drawn);
            match live.drawn.len() < live.max_tokens {
                true => self.scheduler.append(*id, drawn.0),
                false => complete.push(*id),
            }
        }
        complete.into_iter().map(|id| (id, self.remove(id).unwrap())).collect()
    }
}

impl Live {
    fn draw(&mut self, logits: &[f32], tokenizer: &Tokenizer, level: Level) -> Drawn {
        let position = self.prompt + self.drawn.len();
        let token = self
            .sampler
            .sample(
                logits,
                &self.history,
                Restrictions::default(),
                position,
                &mut Scratch::default(),
            )
            .unwrap();
        self.history.push(token);
        let mut hash = DefaultHasher::new();
        logits.iter().for_each(|logit| logit.to_bits().hash(&mut hash));
        let chances = logprobs(logits, token, 5, tokenizer, level);
        for chance in std::iter::once(&chances.token).chain(&chances.top) {
            (chance.id, chance.logprob.to_bits()).hash(&mut hash);
        }
        (token, hash.finish())
    }
}

/// A request that shares its beginning with others, likely.
fn request(rng: &mut Rng, texts: &[Vec<u32>]) -> Request {
    let text = &texts[rng.usize(..texts.len())];
    let mut prompt = text[..rng.usize(1..=PROMPT_MAX)].to_vec();
    if rng.bool() {
        let own = rng.usize(..=PROMPT_MAX - prompt.len());
        prompt.extend((0..own).map(|_| rng.u32(3..260)));
    }
    let sampling = SamplingParams {
        temperature: [0.0, 0.7, 1.0][rng.usize(..3)],
        top_p: [0.8, 1.0][rng.usize(..2)],
        top_k: [0, 20][rng.usize(..2)],
        frequency_penalty: [0.0, 0.3][rng.usize(..2)],
        seed: rng.u64(..),
        ..SamplingParams::default()
    };
    let salt = CacheSalt::of(&[rng.u8(..2)]);
    let computes_all = rng.u8(..8) == 0;
    let terms = Terms { priority: rng.i32(-1..=1), salt, computes_all, ..Terms::default() };
    Request { prompt, max_tokens: rng.usize(1..=ANSWER_MAX), sampling, terms }
}

/// The answer of `request` alone: one thread, plain instructions, a fresh cache, the prompt in one step.
fn alone(model: &Model, request: &Request) -> Vec<Drawn> {
    let blocks = (PROMPT_MAX + ANSWER_MAX).div_ceil(BLOCK_TOKENS);
    let plain = Level::available()[0];
    let mut subject = Subject::new(model, 1, plain, blocks, 1);
    subject.add(SequenceId(0), request);
    loop {
        if let Some((_, drawn)) = subject.step(usize::MAX).pop() {
            return drawn;
        }
    }
}

/// Everything that follows from one seed.
fn run(seed: u64, models: &[Model]) -> Happened {
    let mut rng = Rng::with_seed(seed);
    let model = &models[rng.usize(..models.len())];
    let texts: Vec<Vec<u32>> =
        (0..2).map(|_| (0..PROMPT_MAX).map(|_| rng.u32(3..260)).collect()).collect();
    let mut requests: Vec<Request> =
        (0..rng.usize(3..9)).map(|_| request(&mut rng, &texts)).collect();
    // The same again, word for word, finds all that can be found.
    requests.push(requests[0].clone());
    let levels = Level::available();
    let level = levels[rng.usize(..levels.len())];
    let least = (PROMPT_MAX + ANSWER_MAX).div_ceil(BLOCK_TOKENS);
    let blocks = rng.usize(least..3 * least);
    let mut subject = Subject::new(model, rng.usize(1..=4), level, blocks, rng.usize(1..8));
    let want: Vec<Vec<Drawn>> = requests.iter().map(|request| alone(model, request)).collect();
    let mut happened = Happened::default();
    let mut ids = (0..).map(SequenceId);
    let mut asked: HashMap<SequenceId, usize> = HashMap::new();
    let mut waiting: Vec<usize> = (0..requests.len()).rev().collect();
    let mut paused = Vec::new();
    while !(waiting.is_empty() && subject.live.is_empty()) {
        if rng.u8(..4) == 0
            && let Some(which) = waiting.pop()
        {
            let id = ids.next().unwrap();
            asked.insert(id, which);
            subject.add(id, &requests[which]);
        }
        let live: Vec<SequenceId> = subject.live.keys().copied().collect();
        let any = rng.choice(&live).copied();
        match (rng.u8(..40), any) {
            (0, Some(id)) => {
                let drawn = subject.remove(id).unwrap();
                assert_eq!(drawn[..], want[asked[&id]][..drawn.len()], "{id:?}, cancelled");
                happened.cancels += 1;
                // It comes again later, so that every answer is seen to its end.
                waiting.push(asked[&id]);
            }
            (1..3, Some(id)) => {
                subject.scheduler.pause(id);
                paused.push(id);
                happened.pauses += 1;
            }
            (3..9, _) => paused.drain(..).for_each(|id| subject.scheduler.resume(id)),
            _ => {}
        }
        let budget_max = [9, 40, 300][rng.usize(..3)];
        for (id, drawn) in subject.step(rng.usize(1..budget_max)) {
            happened.tokens += drawn.len() as u64;
            assert_eq!(drawn, want[asked[&id]], "{id:?} on {level} with {blocks} blocks");
        }
    }
    happened.hits = subject.scheduler.prefix_counts().hit;
    happened.evictions = subject.pool.evictions();
    happened.preemptions = subject.preemptions;
    happened
}

#[test]
fn tokens_and_logits_depend_on_the_request_alone() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let models = models(folder.path());
    if let Some(seed) = number("INFERNO_DETERMINISM_SEED") {
        eprintln!("seed {seed}: {:?}", run(seed, &models));
        return;
    }
    let seconds = number("INFERNO_DETERMINISM_SECONDS").unwrap_or(20);
    let end = Instant::now() + Duration::from_secs(seconds);
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let (mut all, mut seeds) = (Happened::default(), 0);
    while Instant::now() < end || seeds == 0 {
        let seed = since.wrapping_add(seeds);
        let happened = catch_unwind(AssertUnwindSafe(|| run(seed, &models)));
        let happened = happened.unwrap_or_else(|panic| {
            eprintln!("run this again with INFERNO_DETERMINISM_SEED={seed}");
            resume_unwind(panic)
        });
        seeds += 1;
        all.hits += happened.hits;
        all.evictions += happened.evictions;
        all.preemptions += happened.preemptions;
        all.cancels += happened.cancels;
        all.pauses += happened.pauses;
        all.tokens += happened.tokens;
    }
    eprintln!("{seeds} seeds: {all:?}");
    let Happened { hits, evictions, preemptions, cancels, pauses, tokens } = all;
    let least = [hits, evictions, preemptions, cancels, pauses, tokens].into_iter().min();
    assert!(seeds < SEEDS_TELLING || least > Some(0), "something never happened: {all:?}");
}
