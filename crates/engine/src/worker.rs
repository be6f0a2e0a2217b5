//! The engine thread: takes requests, makes steps, gives tokens.
//!
//! It blocks on one thing only, its own inbox, and only when there is nothing to compute; so an idle engine
//! costs no CPU and a slow client costs nobody anything.

use crate::batch::Batch;
use crate::cache::BlockPool;
use crate::error::GenerationError;
use crate::generation::{Active, Next};
use crate::runner::Runner;
use crate::scheduler::cost::StepCost;
use crate::scheduler::{Scheduler, SequenceId, Step};
use crate::stats::EngineStats;
use crate::tokenizer::Tokenizer;
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;
use tokio::sync::watch;

/// Most tokens in one step: bounds the activations' memory.
pub(crate) const STEP_TOKENS_MAX: usize = 512;

/// What the engine thread is told.
pub(crate) enum Command {
    /// A request that was checked and counted as waiting, with its prompt.
    Generate(Box<Active>, Vec<u32>),
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
    /// Set once, to what the shared step failed of.
    pub(crate) failure: watch::Sender<Option<String>>,
    pub(crate) active: HashMap<SequenceId, Box<Active>>,
    pub(crate) next_id: u64,
    /// Requests of the scheduler's queue that are counted in `stats.waiting`.
    pub(crate) queued: usize,
}

impl Worker {
    /// Works until shut down, until nobody can submit and all is done, or until a step fails.
    pub(crate) fn run(mut self) {
        while self.receive() {
            self.drop_cancelled();
            if let Err(message) = self.step() {
                tracing::error!(%message, "the shared step failed; the engine ends");
                self.failure.send_replace(Some(message));
                break;
            }
        }
        self.end();
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
                Command::Generate(active, prompt) => {
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

    /// Schedules, computes and gives out one step. The error is the end of the engine.
    fn step(&mut self) -> Result<(), String> {
        let budget = self.cost.budget(self.scheduler.decoding(), STEP_TOKENS_MAX);
        let step = self.scheduler.schedule(budget);
        self.publish();
        if step.entries.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        self.note_start(&step, started);
        let (batch, sampling) = Batch::new(&self.scheduler, &step);
        let vocab = self.runner.decoder().vocab();
        let (runner, batch) = (&mut self.runner, &batch);
        let compute = move || {
            // Moved in, so that the logits can borrow from it after the closure is gone.
            let runner = runner;
            runner.step(batch)
        };
        let logits = catch_unwind(AssertUnwindSafe(compute))
            .map_err(|panic| panic_message(panic.as_ref()))?;
        let now = Instant::now();
        self.cost.observe(batch.len(), now.duration_since(started));
        self.scheduler.commit(&step);
        for (id, logits) in sampling.into_iter().zip(logits.chunks_exact(vocab)) {
            let Some(active) = self.active.get_mut(&id) else { continue };
            match advance(active, logits, &self.tokenizer, &self.stats, now) {
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
        Ok(())
    }

    fn note_start(&mut self, step: &Step, now: Instant) {
        for entry in &step.entries {
            if let Some(active) = self.active.get_mut(&entry.id) {
                active.start(now);
            }
        }
        self.stats.preemptions.fetch_add(step.preempted.len() as u64, Relaxed);
    }

    /// Writes the gauges. `waiting` is changed by the difference only, for submitters count into it too.
    fn publish(&mut self) {
        let (stats, pool, waiting) = (&self.stats, &self.pool, self.scheduler.waiting());
        stats.running.store(self.scheduler.running() as u64, Relaxed);
        stats.kv_blocks_used.store((pool.total() - pool.free()) as u64, Relaxed);
        stats.waiting.fetch_add(waiting as u64, Relaxed);
        stats.waiting.fetch_sub(self.queued as u64, Relaxed);
        self.queued = waiting;
    }

    /// Tells every client that nothing more comes.
    fn end(mut self) {
        for (id, active) in std::mem::take(&mut self.active) {
            active.fail(GenerationError::Stopped);
            self.scheduler.remove(id);
        }
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Generate(active, _) = command {
                active.fail(GenerationError::Stopped);
                self.queued += 1;
            }
        }
        self.publish();
    }
}

/// One request's part after the shared step. Whatever goes wrong here ends this request alone.
fn advance(
    active: &mut Active,
    logits: &[f32],
    tokenizer: &Tokenizer,
    stats: &EngineStats,
    now: Instant,
) -> Next {
    if active.is_fresh() {
        stats.prompt_tokens.fetch_add(active.prompt_tokens() as u64, Relaxed);
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| active.advance(logits, tokenizer, now)));
    let message = match outcome {
        Ok(Ok(next)) => {
            stats.generation_tokens.fetch_add(1, Relaxed);
            return next;
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_message(panic.as_ref()),
    };
    tracing::error!(%message, "a request failed inside the engine");
    active.fail(GenerationError::Request(message));
    Next::End
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}
