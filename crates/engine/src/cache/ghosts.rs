//! Hashes of blocks that were evicted lately: they tell what was forgotten from what was never known.

use std::collections::{HashSet, VecDeque};

/// Most hashes remembered.
const GHOSTS_MAX: usize = 1 << 16;
/// Hashes remembered for each block of the pool.
const GHOSTS_PER_BLOCK: usize = 4;

/// A bounded set that forgets its oldest.
#[derive(Debug)]
pub(super) struct Ghosts {
    known: HashSet<u64>,
    oldest_first: VecDeque<u64>,
    limit: usize,
}

impl Ghosts {
    /// For a pool of `blocks`.
    pub(super) fn new(blocks: usize) -> Self {
        let limit = blocks.saturating_mul(GHOSTS_PER_BLOCK).clamp(1, GHOSTS_MAX);
        Self { known: HashSet::new(), oldest_first: VecDeque::new(), limit }
    }

    pub(super) fn insert(&mut self, hash: u64) {
        if !self.known.insert(hash) {
            return;
        }
        self.oldest_first.push_back(hash);
        if self.oldest_first.len() > self.limit
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, hash: u64) -> bool {
        self.known.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut ghosts = Ghosts::new(1);
        (0..5).for_each(|hash| ghosts.insert(hash));
        ghosts.insert(4);
        assert!(!ghosts.contains(0) && (1..5).all(|hash| ghosts.contains(hash)));
        assert_eq!(ghosts.oldest_first.len(), 4);
    }
}
