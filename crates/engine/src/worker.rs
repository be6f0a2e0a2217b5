//! The engine thread: takes requests, makes steps, gives tokens.
//!
//! It blocks on one thing only, its own inbox, and only when there is nothing to compute; so an idle engine
//! costs no CPU. A sequence whose client does not read leaves the batch until the client has read, or is
//! ended after a while; so a slow client costs nobody anything.

use crate::batch::Batch;
use crate::cache::BlockPool;
use crate::error::{GenerationError, panic_message};
use crate::generation::{Active, Next};
use crate::life::Live;
use crate::runner::{Runner, SCORED_ROWS};
use crate::sampling;
use crate::scheduler::cost::{StepCost, Work};
use crate::scheduler::{Entry, Scheduler, SequenceId, Step, Terms};
use crate::stats::{EngineStats, Place, Queued};
use crate::tokenizer::Tokenizer;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Most tokens in one step: bounds the activations' memory.
pub const STEP_TOKENS_MAX: usize = 512;

/// What the engine thread is told.
pub(crate) enum Command {
    /// A request that was checked, with its prompt, what it asks of the scheduler, and its place in the queue.
    Generate(Box<Active>, Vec<u32>, Terms, Place),
    /// A client has read, or left, whose sequence stands still.
    Wake,
    /// End now.
    Shutdown,
}

/// The thread's state.
pub(crate) struct Worker {
    pub(crate) inbox: Receiver<Command>,
    pub(crate) runner: Runner,
    pub(crate) scheduler: Scheduler,
    pub(crate) pool: BlockPool,
    pub(crate) cost: StepCost,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) stats: Arc<EngineStats>,
    pub(crate) active: HashMap<SequenceId, Box<Active>>,
    /// Sequences whose clients do not read, and since when.
    pub(crate) parked: BTreeMap<SequenceId, Instant>,
    /// How long a client may not read.
    pub(crate) reader_timeout: Duration,
    pub(crate) next_id: u64,
    /// What of the scheduler's queue is counted in the statistics.
    pub(crate) queued: Queued,
    /// Memory that is used again in each step.
    pub(crate) scratch: StepScratch,
}

/// What a step is made in.
#[derive(Default)]
pub(crate) struct StepScratch {
    batch: Batch,
    sampling: Vec<SequenceId>,
    sampler: sampling::Scratch,
}

impl Live for Worker {
    /// A panic in the step, outside one request's own part, is the end of the engine.
    fn turn(&mut self) -> bool {
        let more = self.receive();
        if more {
            self.tend(Instant::now());
            self.step();
        }
        more
    }

    /// One who submits just now finds it out by itself, see [`crate::Generation::next`].
    fn end(&mut self) {
        for (id, active) in std::mem::take(&mut self.active) {
            active.fail(GenerationError::Stopped);
            self.scheduler.remove(id);
        }
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Generate(active, ..) = command {
                active.fail(GenerationError::Stopped);
            }
        }
        self.publish();
    }
}

impl Worker {
    /// Takes what is in the inbox, waiting only when there is nothing to compute. False at the end.
    fn receive(&mut self) -> bool {
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) if !self.scheduler.is_idle() => return true,
                Err(TryRecvError::Disconnected) => return !self.active.is_empty(),
                Err(TryRecvError::Empty) => match self.wait() {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => return false,
                },
            };
            match command {
                Command::Shutdown => return false,
                Command::Wake => return true,
                Command::Generate(active, prompt, terms, place) => {
                    place.hand_over();
                    self.queued.requests += 1;
                    self.queued.tokens += prompt.len();
                    let id = SequenceId(self.next_id);
                    self.next_id += 1;
                    self.scheduler.add(id, prompt, terms);
                    self.active.insert(id, active);
                }
            }
        }
    }

    /// Sleeps until told something, or until the time of a sequence that stands still is over.
    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        let patience = self.parked.values().min().map(|since| *since + self.reader_timeout);
        match patience.into_iter().chain(self.scheduler.next_deadline()).min() {
            Some(time) => self.inbox.recv_timeout(time.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Ends what is cancelled or late, and lets go on what was read.
    fn tend(&mut self, now: Instant) {
        let cancelled = self.active.iter().filter(|(_, active)| active.is_cancelled());
        for id in cancelled.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
        for id in self.scheduler.expired(now) {
            self.stats.deadlines_exceeded.fetch_add(1, Relaxed);
            self.fail(id, GenerationError::DeadlineExceeded);
        }
        for (id, since) in self.parked.clone() {
            if self.active.get(&id).is_some_and(|active| active.is_ready()) {
                self.parked.remove(&id);
                self.scheduler.resume(id);
                self.stats.progress();
            } else if now.saturating_duration_since(since) >= self.reader_timeout {
                self.stats.slow_readers.fetch_add(1, Relaxed);
                self.fail(id, GenerationError::SlowReader(self.reader_timeout));
            }
        }
        self.publish();
    }

    fn fail(&mut self, id: SequenceId, error: GenerationError) {
        if let Some(active) = self.active.get(&id) {
            let _inside = active.span().entered();
            tracing::debug!(%error, "a request was ended");
            active.fail(error);
        }
        self.forget(id);
    }

    fn forget(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.active.remove(&id);
        self.parked.remove(&id);
    }

    /// Schedules, computes and gives out one step.
    fn step(&mut self) {
        let budget = self.cost.budget(self.scheduler.load(), STEP_TOKENS_MAX);
        let step = self.scheduler.schedule(budget);
        self.stats.preemptions.fetch_add(step.preempted.len() as u64, Relaxed);
        self.publish();
        if step.entries.is_empty() {
            return;
        }
        let started = Instant::now();
        self.note_start(&step, started);
        let StepScratch { mut batch, mut sampling, mut sampler } =
            std::mem::take(&mut self.scratch);
        batch.fill(&self.scheduler, &step, &mut sampling);
        let vocab = self.runner.decoder().vocab();
        let logits = match self.scores(&step) {
            false => self.runner.step(&batch),
            true => {
                self.runner.step(&batch);
                self.score(&step);
                self.runner.logits(&batch.sampled)
            }
        };
        let now = Instant::now();
        let mut work = Work::default();
        step.entries.iter().for_each(|entry| work.add(&entry.tokens));
        self.cost.observe(work, now.duration_since(started));
        self.scheduler.commit(&step);
        for (id, logits) in sampling.iter().zip(logits.chunks_exact(vocab)) {
            let Some(active) = self.active.get_mut(id) else { continue };
            active.cached_tokens = self.scheduler.cached_tokens(*id);
            match advance(active, logits, &mut sampler, &self.tokenizer, &self.stats, now) {
                Next::Continue(token) => {
                    self.scheduler.append(*id, token);
                    if !active.has_room() && active.park() {
                        self.scheduler.pause(*id);
                        self.parked.insert(*id, now);
                    }
                }
                Next::End => {
                    self.scheduler.remove(*id);
                    self.active.remove(id);
                }
            }
        }
        self.scratch = StepScratch { batch, sampling, sampler };
        self.stats.steps.fetch_add(1, Relaxed);
        self.stats.progress();
        self.publish();
    }

    /// Whether the step computes a part of a prompt whose log-probabilities are asked for.
    fn scores(&self, step: &Step) -> bool {
        let unscored = |entry: &Entry| Some(self.active.get(&entry.id)?.unscored(&entry.tokens));
        step.entries.iter().filter_map(unscored).any(|positions| !positions.is_empty())
    }

    /// Gives the log-probabilities of prompts to those who asked for them, a few rows at a time: all rows of a
    /// step at once could need a gigabyte.
    fn score(&mut self, step: &Step) {
        let (vocab, mut row) = (self.runner.decoder().vocab(), 0);
        for entry in &step.entries {
            let first_row = row;
            row += entry.tokens.len();
            let Some(active) = self.active.get_mut(&entry.id) else { continue };
            let wanted = active.unscored(&entry.tokens);
            let rows: Vec<usize> =
                wanted.map(|position| first_row + position - entry.tokens.start).collect();
            for rows in rows.chunks(SCORED_ROWS) {
                for logits in self.runner.logits(rows).chunks_exact(vocab) {
                    active.score(logits, &self.tokenizer);
                }
            }
        }
    }

    fn note_start(&mut self, step: &Step, now: Instant) {
        for entry in &step.entries {
            if let Some(active) = self.active.get_mut(&entry.id) {
                active.start(now);
            }
        }
    }

    /// Writes the gauges.
    fn publish(&mut self) {
        self.stats.publish(&self.scheduler, &self.pool);
        let (requests, tokens) = (self.scheduler.waiting(), self.scheduler.waiting_tokens());
        let queued = Queued { requests, tokens };
        self.stats.recount(self.queued, queued);
        self.queued = queued;
    }
}

/// One request's part after the shared step. Whatever goes wrong here ends this request alone.
fn advance(
    active: &mut Active,
    logits: &[f32],
    scratch: &mut sampling::Scratch,
    tokenizer: &Tokenizer,
    stats: &EngineStats,
    now: Instant,
) -> Next {
    let _inside = active.span().entered();
    if active.is_fresh() {
        stats.prompt_tokens.fetch_add(active.prompt_tokens() as u64, Relaxed);
    }
    let before = active.generated();
    let outcome =
        catch_unwind(AssertUnwindSafe(|| active.advance(logits, scratch, tokenizer, now)));
    stats.generation_tokens.fetch_add((active.generated() - before) as u64, Relaxed);
    let message = match outcome {
        Ok(Ok(next)) => return next,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_message(panic.as_ref()),
    };
    tracing::error!(%message, "a request failed inside the engine");
    active.fail(GenerationError::Request(message));
    Next::End
}
