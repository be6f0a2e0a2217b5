//! Merging neighbours, the best pair first, until no pair is left that may merge: what byte-pair encoding and
//! SentencePiece have in common.
//!
//! A heap holds every pair that may merge; a merge makes at most two new pairs, so a piece of `n` symbols
//! takes `n log n` steps however its pairs nest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol.
const NONE: u32 = u32::MAX;

/// A part of a piece: its bytes, and its token where it is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// First byte within the piece.
    pub(super) start: u32,
    /// One past the last byte; equal to `start` when the symbol has been merged into the one before.
    pub(super) end: u32,
    /// The token with these bytes, if there is one.
    pub(super) id: Option<u32>,
    previous: u32,
    next: u32,
}

/// A pair that may merge. Orders by priority, then by place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    /// Where the right symbol ended when the pair was found: another end means another symbol by now.
    end: u32,
    id: u32,
}

/// Room for merging, kept from piece to piece.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last piece.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Appends a symbol that ends at byte `end` of the piece and begins where the last one ended.
    pub(super) fn push(&mut self, end: u32, id: Option<u32>) {
        let index = self.symbols.len() as u32;
        let (start, previous) = match self.symbols.last_mut() {
            None => (0, NONE),
            Some(last) => {
                last.next = index;
                (last.end, index - 1)
            }
        };
        self.symbols.push(Symbol { start, end, id, previous, next: NONE });
    }

    /// Merges as long as `join` says so: given two neighbours, the priority of their pair (the lowest goes
    /// first, of equals the leftmost) and the token that they become.
    pub(super) fn merge(&mut self, mut join: impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for right in 1..self.symbols.len() as u32 {
            self.find(right - 1, right, &mut join);
        }
        while let Some(Reverse(pair)) = self.heap.pop() {
            let (left, right) =
                (self.symbols[pair.left as usize], self.symbols[pair.right as usize]);
            // A symbol that was merged away is no longer the next of anything.
            if left.next != pair.right || left.start == left.end || right.end != pair.end {
                continue;
            }
            let (end, id, next) = (right.end, Some(pair.id), right.next);
            self.symbols[pair.left as usize] = Symbol { end, id, next, ..left };
            let gone = &mut self.symbols[pair.right as usize];
            gone.end = gone.start;
            if next != NONE {
                self.symbols[next as usize].previous = pair.left;
                self.find(pair.left, next, &mut join);
            }
            if left.previous != NONE {
                self.find(left.previous, pair.left, &mut join);
            }
        }
    }

    /// What is left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.start != symbol.end)
    }

    fn find(
        &mut self,
        left: u32,
        right: u32,
        join: &mut impl FnMut(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        let (before, after) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((priority, id)) = join(before, after) {
            let end = after.end;
            self.heap.push(Reverse(Candidate { priority, left, right, end, id }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against the definition: look for the best pair of all, merge it, begin again.
        #[test]
        fn the_heap_finds_what_looking_everywhere_finds(
            piece in "[ab]{0,40}",
            ranks in prop::collection::hash_map("[ab]{2,6}", 0..6u32, 0..24),
        ) {
            let join = |text: &str| ranks.get(text).copied();
            let mut parts: Vec<String> = piece.chars().map(String::from).collect();
            loop {
                let pairs = parts.windows(2).enumerate();
                let best = pairs.filter_map(|(at, pair)| Some((join(&pair.concat())?, at))).min();
                let Some((_, at)) = best else { break };
                let right = parts.remove(at + 1);
                parts[at] += &right;
            }
            let mut merger = Merger::default();
            (0..piece.len() as u32).for_each(|at| merger.push(at + 1, None));
            merger.merge(|left, right| {
                join(&piece[left.start as usize..right.end as usize]).map(|rank| (rank, 0))
            });
            let found: Vec<&str> = merger.symbols().map(|s| &piece[s.start as usize..s.end as usize]).collect();
            prop_assert_eq!(found, parts);
        }
    }

    /// A long run of one letter asks for pairs a few times a letter, not once for each two letters.
    #[test]
    fn a_run_of_one_letter_takes_steps_in_proportion() {
        let ranks: HashMap<usize, u32> = (1..7).map(|power| (1 << power, power)).collect();
        let mut merger = Merger::default();
        let letters = 1 << 16;
        (0..letters).for_each(|at| merger.push(at + 1, None));
        let mut asked = 0;
        merger.merge(|left, right| {
            asked += 1;
            ranks.get(&((right.end - left.start) as usize)).map(|rank| (*rank, 0))
        });
        assert_eq!(merger.symbols().count(), 1 << 10, "pieces of 64");
        assert!(asked <= 3 * letters, "{asked} pairs for {letters} letters");
    }
}
