//! The block pool: who holds which block of the KV cache.
//!
//! The cache's memory is one array of fixed blocks of [`BLOCK_TOKENS`] tokens. This is their bookkeeping
//! alone: it hands out numbers. A sequence's blocks need not lie together, and a lease gives its block back
//! when dropped, so that no path through the engine can leak one.

pub use inferno_kernels::cpu::BLOCK_TOKENS;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks to be leased.
#[derive(Clone, Debug)]
pub struct BlockPool {
    free: Arc<Mutex<Vec<u32>>>,
    total: usize,
}

/// The right to one block, until dropped.
#[derive(Debug)]
pub struct BlockLease {
    block: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl BlockPool {
    /// A pool of the blocks `0..total`, all free.
    #[must_use]
    pub fn new(total: u32) -> Self {
        // Popped from the end, so that low numbers, whose memory was touched before, go out first.
        let free = (0..total).rev().collect();
        Self { free: Arc::new(Mutex::new(free)), total: total as usize }
    }

    /// Leases one block; `None` when all are out.
    #[must_use]
    pub fn lease(&self) -> Option<BlockLease> {
        let block = self.lock().pop()?;
        Some(BlockLease { block, free: Arc::clone(&self.free) })
    }

    /// Blocks that can be leased now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().len()
    }

    /// All blocks.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockLease {
    /// The block's number.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }
}

impl Drop for BlockLease {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.block);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dropped_lease_is_free_again() {
        let pool = BlockPool::new(2);
        let (first, second) = (pool.lease().unwrap(), pool.lease().unwrap());
        assert_ne!(first.block(), second.block());
        assert!(pool.lease().is_none());
        let freed = first.block();
        drop(first);
        assert_eq!(pool.lease().unwrap().block(), freed);
        drop(second);
        assert_eq!((pool.free(), pool.total()), (2, 2));
    }
}
