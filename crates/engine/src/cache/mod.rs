//! The KV cache's bookkeeping: who holds which block, and which blocks are kept for whoever has the same
//! prefix next.
//!
//! The cache's memory is one array of fixed blocks of [`BLOCK_TOKENS`] tokens; here are only their numbers.
//! A sequence holds a [`BlockTable`], which gives its blocks back when dropped, so that no path through the
//! engine can leak one. Full blocks are shared: what a block holds is a function of the tokens up to its
//! end alone (see the numerics), so any sequence with the same tokens may read it.
//!
//! A shared block is found by a hash chained over its prefix, and then its tokens and its predecessor are
//! compared, so that a collision costs a miss and never a wrong answer. The chain starts from a
//! [`CacheSalt`]: keys with different salts share nothing and learn nothing of each other from the time that
//! an answer takes.
//!
//! A block that nobody holds stays findable until its memory is needed; the least recently used goes first.
//! Whoever holds a block holds all before it, and gives them back from the end, so that the order of last
//! use always names a leaf before its predecessors: no chain is ever cut in the middle.

mod ghosts;
mod lru;
mod pool;
mod table;
#[cfg(test)]
mod tests;

pub use inferno_kernels::cpu::BLOCK_TOKENS;
pub use pool::BlockPool;
pub use table::BlockTable;

use sha2::{Digest, Sha256};

/// Where a hash chain starts: sequences with different salts share no blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheSalt(u128);

impl CacheSalt {
    /// The salt of whoever holds `secret`, an API key for example; not to be computed backwards. The default
    /// salt is that of everybody without one.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"inferno cache salt\n")
            .chain_update(secret)
            .finalize()
            .into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(u128::from_le_bytes(half))
    }
}

/// Why a prompt's tokens had to be computed. Each token of a prompt is a hit or exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nobody had this prefix, or so long ago that it was forgotten.
    Cold,
    /// It was here and made room for something else.
    Evicted,
    /// It is here, under another salt.
    OtherKey,
    /// Another sequence computed the same at the same time.
    Concurrent,
    /// Another prefix has the same hash, here or earlier in the chain.
    Collision,
    /// Behind the last full block, where nothing is shared; or the last token, whose logits are wanted.
    Tail,
}

impl Miss {
    /// Every one, in the order of its discriminant.
    pub const ALL: [Self; 6] =
        [Self::Cold, Self::Evicted, Self::OtherKey, Self::Concurrent, Self::Collision, Self::Tail];

    /// In metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Evicted => "evicted",
            Self::OtherKey => "other_key",
            Self::Concurrent => "concurrent",
            Self::Collision => "collision",
            Self::Tail => "tail",
        }
    }
}
