//! The embedder's thread: takes requests, makes steps, answers.
//!
//! As the engine's, it blocks on its inbox alone, and only with nothing to compute.

use super::embedder::Embedded;
use super::encoder::{Encoder, Scratch};
use super::turns::{RequestId, Turns};
use crate::error::GenerationError;
use crate::life::Live;
use crate::request::Timings;
use crate::stats::{EngineStats, Place, Queued};
use inferno_kernels::Cpu;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;
use tokio::sync::oneshot;

/// What the thread is told.
pub(super) enum Command {
    /// Texts that were checked, with their place in the queue.
    Embed(Box<Job>, Place),
    /// End now.
    Shutdown,
}

/// How a job ends.
pub(super) type Outcome = Result<Embedded, GenerationError>;

/// A request under way.
pub(super) struct Job {
    /// Token ids of each text.
    pub(super) texts: Vec<Vec<u32>>,
    /// The vectors that are there; empty where there is none yet.
    pub(super) vectors: Vec<Vec<f32>>,
    /// How many are missing.
    pub(super) missing: usize,
    pub(super) reply: oneshot::Sender<Outcome>,
    pub(super) submitted: Instant,
    pub(super) started: Option<Instant>,
    /// Its texts' share of the backlog.
    pub(super) _claim: Claim,
}

/// Texts that count as waiting for as long as this lives.
pub(super) struct Claim {
    backlog: Arc<AtomicUsize>,
    texts: usize,
}

impl Claim {
    /// Counts `texts` more, unless `limit` or more are waiting.
    pub(super) fn take(backlog: &Arc<AtomicUsize>, texts: usize, limit: usize) -> Option<Self> {
        let more = |waiting: usize| (waiting < limit).then(|| waiting + texts);
        backlog.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self { backlog: Arc::clone(backlog), texts })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.backlog.fetch_sub(self.texts, Relaxed);
    }
}

/// The thread's state.
pub(super) struct Worker {
    pub(super) inbox: Receiver<Command>,
    pub(super) cpu: Cpu,
    pub(super) encoder: Encoder,
    pub(super) scratch: Scratch,
    /// Most tokens of a step.
    pub(super) step_tokens: usize,
    pub(super) stats: Arc<EngineStats>,
    pub(super) turns: Turns,
    pub(super) jobs: HashMap<RequestId, Box<Job>>,
    pub(super) next_id: u64,
    /// What is counted in the statistics as waiting.
    pub(super) queued: Queued,
}

impl Live for Worker {
    /// A panic in the step is the end of the embedder.
    fn turn(&mut self) -> bool {
        let more = self.receive();
        if more {
            self.drop_cancelled();
            self.step();
        }
        more
    }

    fn end(&mut self) {
        for (id, job) in std::mem::take(&mut self.jobs) {
            self.turns.remove(id);
            drop(job.reply.send(Err(GenerationError::Stopped)));
        }
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Embed(job, _) = command {
                drop(job.reply.send(Err(GenerationError::Stopped)));
            }
        }
        self.publish();
    }
}

impl Worker {
    /// Brings the weights into memory and the buffers to size, before anybody waits for it.
    pub(super) fn warm_up(&mut self) {
        let text = vec![0; self.encoder.config().tokens_max];
        let texts = vec![&text[..]; (self.step_tokens / text.len()).max(1)];
        self.encoder.forward(&self.cpu, &texts, &mut self.scratch);
    }

    /// Takes what is in the inbox, waiting only when there is nothing to compute. False at the end.
    fn receive(&mut self) -> bool {
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) if !self.turns.is_empty() => return true,
                Err(TryRecvError::Disconnected) => return !self.turns.is_empty(),
                Err(TryRecvError::Empty) => match self.inbox.recv() {
                    Ok(command) => command,
                    Err(_) => return false,
                },
            };
            match command {
                Command::Shutdown => return false,
                Command::Embed(job, place) => {
                    place.hand_over();
                    self.queued.requests += 1;
                    self.queued.tokens += job.texts.iter().map(Vec::len).sum::<usize>();
                    let id = RequestId(self.next_id);
                    self.next_id += 1;
                    self.turns.add(id, job.texts.iter().map(Vec::len).collect());
                    self.jobs.insert(id, job);
                }
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let turns = &mut self.turns;
        self.jobs.retain(|id, job| {
            let stays = !job.reply.is_closed();
            if !stays {
                turns.remove(*id);
            }
            stays
        });
        self.publish();
    }

    /// Computes and gives out one step.
    fn step(&mut self) {
        let chosen = self.turns.step(self.step_tokens);
        if chosen.is_empty() {
            return;
        }
        let now = Instant::now();
        for (id, _) in &chosen {
            if let Some(job) = self.jobs.get_mut(id) {
                job.started.get_or_insert(now);
            }
        }
        self.publish();
        let texts: Vec<&[u32]> =
            chosen.iter().map(|(id, text)| &self.jobs[id].texts[*text][..]).collect();
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let vectors = self.encoder.forward(&self.cpu, &texts, &mut self.scratch);
        // Whoever has an answer finds it counted.
        self.stats.prompt_tokens.fetch_add(tokens as u64, Relaxed);
        self.stats.steps.fetch_add(1, Relaxed);
        self.stats.progress();
        for ((id, text), vector) in chosen.into_iter().zip(vectors) {
            self.keep(id, text, vector);
        }
        self.publish();
    }

    /// Puts a vector in its place, and answers when it was the last.
    fn keep(&mut self, id: RequestId, text: usize, vector: Vec<f32>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.vectors[text] = vector;
        job.missing -= 1;
        if job.missing == 0
            && let Some(job) = self.jobs.remove(&id)
        {
            job.finish(Instant::now());
        }
    }

    /// Writes the gauges.
    fn publish(&mut self) {
        let running = self.jobs.values().filter(|job| job.started.is_some()).count();
        let waiting = self.jobs.len() - running;
        self.stats.set_running(running);
        let tokens = |job: &Job| job.texts.iter().map(Vec::len).sum::<usize>();
        let waits = self.jobs.values().filter(|job| job.started.is_none());
        let queued = Queued { requests: waiting, tokens: waits.map(|job| tokens(job)).sum() };
        self.stats.recount(self.queued, queued);
        self.queued = queued;
    }
}

impl Job {
    /// Answers. Nobody may be listening any more, which is no failure.
    fn finish(self, now: Instant) {
        let started = self.started.unwrap_or(now);
        let timings = Timings {
            queue: started.saturating_duration_since(self.submitted),
            prefill: now.saturating_duration_since(started),
            ..Timings::default()
        };
        let prompt_tokens = self.texts.iter().map(Vec::len).sum();
        drop(self.reply.send(Ok(Embedded { vectors: self.vectors, prompt_tokens, timings })));
    }
}
