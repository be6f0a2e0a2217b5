//! What the engine tells about itself while it runs: atomics only, so that nobody who asks can slow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counters and gauges of one engine. Reading them takes no lock; two read together may be a step apart.
#[derive(Debug)]
pub struct EngineStats {
    started: Instant,
    pub(crate) running: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) kv_blocks_used: AtomicU64,
    pub(crate) kv_blocks_total: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generation_tokens: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    progress_ms: AtomicU64,
}

impl EngineStats {
    pub(crate) fn new(kv_blocks: usize) -> Self {
        Self {
            started: Instant::now(),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            kv_blocks_used: AtomicU64::new(0),
            kv_blocks_total: AtomicU64::new(kv_blocks as u64),
            prompt_tokens: AtomicU64::new(0),
            generation_tokens: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            progress_ms: AtomicU64::new(0),
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

    /// Blocks of the KV cache in use.
    pub fn kv_blocks_used(&self) -> u64 {
        self.kv_blocks_used.load(Relaxed)
    }

    /// Blocks of the KV cache.
    pub fn kv_blocks_total(&self) -> u64 {
        self.kv_blocks_total.load(Relaxed)
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

    /// Requests that lost their blocks to older ones and were computed again.
    pub fn preemptions_total(&self) -> u64 {
        self.preemptions.load(Relaxed)
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

    /// Takes a place in the queue; `None` when `limit` are taken.
    pub(crate) fn enqueue(self: &Arc<Self>, limit: usize) -> Option<Place> {
        if self.running() + self.waiting() == 0 {
            self.progress();
        }
        let place = |waiting| (waiting < limit as u64).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, place).ok()?;
        Some(Place { stats: Some(Arc::clone(self)) })
    }

    /// Counts `now` waiting requests instead of `before`. By the difference only, for submitters count too
    /// and must not see more than there are.
    pub(crate) fn recount_waiting(&self, before: usize, now: usize) {
        if now >= before {
            self.waiting.fetch_add((now - before) as u64, Relaxed);
        } else {
            self.waiting.fetch_sub((before - now) as u64, Relaxed);
        }
    }
}

/// A request's place in the queue on its way to the engine thread; given back when it is dropped.
pub(crate) struct Place {
    stats: Option<Arc<EngineStats>>,
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
            stats.waiting.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let _place = stats.enqueue(1).expect("room");
        assert!(!stats.is_stalled(Duration::from_secs(5)));
    }

    #[test]
    fn the_queue_has_an_end() {
        let stats = Arc::new(EngineStats::new(4));
        let first = stats.enqueue(2).expect("room");
        let second = stats.enqueue(2).expect("room");
        assert!(stats.enqueue(2).is_none());
        assert_eq!(stats.waiting(), 2);
        drop(first);
        assert_eq!(stats.waiting(), 1, "a request that came to nothing");
        second.hand_over();
        assert_eq!(stats.waiting(), 1, "the scheduler counts it");
    }

    #[test]
    fn a_recount_never_shows_more_than_there_are() {
        let stats = Arc::new(EngineStats::new(4));
        stats.recount_waiting(0, 1);
        let recounting = std::thread::scope(|scope| {
            let worker = scope.spawn(|| (0..200_000).for_each(|_| stats.recount_waiting(1, 1)));
            while !worker.is_finished() {
                assert!(stats.enqueue(2).is_some(), "one of two places is free");
            }
            worker.join()
        });
        assert!(recounting.is_ok());
        stats.recount_waiting(1, 0);
        assert_eq!(stats.waiting(), 0);
    }
}
