//! The blocks of one cache.

use super::ghosts::Ghosts;
use super::lru::Lru;
use super::{BLOCK_TOKENS, CacheSalt, Miss};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks to be held by [`BlockTable`](super::BlockTable)s. A cheap handle; only the engine thread uses it, so
/// that its lock is never waited for.
#[derive(Clone, Debug)]
pub struct BlockPool {
    state: Arc<Mutex<State>>,
    total: usize,
}

/// Where a chain of blocks has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// What comes before.
    before: Before,
    /// Hash of salt and tokens.
    salted: u64,
    /// Hash of the tokens alone, for [`Miss::OtherKey`].
    unsalted: u64,
}

/// A block's predecessor. Equal predecessors mean equal prefixes: a shared block goes before its
/// predecessor does, so that a number names one prefix as long as anything follows on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing(CacheSalt),
    Block(u32),
}

#[derive(Debug, Default)]
struct Block {
    /// Tables that hold it.
    holders: u32,
    /// Set while it can be found.
    shared: Option<Chain>,
}

#[derive(Debug)]
pub(super) struct State {
    blocks: Vec<Block>,
    /// Tokens of the shared blocks, `[blocks, BLOCK_TOKENS]`.
    tokens: Vec<u32>,
    /// Blocks that hold nothing of use.
    free: Vec<u32>,
    /// Shared blocks that nobody holds.
    unheld: Lru,
    /// Shared blocks by salted hash.
    index: HashMap<u64, u32>,
    /// How many shared blocks have an unsalted hash.
    unsalted: HashMap<u64, u32>,
    ghosts: Ghosts,
    hasher: RandomState,
    /// Bits of a hash that count: all, but for tests of collisions.
    hash_mask: u64,
    evictions: u64,
}

impl BlockPool {
    /// A pool of the blocks `0..total`, all free.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self::with_hash_mask(total, u64::MAX)
    }

    /// A pool of which hashes have only the bits of `hash_mask`.
    pub(super) fn with_hash_mask(total: u32, hash_mask: u64) -> Self {
        let count = total as usize;
        let state = State {
            blocks: (0..count).map(|_| Block::default()).collect(),
            tokens: vec![0; count * BLOCK_TOKENS],
            // Popped from the end, so that low numbers, whose memory was touched before, go out first.
            free: (0..total).rev().collect(),
            unheld: Lru::new(count),
            index: HashMap::new(),
            unsalted: HashMap::new(),
            ghosts: Ghosts::new(count),
            hasher: RandomState::new(),
            hash_mask,
            evictions: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), total: count }
    }

    /// Blocks that can be had now: those that hold nothing, and those that are kept for a prefix to come.
    #[must_use]
    pub fn available(&self) -> usize {
        let state = self.lock();
        state.free.len() + state.unheld.len()
    }

    /// Blocks that nobody holds and that are kept for a prefix to come.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.lock().unheld.len()
    }

    /// All blocks.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Kept blocks whose memory was needed, since the start.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.lock().evictions
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A block of the caller's own, at the expense of what was used least lately.
    pub(super) fn take(&mut self) -> Option<u32> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.evict()?,
        };
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    fn evict(&mut self) -> Option<u32> {
        let block = self.unheld.pop()?;
        let chain = self.blocks[block as usize].shared.take()?;
        self.index.remove(&chain.salted);
        if let Some(count) = self.unsalted.get_mut(&chain.unsalted) {
            *count -= 1;
            if *count == 0 {
                self.unsalted.remove(&chain.unsalted);
            }
        }
        self.ghosts.insert(chain.salted);
        self.evictions += 1;
        Some(block)
    }

    /// Gives back what [`State::take`] or [`State::find`] gave.
    pub(super) fn release(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.holders -= 1;
        match (entry.holders, entry.shared.is_some()) {
            (0, true) => self.unheld.push(block),
            (0, false) => self.free.push(block),
            _ => {}
        }
    }

    /// The chain of a block of `tokens` after `last`, or at the beginning under `salt`.
    pub(super) fn chain(&self, last: Option<u32>, salt: CacheSalt, tokens: &[u32]) -> Chain {
        let previous = last.and_then(|last| Some((last, self.blocks[last as usize].shared?)));
        let (before, salted, unsalted) = match previous {
            Some((last, chain)) => (Before::Block(last), chain.salted, chain.unsalted),
            None => (Before::Nothing(salt), self.hasher.hash_one(salt), 0),
        };
        let hash = |seed: u64| self.hasher.hash_one((seed, tokens)) & self.hash_mask;
        Chain { before, salted: hash(salted), unsalted: hash(unsalted) }
    }

    /// Holds the shared block of this chain and these tokens.
    pub(super) fn find(&mut self, chain: &Chain, tokens: &[u32]) -> Option<u32> {
        let block = *self.index.get(&chain.salted)?;
        if !self.is_same(block, chain, tokens) {
            return None;
        }
        let entry = &mut self.blocks[block as usize];
        entry.holders += 1;
        if entry.holders == 1 {
            self.unheld.remove(block);
        }
        Some(block)
    }

    fn is_same(&self, block: u32, chain: &Chain, tokens: &[u32]) -> bool {
        let shared = self.blocks[block as usize].shared;
        shared.is_some_and(|shared| shared.before == chain.before)
            && self.tokens[block as usize * BLOCK_TOKENS..][..BLOCK_TOKENS] == *tokens
    }

    /// Makes `block`, which the caller holds and has filled with `tokens`, findable. Says why it had to be
    /// computed; [`Miss::Collision`] says that it stays the caller's own.
    pub(super) fn share(&mut self, block: u32, chain: Chain, tokens: &[u32]) -> Miss {
        if self.index.contains_key(&chain.salted) {
            return Miss::Collision;
        }
        let miss = if self.ghosts.contains(chain.salted) {
            Miss::Evicted
        } else if self.unsalted.contains_key(&chain.unsalted) {
            Miss::OtherKey
        } else {
            Miss::Cold
        };
        self.tokens[block as usize * BLOCK_TOKENS..][..BLOCK_TOKENS].copy_from_slice(tokens);
        self.blocks[block as usize].shared = Some(chain);
        self.index.insert(chain.salted, block);
        *self.unsalted.entry(chain.unsalted).or_default() += 1;
        miss
    }
}

#[cfg(test)]
impl BlockPool {
    /// Checks everything that must hold while `tables` are all there are.
    pub(crate) fn check(&self, tables: &[&super::BlockTable]) {
        let state = self.lock();
        let mut holders = vec![0; self.total];
        tables.iter().flat_map(|t| t.blocks()).for_each(|block| holders[*block as usize] += 1);
        let unheld: Vec<u32> = state.unheld.iter().collect();
        assert_eq!(unheld.len(), state.unheld.len(), "the list's length is wrong");
        let place = |block: u32| unheld.iter().position(|other| *other == block);
        for (block, entry) in (0..).zip(&state.blocks) {
            assert_eq!(entry.holders, holders[block as usize], "holders of block {block}");
            let free = state.free.iter().filter(|free| **free == block).count();
            let places = usize::from(entry.holders > 0)
                + free
                + unheld.iter().filter(|other| **other == block).count();
            assert_eq!(places, 1, "block {block} is held, free or kept, and only one of these");
            let Some(chain) = entry.shared else {
                assert_eq!(place(block), None, "block {block} is kept, but cannot be found");
                continue;
            };
            assert_eq!(free, 0, "block {block} is shared, and free");
            assert_eq!(state.index.get(&chain.salted), Some(&block), "the index of block {block}");
            if let Before::Block(before) = chain.before {
                assert!(state.blocks[before as usize].shared.is_some(), "{block} hangs in the air");
                match (place(block), place(before)) {
                    (None, before) => {
                        assert_eq!(before, None, "{block} is held, not what it needs")
                    }
                    (leaf, Some(before)) => assert!(leaf < Some(before), "{block} would go last"),
                    (_, None) => {}
                }
            }
        }
        let shared = state.blocks.iter().filter(|entry| entry.shared.is_some()).count();
        assert_eq!(state.index.len(), shared);
        assert_eq!(state.unsalted.values().sum::<u32>() as usize, shared);
    }
}
