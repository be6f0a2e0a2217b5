//! What the engine tells about itself while it runs: atomics only, so that nobody who asks can slow it.

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

    /// Takes a place in the queue unless `limit` are taken.
    pub(crate) fn enqueue(&self, limit: usize) -> bool {
        if self.running() + self.waiting() == 0 {
            self.progress();
        }
        let place = |waiting| (waiting < limit as u64).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, place).is_ok()
    }

    /// Gives back a place that came to nothing.
    pub(crate) fn dequeue(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_work_without_steps_is_a_stall() {
        let stats = EngineStats::new(4);
        assert!(!stats.is_stalled(Duration::ZERO), "idle is no stall");
        assert!(stats.enqueue(1));
        assert!(
            stats.is_stalled(Duration::ZERO) || stats.started.elapsed() < Duration::from_millis(1)
        );
        assert!(!stats.is_stalled(Duration::from_secs(60)));
    }

    #[test]
    fn the_queue_has_an_end() {
        let stats = EngineStats::new(4);
        assert!(stats.enqueue(2) && stats.enqueue(2));
        assert!(!stats.enqueue(2));
        assert_eq!(stats.waiting(), 2);
    }
}
