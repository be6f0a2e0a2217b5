//! One sequence's blocks.

use super::{BLOCK_TOKENS, BlockPool, CacheSalt, Miss};

/// The blocks of one sequence, in order; given back when it is dropped. First come shared ones, then at
/// most those that are still being filled.
#[derive(Debug)]
pub struct BlockTable {
    pool: BlockPool,
    salt: CacheSalt,
    blocks: Vec<u32>,
    /// How many of them, from the first, are shared.
    shared: usize,
    /// Whether a collision ended the chain: nothing more is shared.
    cut: bool,
}

impl BlockTable {
    /// An empty table, which shares with others of the same salt.
    #[must_use]
    pub fn new(pool: BlockPool, salt: CacheSalt) -> Self {
        Self { pool, salt, blocks: Vec::new(), shared: 0, cut: false }
    }

    /// The blocks' numbers.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Tokens whose keys and values lie in shared blocks: the table's first.
    #[must_use]
    pub fn shared_tokens(&self) -> usize {
        self.shared * BLOCK_TOKENS
    }

    /// Takes blocks until there are `count`. False when the pool runs out; what was taken until then stays.
    pub fn grow(&mut self, count: usize) -> bool {
        if self.blocks.len() >= count {
            return true;
        }
        let mut state = self.pool.lock();
        while self.blocks.len() < count {
            match state.take() {
                Some(block) => self.blocks.push(block),
                None => return false,
            }
        }
        true
    }

    /// Takes shared blocks for as much of `tokens`, the sequence's from its first, as there are, in place of
    /// blocks of its own. True when there were any.
    pub fn reuse(&mut self, tokens: &[u32]) -> bool {
        let before = self.shared;
        let mut state = self.pool.lock();
        let rest = tokens.get(self.shared * BLOCK_TOKENS..).unwrap_or_default();
        for tokens in rest.chunks_exact(BLOCK_TOKENS) {
            if self.cut {
                break;
            }
            let chain = state.chain(self.last_shared(), self.salt, tokens);
            let Some(found) = state.find(&chain, tokens) else { break };
            match self.blocks.get_mut(self.shared) {
                Some(own) => state.release(std::mem::replace(own, found)),
                None => self.blocks.push(found),
            }
            self.shared += 1;
        }
        self.shared > before
    }

    /// Shares the first block of its own, which now holds the keys and values of `tokens`. When the same was
    /// shared by another meanwhile, it takes that and frees its own. Says why it had to be computed.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn share(&mut self, tokens: &[u32]) -> Miss {
        if self.cut {
            return Miss::Collision;
        }
        let mut state = self.pool.lock();
        let chain = state.chain(self.last_shared(), self.salt, tokens);
        let own = &mut self.blocks[self.shared];
        let miss = match state.find(&chain, tokens) {
            Some(found) => {
                state.release(std::mem::replace(own, found));
                Miss::Concurrent
            }
            None => state.share(*own, chain, tokens),
        };
        match miss {
            Miss::Collision => self.cut = true,
            _ => self.shared += 1,
        }
        miss
    }

    /// Whether a collision ended the sharing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Gives all blocks back, from the end: what comes before is needed longer.
    pub fn clear(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let mut state = self.pool.lock();
        self.blocks.drain(..).rev().for_each(|block| state.release(block));
        (self.shared, self.cut) = (0, false);
    }

    fn last_shared(&self) -> Option<u32> {
        self.blocks[..self.shared].last().copied()
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.clear();
    }
}
