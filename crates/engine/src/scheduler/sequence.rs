//! One sequence: its tokens, how far it is, and which of its prompt came out of the cache.

use super::Terms;
use crate::cache::{BLOCK_TOKENS, BlockPool, BlockTable, Miss};
use std::cmp::Reverse;
use std::ops::Range;

/// Names a sequence within one engine; never used twice. A smaller number is an older sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Who goes first: the higher priority, then the older. Smaller is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: Reverse<i32>,
    pub(super) id: SequenceId,
}

/// Where a sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the queue.
    Waiting,
    /// In the batch.
    Running,
    /// In neither, until it is resumed.
    Paused,
}

/// Where the tokens of the prompts came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Tokens that were found in the cache.
    pub hit: u64,
    /// Tokens that were computed, by [`Miss`].
    pub missed: [u64; Miss::ALL.len()],
}

impl PrefixCounts {
    fn miss(&mut self, why: Miss, tokens: usize) {
        self.missed[why as usize] += tokens as u64;
    }
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) rank: Rank,
    pub(super) terms: Terms,
    pub(super) place: Place,
    /// Prompt, then what was generated.
    pub(super) tokens: Vec<u32>,
    /// How many of them have their keys and values in the cache.
    pub(super) computed: usize,
    pub(super) table: BlockTable,
    /// Tokens of the prompt.
    prompt: usize,
    /// How many of them are in [`PrefixCounts`]: once each, however often they are computed.
    counted: usize,
    /// How many of them were hits.
    pub(super) cached: usize,
    /// From where on tokens were found in the cache that are not counted yet.
    found_from: Option<usize>,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, tokens: Vec<u32>, terms: Terms, pool: &BlockPool) -> Self {
        Self {
            rank: Rank { priority: Reverse(terms.priority), id },
            terms,
            place: Place::Waiting,
            prompt: tokens.len(),
            tokens,
            computed: 0,
            table: BlockTable::new(pool.clone(), terms.salt),
            counted: 0,
            cached: 0,
            found_from: None,
        }
    }

    /// Tokens still to be computed before the next can be drawn.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Blocks that it lacks to compute all its tokens.
    pub(super) fn blocks_lacking(&self) -> usize {
        self.tokens.len().div_ceil(BLOCK_TOKENS) - self.table.blocks().len()
    }

    /// Takes what the cache holds of its tokens. Never the block of the last one, which must be computed for
    /// its logits: nobody writes to a block that others may read.
    pub(super) fn catch_up(&mut self) {
        let known = self.tokens.len() - 1;
        if self.terms.computes_all && self.computed < self.prompt {
            return;
        }
        // A decoding sequence has nothing to gain.
        if self.pending() > 1 && self.table.reuse(&self.tokens[..known]) {
            self.found_from.get_or_insert(self.computed);
            self.computed = self.computed.max(self.table.shared_tokens());
        }
    }

    /// Counts what [`Sequence::catch_up`] brought, once it is to be used.
    pub(super) fn count_hits(&mut self, counts: &mut PrefixCounts) {
        let Some(from) = self.found_from.take() else { return };
        let end = self.table.shared_tokens().min(self.prompt);
        if end <= self.counted {
            return;
        }
        let hit = end - from.clamp(self.counted, end);
        counts.hit += hit as u64;
        // The beginning of a block that another finished first.
        counts.miss(Miss::Concurrent, end - self.counted - hit);
        self.cached += hit;
        self.counted = end;
    }

    /// Leases the blocks for `count` more tokens. False when the pool runs out; what was leased until then
    /// stays, and is free again when the caller preempts it.
    pub(super) fn grow(&mut self, count: usize) -> bool {
        self.table.grow((self.computed + count).div_ceil(BLOCK_TOKENS))
    }

    /// Notes that `tokens` were computed, and shares the blocks that are full.
    pub(super) fn advance(&mut self, tokens: &Range<usize>, counts: &mut PrefixCounts) {
        self.computed = tokens.end;
        while !self.table.is_cut() && self.table.shared_tokens() + BLOCK_TOKENS <= self.computed {
            let start = self.table.shared_tokens();
            let why = self.table.share(&self.tokens[start..start + BLOCK_TOKENS]);
            self.count_miss(start + BLOCK_TOKENS, why, counts);
        }
        if self.table.is_cut() {
            self.count_miss(self.computed / BLOCK_TOKENS * BLOCK_TOKENS, Miss::Collision, counts);
        }
        if self.computed >= self.prompt {
            self.count_miss(self.prompt, Miss::Tail, counts);
        }
    }

    /// Counts the prompt's tokens up to `end` that are not counted yet: the last block's as its tail, those
    /// before it as `why`.
    fn count_miss(&mut self, end: usize, why: Miss, counts: &mut PrefixCounts) {
        let tail = (self.prompt - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
        let before_tail = end.min(tail).saturating_sub(self.counted);
        counts.miss(why, before_tail);
        let end = end.min(self.prompt);
        counts.miss(Miss::Tail, end.saturating_sub(self.counted + before_tail));
        self.counted = self.counted.max(end);
    }

    /// Gives its blocks back; it starts over, from whatever the cache still has then.
    pub(super) fn give_up_blocks(&mut self) {
        self.table.clear();
        self.found_from = None;
        self.computed = 0;
    }
}
