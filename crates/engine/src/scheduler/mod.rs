//! Who computes how many tokens in the next step.
//!
//! There are no phases. A sequence has tokens and has computed some of them; each step lets computed
//! catch up with tokens, under one budget for all. A fresh prompt catches up in chunks, a decoding
//! sequence lags by one, a preempted one starts over: the same rule. Every running sequence gets one
//! token before any gets a second, so that a long prompt never stops the streams; then they come in order
//! of rank: the higher priority first, and of equals the older. What the prefix cache holds of a sequence
//! is not computed, and that of a neighbour just ahead in the same prompt is taken over as it appears.
//!
//! When the blocks run out, those go first that a paused sequence holds, then those of the sequence with
//! the lowest rank, which is recomputed later. Room is made for a sequence that waits only at the cost of
//! lower priorities, never of equals. The first in rank therefore advances in every step, and everybody
//! finishes once those before them have.
//!
//! Pure: no clock, no I/O, no model. What a step costs is [`cost`]'s business.

pub mod cost;
mod sequence;
#[cfg(test)]
mod tests;

pub use sequence::{PrefixCounts, SequenceId};

use crate::cache::{BlockPool, CacheSalt};
use cost::Load;
use sequence::{Place, Rank, Sequence};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Instant;

/// What a sequence may ask of the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Higher goes first.
    pub priority: i32,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
    /// With whom it shares cached blocks.
    pub salt: CacheSalt,
    /// Whether all of its prompt is computed, also what the cache holds: for log-probabilities.
    pub computes_all: bool,
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
    /// Those that ran before by rank, then those that begin.
    pub entries: Vec<Entry>,
    /// Sequences that lost their blocks and wait again, or are paused still.
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
    sequences: HashMap<SequenceId, Sequence>,
    running: BTreeSet<Rank>,
    waiting: BTreeSet<Rank>,
    paused: BTreeSet<Rank>,
    deadlines: BTreeSet<(Instant, SequenceId)>,
    /// Tokens of those that wait.
    waiting_tokens: usize,
    counts: PrefixCounts,
}

impl Scheduler {
    /// A scheduler that runs at most `running_max` sequences on the blocks of `pool`.
    #[must_use]
    pub fn new(pool: BlockPool, running_max: usize) -> Self {
        Self {
            pool,
            running_max: running_max.max(1),
            sequences: HashMap::new(),
            running: BTreeSet::new(),
            waiting: BTreeSet::new(),
            paused: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            waiting_tokens: 0,
            counts: PrefixCounts::default(),
        }
    }

    /// Puts a sequence of at least one token into the queue. Its blocks at full length must not exceed the
    /// pool, or it could starve everybody: the caller checks that before. Ids are added in ascending order.
    pub fn add(&mut self, id: SequenceId, tokens: Vec<u32>, terms: Terms) {
        let sequence = Sequence::new(id, tokens, terms, &self.pool);
        self.deadlines.extend(terms.deadline.map(|deadline| (deadline, id)));
        self.waiting_tokens += sequence.tokens.len();
        self.waiting.insert(sequence.rank);
        self.sequences.insert(id, sequence);
    }

    /// Forgets a sequence, wherever it is; its blocks are free at once. Unknown ids are ignored.
    pub fn remove(&mut self, id: SequenceId) {
        if !self.sequences.contains_key(&id) {
            return;
        }
        self.leave(id);
        let deadline = self.sequences.remove(&id).and_then(|sequence| sequence.terms.deadline);
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Takes a sequence out of the batch and the queue until it is resumed. It keeps its blocks while nobody
    /// else needs them. Unknown ids are ignored.
    pub fn pause(&mut self, id: SequenceId) {
        if self.sequences.contains_key(&id) {
            self.enter(id, Place::Paused);
        }
    }

    /// Puts a paused sequence back into the queue. Others are left where they are.
    pub fn resume(&mut self, id: SequenceId) {
        if self.sequences.get(&id).is_some_and(|sequence| sequence.place == Place::Paused) {
            self.enter(id, Place::Waiting);
        }
    }

    /// Chooses the next step of at most `budget` tokens (at least one for each running sequence) and leases
    /// the blocks that it writes to. Follow with [`Scheduler::commit`] once it was computed.
    pub fn schedule(&mut self, budget: usize) -> Step {
        let mut step = Step::default();
        self.make_way(&mut step);
        let order: Vec<Rank> = self.running.iter().copied().collect();
        let mut spare = budget.saturating_sub(order.len());
        let mut pressed = false;
        for Rank { id, .. } in order {
            // It may have given way to one before it.
            if self.at(id).place != Place::Running {
                continue;
            }
            self.catch_up(id);
            let wanted = self.at(id).pending().min(1 + spare);
            if wanted == 0 {
                continue;
            }
            pressed |= !self.make_room(id, wanted, &mut step);
            if self.at(id).place == Place::Running {
                spare -= wanted - 1;
                step.entries.push(self.entry(id, wanted));
            }
        }
        if !pressed {
            self.admit(&mut spare, &mut step);
        }
        step
    }

    /// Lets those that wait into the batch before any of a lower priority has its part of the step, and lets
    /// go of the latter where there is no room beside them.
    fn make_way(&mut self, step: &mut Step) {
        while let (Some(next), Some(last)) = (self.waiting.first(), self.running.last().copied())
            && next.priority < last.priority
        {
            let id = next.id;
            match self.running.len() < self.running_max && self.fits(id, step) {
                true => self.enter(id, Place::Running),
                false => self.preempt(last.id, step),
            }
        }
    }

    /// Moves sequences from the queue into the batch while budget, slots and blocks last.
    fn admit(&mut self, spare: &mut usize, step: &mut Step) {
        while *spare > 0 && self.running.len() < self.running_max {
            let Some(Rank { id, .. }) = self.waiting.first().copied() else { return };
            // To the only one everything can be given.
            if !self.fits(id, step) && !self.running.is_empty() {
                return;
            }
            self.catch_up(id);
            let chunk = self.at(id).pending().min(*spare);
            self.enter(id, Place::Running);
            if !self.make_room(id, chunk, step) {
                return;
            }
            *spare -= chunk;
            step.entries.push(self.entry(id, chunk));
        }
    }

    /// Whether the pool has room for all tokens of a sequence that waits, and one block more: admitting it for
    /// less would only preempt it. Takes blocks from those that are paused if that helps.
    fn fits(&mut self, id: SequenceId, step: &mut Step) -> bool {
        let held = !self.at(id).table.blocks().is_empty();
        loop {
            // What others hold of its prefix costs nothing: hold it too, then count.
            let sequence = self.at_mut(id);
            sequence.catch_up();
            let lacking = sequence.blocks_lacking();
            if self.pool.available() > lacking {
                return true;
            }
            if !held {
                self.at_mut(id).give_up_blocks();
            }
            let Some(victim) = self.idle_holder(id) else { return false };
            self.preempt(victim, step);
        }
    }

    /// Leases the blocks for `count` more tokens of a running sequence, at the expense of others while there
    /// are too few. False when some running sequence, maybe itself, had to give way.
    fn make_room(&mut self, id: SequenceId, count: usize, step: &mut Step) -> bool {
        let mut unpressed = true;
        while !self.at_mut(id).grow(count) {
            let victim = match (self.idle_holder(id), self.running.last()) {
                (Some(idle), _) => idle,
                (None, Some(last)) => {
                    unpressed = false;
                    last.id
                }
                (None, None) => return false,
            };
            self.preempt(victim, step);
            if victim == id {
                return false;
            }
        }
        unpressed
    }

    /// The last in rank of those that hold blocks without running, other than `id`: the paused before those
    /// that wait again.
    fn idle_holder(&self, id: SequenceId) -> Option<SequenceId> {
        let idle = self.paused.iter().rev().chain(self.waiting.iter().rev());
        let mut holders = idle.filter(|rank| !self.at(rank.id).table.blocks().is_empty());
        holders.find(|rank| rank.id != id).map(|rank| rank.id)
    }

    /// Takes a sequence's blocks; a running one goes back to the queue.
    fn preempt(&mut self, id: SequenceId, step: &mut Step) {
        step.preempted.push(id);
        self.at_mut(id).give_up_blocks();
        if self.at(id).place == Place::Running {
            self.enter(id, Place::Waiting);
        }
    }

    /// Moves a sequence to another place.
    fn enter(&mut self, id: SequenceId, place: Place) {
        self.leave(id);
        self.at_mut(id).place = place;
        let (rank, tokens) = (self.at(id).rank, self.at(id).tokens.len());
        match place {
            Place::Waiting => {
                self.waiting_tokens += tokens;
                self.waiting.insert(rank)
            }
            Place::Running => self.running.insert(rank),
            Place::Paused => self.paused.insert(rank),
        };
    }

    /// Takes a sequence out of where it is.
    fn leave(&mut self, id: SequenceId) {
        let Sequence { rank, place, ref tokens, .. } = *self.at(id);
        let tokens = tokens.len();
        match place {
            Place::Waiting => {
                self.waiting_tokens -= tokens;
                self.waiting.remove(&rank)
            }
            Place::Running => self.running.remove(&rank),
            Place::Paused => self.paused.remove(&rank),
        };
    }

    fn at(&self, id: SequenceId) -> &Sequence {
        &self.sequences[&id]
    }

    fn at_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("every rank is that of a sequence")
    }

    /// Lets a sequence have what the cache holds of it.
    fn catch_up(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.catch_up();
            sequence.count_hits(&mut self.counts);
        }
    }

    fn entry(&self, id: SequenceId, count: usize) -> Entry {
        let sequence = self.at(id);
        let tokens = sequence.computed..sequence.computed + count;
        Entry { id, samples: tokens.end == sequence.tokens.len(), tokens }
    }

    /// Notes that `step` was computed.
    pub fn commit(&mut self, step: &Step) {
        for entry in &step.entries {
            if let Some(sequence) = self.sequences.get_mut(&entry.id) {
                sequence.advance(&entry.tokens, &mut self.counts);
            }
        }
    }

    /// Appends a generated token to a running sequence. Unknown ids are ignored.
    pub fn append(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.tokens.push(token);
        }
    }

    /// Sequences whose deadline is over at `now`.
    #[must_use]
    pub fn expired(&self, now: Instant) -> Vec<SequenceId> {
        let expired = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        expired.map(|(_, id)| *id).collect()
    }

    /// The next deadline of any sequence.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Tokens and block numbers of a sequence.
    #[must_use]
    pub fn sequence(&self, id: SequenceId) -> Option<(&[u32], &[u32])> {
        let sequence = self.sequences.get(&id)?;
        Some((&sequence.tokens, sequence.table.blocks()))
    }

    /// How much of a sequence's prompt the cache held.
    #[must_use]
    pub fn cached_tokens(&self, id: SequenceId) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.cached)
    }

    /// What the next step has to do at least, and where it would go on beyond that.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load::default();
        let mut prefill = None;
        for sequence in self.running.iter().map(|rank| self.at(rank.id)) {
            if sequence.computed > 0 && sequence.pending() == 1 {
                load.decoding += 1;
                load.decoding_keys += sequence.tokens.len();
            } else if sequence.pending() > 0 {
                prefill.get_or_insert(sequence.computed);
            }
        }
        load.prefill_from = prefill.unwrap_or(0);
        load
    }

    /// Where the tokens of the prompts came from, since the start.
    #[must_use]
    pub fn prefix_counts(&self) -> PrefixCounts {
        self.counts
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

    /// Tokens of the sequences in the queue.
    #[must_use]
    pub fn waiting_tokens(&self) -> usize {
        self.waiting_tokens
    }

    /// Paused sequences.
    #[must_use]
    pub fn paused(&self) -> usize {
        self.paused.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }
}
