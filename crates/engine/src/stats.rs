//! What the engine tells about itself while it runs: atomics only, so that nobody who asks can slow it.

use crate::cache::{BLOCK_TOKENS, BlockPool, Miss};
use crate::error::SubmitError;
use crate::scheduler::{PrefixCounts, Scheduler};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counters and gauges of one engine. Reading them takes no lock; two read together may be a step apart.
#[derive(Debug)]
pub struct EngineStats {
    started: Instant,
    kv_blocks_total: u64,
    running: AtomicU64,
    waiting: AtomicU64,
    waiting_tokens: AtomicU64,
    paused: AtomicU64,
    kv_blocks_used: AtomicU64,
    kv_blocks_kept: AtomicU64,
    prefix_hit_tokens: AtomicU64,
    prefix_missed_tokens: [AtomicU64; Miss::ALL.len()],
    evictions: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generation_tokens: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    pub(crate) deadlines_exceeded: AtomicU64,
    pub(crate) slow_readers: AtomicU64,
    progress_ms: AtomicU64,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) requests: usize,
    /// Tokens of all prompts; one alone may have more.
    pub(crate) tokens: usize,
}

/// Requests and tokens in the scheduler's queue, as far as they are in the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) requests: usize,
    pub(crate) tokens: usize,
}

impl EngineStats {
    pub(crate) fn new(kv_blocks: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            started: Instant::now(),
            kv_blocks_total: kv_blocks as u64,
            running: zero(),
            waiting: zero(),
            waiting_tokens: zero(),
            paused: zero(),
            kv_blocks_used: zero(),
            kv_blocks_kept: zero(),
            prefix_hit_tokens: zero(),
            prefix_missed_tokens: Miss::ALL.map(|_| zero()),
            evictions: zero(),
            prompt_tokens: zero(),
            generation_tokens: zero(),
            steps: zero(),
            preemptions: zero(),
            deadlines_exceeded: zero(),
            slow_readers: zero(),
            progress_ms: zero(),
        }
    }

    /// Requests that have a slot, in prefill or decoding.
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Tokens of the requests that wait for a slot.
    pub fn waiting_tokens(&self) -> u64 {
        self.waiting_tokens.load(Relaxed)
    }

    /// Requests that stand still because their clients do not read.
    pub fn paused(&self) -> u64 {
        self.paused.load(Relaxed)
    }

    /// Blocks of the KV cache that requests hold.
    pub fn kv_blocks_used(&self) -> u64 {
        self.kv_blocks_used.load(Relaxed)
    }

    /// Blocks of the KV cache that nobody holds and that are kept for a prefix to come.
    pub fn kv_blocks_kept(&self) -> u64 {
        self.kv_blocks_kept.load(Relaxed)
    }

    /// Blocks of the KV cache.
    pub fn kv_blocks_total(&self) -> u64 {
        self.kv_blocks_total
    }

    /// Tokens that the whole cache holds.
    pub fn kv_tokens_total(&self) -> u64 {
        self.kv_blocks_total * BLOCK_TOKENS as u64
    }

    /// Tokens of prompts that the prefix cache held, since the start.
    pub fn prefix_hit_tokens_total(&self) -> u64 {
        self.prefix_hit_tokens.load(Relaxed)
    }

    /// Tokens of prompts that had to be computed for this reason, since the start.
    pub fn prefix_missed_tokens_total(&self, why: Miss) -> u64 {
        self.prefix_missed_tokens[why as usize].load(Relaxed)
    }

    /// Kept blocks whose memory was needed for something else, since the start.
    pub fn kv_evictions_total(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Prompt tokens of finished prefills since the start.
    pub fn prompt_tokens_total(&self) -> u64 {
        self.prompt_tokens.load(Relaxed)
    }

    /// Tokens generated since the start.
    pub fn generation_tokens_total(&self) -> u64 {
        self.generation_tokens.load(Relaxed)
    }

    /// Steps made since the start: the engine's heartbeat.
    pub fn steps_total(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Times that a request lost its blocks to others, to be computed again.
    pub fn preemptions_total(&self) -> u64 {
        self.preemptions.load(Relaxed)
    }

    /// Requests that were ended because their deadline was over.
    pub fn deadlines_exceeded_total(&self) -> u64 {
        self.deadlines_exceeded.load(Relaxed)
    }

    /// Requests that were ended because their client did not read.
    pub fn slow_readers_total(&self) -> u64 {
        self.slow_readers.load(Relaxed)
    }

    /// Monotonic milliseconds, since the engine was made, of the last step (or of the moment work arrived at
    /// an idle engine).
    pub fn last_step_ms(&self) -> u64 {
        self.progress_ms.load(Relaxed)
    }

    /// Notes that the engine is alive now.
    pub(crate) fn progress(&self) {
        self.progress_ms.store(self.started.elapsed().as_millis() as u64, Relaxed);
    }

    /// Whether work waits and no step was made for `after`.
    pub(crate) fn is_stalled(&self, after: Duration) -> bool {
        let idle =
            self.started.elapsed().saturating_sub(Duration::from_millis(self.last_step_ms()));
        self.running() + self.waiting() > 0 && idle > after
    }

    /// Takes a place in the queue for a prompt of `tokens`.
    ///
    /// # Errors
    /// When the queue is full, with the limit that it is at.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        tokens: usize,
        limits: QueueLimits,
    ) -> Result<Place, SubmitError> {
        if self.running() + self.waiting() == 0 {
            self.progress();
        }
        let place = |waiting| (waiting < limits.requests as u64).then_some(waiting + 1);
        self.waiting
            .fetch_update(Relaxed, Relaxed, place)
            .map_err(|_| SubmitError::QueueFull { limit: limits.requests })?;
        // From here on the place is given back when it is dropped.
        let mut place = Place { stats: Some(Arc::clone(self)), tokens: 0 };
        let room = |waiting: u64| {
            let sum = waiting.saturating_add(tokens as u64);
            (waiting == 0 || sum <= limits.tokens as u64).then_some(sum)
        };
        self.waiting_tokens.fetch_update(Relaxed, Relaxed, room).map_err(|waiting| {
            SubmitError::QueueTokens { prompt: tokens, waiting, limit: limits.tokens }
        })?;
        place.tokens = tokens;
        Ok(place)
    }

    /// Counts `now` waiting instead of `before`. By the difference only, for submitters count too and must
    /// not see more than there are.
    pub(crate) fn recount(&self, before: Queued, now: Queued) {
        let recount = |gauge: &AtomicU64, before: usize, now: usize| match now >= before {
            true => gauge.fetch_add((now - before) as u64, Relaxed),
            false => gauge.fetch_sub((before - now) as u64, Relaxed),
        };
        recount(&self.waiting, before.requests, now.requests);
        recount(&self.waiting_tokens, before.tokens, now.tokens);
    }

    /// Writes how many requests have a slot.
    pub(crate) fn set_running(&self, requests: usize) {
        self.running.store(requests as u64, Relaxed);
    }

    /// Writes what the scheduler and its pool say; the queue apart, see [`EngineStats::recount`].
    pub(crate) fn publish(&self, scheduler: &Scheduler, pool: &BlockPool) {
        self.set_running(scheduler.running());
        self.paused.store(scheduler.paused() as u64, Relaxed);
        self.kv_blocks_used.store((pool.total() - pool.available()) as u64, Relaxed);
        self.kv_blocks_kept.store(pool.kept() as u64, Relaxed);
        self.evictions.store(pool.evictions(), Relaxed);
        let PrefixCounts { hit, missed } = scheduler.prefix_counts();
        self.prefix_hit_tokens.store(hit, Relaxed);
        for (gauge, count) in self.prefix_missed_tokens.iter().zip(missed) {
            gauge.store(count, Relaxed);
        }
    }
}

/// A request's place in the queue on its way to the engine thread; given back when it is dropped.
pub(crate) struct Place {
    stats: Option<Arc<EngineStats>>,
    tokens: usize,
}

impl Place {
    /// Leaves the place to whoever counts it from now on.
    pub(crate) fn hand_over(mut self) {
        self.stats = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(stats) = &self.stats {
            let one = Queued { requests: 1, tokens: self.tokens };
            stats.recount(one, Queued::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: QueueLimits = QueueLimits { requests: 2, tokens: 10 };

    #[test]
    fn only_waiting_work_without_steps_is_a_stall() {
        let started = Instant::now() - Duration::from_secs(10);
        let stats = EngineStats { started, ..EngineStats::new(4) };
        assert!(!stats.is_stalled(Duration::from_secs(5)), "idle is no stall");
        stats.waiting.store(1, Relaxed);
        assert!(stats.is_stalled(Duration::from_secs(5)));
        assert!(!stats.is_stalled(Duration::from_secs(60)));
        stats.progress();
        assert!(!stats.is_stalled(Duration::from_secs(5)));
    }

    #[test]
    fn work_that_comes_to_an_idle_engine_is_no_stall() {
        let started = Instant::now() - Duration::from_secs(10);
        let stats = Arc::new(EngineStats { started, ..EngineStats::new(4) });
        let _place = stats.enqueue(1, TWO).expect("room");
        assert!(!stats.is_stalled(Duration::from_secs(5)));
    }

    #[test]
    fn the_queue_has_an_end() {
        let stats = Arc::new(EngineStats::new(4));
        let first = stats.enqueue(1, TWO).expect("room");
        let second = stats.enqueue(1, TWO).expect("room");
        assert_eq!(stats.enqueue(1, TWO).err(), Some(SubmitError::QueueFull { limit: 2 }));
        assert_eq!((stats.waiting(), stats.waiting_tokens()), (2, 2));
        drop(first);
        assert_eq!(stats.waiting(), 1, "a request that came to nothing");
        second.hand_over();
        assert_eq!(stats.waiting(), 1, "the scheduler counts it");
    }

    #[test]
    fn the_queue_has_an_end_in_tokens_too() {
        let stats = Arc::new(EngineStats::new(4));
        let long = stats.enqueue(50, TWO).expect("one alone may be longer");
        let full = SubmitError::QueueTokens { prompt: 1, waiting: 50, limit: 10 };
        assert_eq!(stats.enqueue(1, TWO).err(), Some(full));
        assert_eq!((stats.waiting(), stats.waiting_tokens()), (1, 50), "nothing of it stays");
        drop(long);
        let _short = stats.enqueue(6, TWO).expect("room");
        assert!(stats.enqueue(5, TWO).is_err() && stats.enqueue(4, TWO).is_ok());
    }

    #[test]
    fn a_recount_never_shows_more_than_there_are() {
        let stats = Arc::new(EngineStats::new(4));
        let one = Queued { requests: 1, tokens: 1 };
        stats.recount(Queued::default(), one);
        let recounting = std::thread::scope(|scope| {
            let worker = scope.spawn(|| (0..200_000).for_each(|_| stats.recount(one, one)));
            while !worker.is_finished() {
                assert!(stats.enqueue(1, TWO).is_ok(), "one of two places is free");
            }
            worker.join()
        });
        assert!(recounting.is_ok());
        stats.recount(one, Queued::default());
        assert_eq!(stats.waiting(), 0);
    }
}
