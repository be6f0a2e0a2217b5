//! Who computes how many tokens in the next step.
//!
//! There are no phases. A sequence has tokens and has computed some of them; each step lets computed
//! catch up with tokens, under one budget for all. A fresh prompt catches up in chunks, a decoding
//! sequence lags by one, a preempted one starts over: the same rule. Every running sequence gets one
//! token before any gets a second, so that a long prompt never stops the streams; then the oldest come
//! first. When the blocks run out, the youngest gives up its own and is recomputed later.
//!
//! Pure: no clock, no I/O, no model. What a step costs is [`cost`]'s business.

pub mod cost;
#[cfg(test)]
mod tests;

use crate::cache::{BLOCK_TOKENS, BlockLease, BlockPool};
use std::collections::VecDeque;
use std::ops::Range;

/// Names a sequence within one engine; never used twice. A smaller number is an older sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// A sequence and how far it is.
#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    /// Prompt, then what was generated.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    computed: usize,
    blocks: Vec<BlockLease>,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub id: SequenceId,
    /// Which of its tokens are computed.
    pub tokens: Range<usize>,
    /// Whether this catches up, so that the last token's logits give the next one.
    pub samples: bool,
}

/// What to compute next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Oldest sequence first.
    pub entries: Vec<Entry>,
    /// Sequences that lost their blocks and wait again.
    pub preempted: Vec<SequenceId>,
}

impl Step {
    /// Tokens over all entries.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }
}

/// Continuous batching over one block pool.
#[derive(Debug)]
pub struct Scheduler {
    pool: BlockPool,
    running_max: usize,
    /// Oldest first, by age.
    running: Vec<Sequence>,
    /// Next to run first. Preempted ones go to the front: they are older than all that wait.
    waiting: VecDeque<Sequence>,
}

impl Scheduler {
    /// A scheduler that runs at most `running_max` sequences on the blocks of `pool`.
    #[must_use]
    pub fn new(pool: BlockPool, running_max: usize) -> Self {
        Self {
            pool,
            running_max: running_max.max(1),
            running: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Puts a sequence at the end of the queue. Its blocks at full length must not exceed the pool, or it
    /// could starve everybody: the caller checks that before. Ids are added in ascending order.
    pub fn add(&mut self, id: SequenceId, tokens: Vec<u32>) {
        self.waiting.push_back(Sequence { id, tokens, computed: 0, blocks: Vec::new() });
    }

    /// Forgets a sequence, wherever it is; its blocks are free at once. Unknown ids are ignored.
    pub fn remove(&mut self, id: SequenceId) {
        self.running.retain(|sequence| sequence.id != id);
        self.waiting.retain(|sequence| sequence.id != id);
    }

    /// Chooses the next step of at most `budget` tokens (at least one for each running sequence) and leases
    /// the blocks that it writes to. Follow with [`Scheduler::commit`] once it was computed.
    pub fn schedule(&mut self, budget: usize) -> Step {
        let mut step = Step::default();
        let mut spare = budget.saturating_sub(self.running.len());
        let mut index = 0;
        while index < self.running.len() {
            let wanted = self.running[index].pending().min(1 + spare);
            if wanted == 0 {
                index += 1;
            } else if self.make_room(index, wanted, &mut step) {
                spare -= wanted - 1;
                step.entries.push(entry(&self.running[index], wanted));
                index += 1;
            }
        }
        if step.preempted.is_empty() {
            self.admit(&mut spare, &mut step);
        }
        step
    }

    /// Moves sequences from the queue into the batch while budget, slots and blocks last.
    fn admit(&mut self, spare: &mut usize, step: &mut Step) {
        while *spare > 0 && self.running.len() < self.running_max {
            let Some(next) = self.waiting.front() else { return };
            // Room for all its tokens and one more block: admitting it for less would only preempt it.
            if self.pool.free() <= next.tokens.len().div_ceil(BLOCK_TOKENS)
                && !self.running.is_empty()
            {
                return;
            }
            let chunk = next.pending().min(*spare);
            self.running.extend(self.waiting.pop_front());
            let index = self.running.len() - 1;
            if !self.grow(index, chunk) {
                self.preempt(index);
                return;
            }
            *spare -= chunk;
            step.entries.push(entry(&self.running[index], chunk));
        }
    }

    /// Leases the blocks for `count` more tokens of the sequence at `index`, taking them from the youngest
    /// while there are too few. False when it was itself the youngest and gave way.
    fn make_room(&mut self, index: usize, count: usize, step: &mut Step) -> bool {
        while !self.grow(index, count) {
            let youngest = self.running.len() - 1;
            step.preempted.push(self.running[youngest].id);
            self.preempt(youngest);
            if youngest == index {
                return false;
            }
        }
        true
    }

    /// Leases what `count` more tokens need beyond the blocks held. False when the pool runs out; what was
    /// leased until then stays with the sequence, and is free again when the caller preempts it.
    fn grow(&mut self, index: usize, count: usize) -> bool {
        let sequence = &mut self.running[index];
        let needed = (sequence.computed + count).div_ceil(BLOCK_TOKENS);
        while sequence.blocks.len() < needed {
            match self.pool.lease() {
                Some(block) => sequence.blocks.push(block),
                None => return false,
            }
        }
        true
    }

    /// Back to the queue, with nothing computed.
    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.blocks.clear();
        sequence.computed = 0;
        self.waiting.push_front(sequence);
    }

    /// Notes that `step` was computed.
    pub fn commit(&mut self, step: &Step) {
        for entry in &step.entries {
            if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == entry.id)
            {
                sequence.computed = entry.tokens.end;
            }
        }
    }

    /// Appends a generated token to a running sequence. Unknown ids are ignored.
    pub fn append(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    /// Tokens and blocks of a running sequence.
    #[must_use]
    pub fn sequence(&self, id: SequenceId) -> Option<(&[u32], &[BlockLease])> {
        let sequence = self.running.iter().find(|sequence| sequence.id == id)?;
        Some((&sequence.tokens, &sequence.blocks))
    }

    /// Running sequences that have only their last token to compute: the streams a step must not delay.
    #[must_use]
    pub fn decoding(&self) -> usize {
        self.running.iter().filter(|s| s.computed > 0 && s.pending() == 1).count()
    }

    /// Sequences with a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences in the queue, preempted ones included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }
}

fn entry(sequence: &Sequence, count: usize) -> Entry {
    let tokens = sequence.computed..sequence.computed + count;
    Entry { id: sequence.id, samples: tokens.end == sequence.tokens.len(), tokens }
}
