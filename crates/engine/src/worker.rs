//! The engine thread: takes requests, makes steps, gives tokens.
//!
//! It blocks on one thing only, its own inbox, and only when there is nothing to compute; so an idle engine
//! costs no CPU and a slow client costs nobody anything.

use crate::batch::Batch;
use crate::cache::BlockPool;
use crate::error::{GenerationError, panic_message};
use crate::generation::{Active, Next};
use crate::runner::{Runner, SCORED_ROWS};
use crate::sampling::Scratch;
use crate::scheduler::cost::StepCost;
use crate::scheduler::{Entry, Scheduler, SequenceId, Step};
use crate::stats::{EngineStats, Place};
use crate::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;
use tokio::sync::watch;

/// Most tokens in one step: bounds the activations' memory.
pub const STEP_TOKENS_MAX: usize = 512;

/// What the engine thread is told.
pub(crate) enum Command {
    /// A request that was checked, with its prompt and its place in the queue.
    Generate(Box<Active>, Vec<u32>, Place),
    /// End now.
    Shutdown,
}

/// What the thread has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It works.
    Running,
    /// It was told to end, or nobody could submit any more.
    Ended,
    /// It panicked, with this message.
    Failed(String),
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
    pub(crate) life: watch::Sender<Life>,
    pub(crate) active: HashMap<SequenceId, Box<Active>>,
    pub(crate) next_id: u64,
    /// Requests of the scheduler's queue that are counted in `stats.waiting`.
    pub(crate) queued: usize,
    /// The samplers' buffers.
    pub(crate) scratch: Scratch,
}

impl Worker {
    /// Works until shut down, until nobody can submit and all is done, or until something that all requests
    /// share panics.
    pub(crate) fn run(mut self) {
        let work = || {
            while self.receive() {
                self.drop_cancelled();
                self.step();
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(work));
        if let Err(panic) = &outcome {
            let message = panic_message(panic.as_ref());
            tracing::error!(%message, "the engine failed and ends");
            self.life.send_replace(Life::Failed(message));
        }
        self.end();
        if outcome.is_ok() {
            self.life.send_replace(Life::Ended);
        }
    }

    /// Takes what is in the inbox, waiting only when there is nothing to compute. False at the end.
    fn receive(&mut self) -> bool {
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) if !self.scheduler.is_idle() => return true,
                Err(TryRecvError::Disconnected) => return !self.scheduler.is_idle(),
                Err(TryRecvError::Empty) => match self.inbox.recv() {
                    Ok(command) => command,
                    Err(_) => return false,
                },
            };
            match command {
                Command::Shutdown => return false,
                Command::Generate(active, prompt, place) => {
                    place.hand_over();
                    self.queued += 1;
                    let id = SequenceId(self.next_id);
                    self.next_id += 1;
                    self.scheduler.add(id, prompt);
                    self.active.insert(id, active);
                }
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let cancelled = self.active.iter().filter(|(_, active)| active.is_cancelled());
        for id in cancelled.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
        self.publish();
    }

    fn forget(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.active.remove(&id);
    }

    /// Schedules, computes and gives out one step. A panic in here, outside one request's own part, is the end
    /// of the engine.
    fn step(&mut self) {
        let budget = self.cost.budget(self.scheduler.decoding(), STEP_TOKENS_MAX);
        let step = self.scheduler.schedule(budget);
        self.publish();
        if step.entries.is_empty() {
            return;
        }
        let started = Instant::now();
        self.note_start(&step, started);
        let (batch, sampling) = Batch::new(&self.scheduler, &step);
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
        self.cost.observe(batch.len(), now.duration_since(started));
        self.scheduler.commit(&step);
        for (id, logits) in sampling.into_iter().zip(logits.chunks_exact(vocab)) {
            let Some(active) = self.active.get_mut(&id) else { continue };
            let scratch = &mut self.scratch;
            match advance(active, logits, scratch, &self.tokenizer, &self.stats, now) {
                Next::Continue(token) => self.scheduler.append(id, token),
                Next::End => {
                    self.scheduler.remove(id);
                    self.active.remove(&id);
                }
            }
        }
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
        self.stats.preemptions.fetch_add(step.preempted.len() as u64, Relaxed);
    }

    /// Writes the gauges.
    fn publish(&mut self) {
        let (stats, pool, waiting) = (&self.stats, &self.pool, self.scheduler.waiting());
        stats.running.store(self.scheduler.running() as u64, Relaxed);
        stats.kv_blocks_used.store((pool.total() - pool.free()) as u64, Relaxed);
        stats.recount_waiting(self.queued, waiting);
        self.queued = waiting;
    }

    /// Tells every client that nothing more comes. One who submits just now finds it out by itself, see
    /// [`crate::Generation::next`].
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

/// One request's part after the shared step. Whatever goes wrong here ends this request alone.
fn advance(
    active: &mut Active,
    logits: &[f32],
    scratch: &mut Scratch,
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
