//! Which texts the next step computes, pure.
//!
//! Requests take turns, a text each, so that one with two thousand texts does not keep those behind it waiting
//! for more than a step. A text that does not fit into what is left of a step begins the next one: nothing passes
//! it by.

use std::collections::VecDeque;

/// Names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The texts of a request that no step has taken yet.
#[derive(Debug)]
struct Turn {
    id: RequestId,
    /// Tokens of each text.
    lengths: Vec<usize>,
    /// The next text.
    next: usize,
}

/// Requests with texts to compute, in the order of their turns.
#[derive(Debug, Default)]
pub struct Turns(VecDeque<Turn>);

impl Turns {
    /// Adds a request whose texts have these lengths, in tokens.
    pub fn add(&mut self, id: RequestId, lengths: Vec<usize>) {
        if !lengths.is_empty() {
            self.0.push_back(Turn { id, lengths, next: 0 });
        }
    }

    /// Forgets a request.
    pub fn remove(&mut self, id: RequestId) {
        self.0.retain(|turn| turn.id != id);
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes texts of at most `budget` tokens together, at least one: request and number of each.
    pub fn step(&mut self, budget: usize) -> Vec<(RequestId, usize)> {
        let (mut chosen, mut left) = (Vec::new(), budget);
        while let Some(turn) = self.0.front_mut() {
            let length = turn.lengths[turn.next];
            if length > left && !chosen.is_empty() {
                break;
            }
            left = left.saturating_sub(length);
            chosen.push((turn.id, turn.next));
            turn.next += 1;
            let done = turn.next == turn.lengths.len();
            // Whoever has more goes to the end.
            if let Some(turn) = self.0.pop_front().filter(|_| !done) {
                self.0.push_back(turn);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(requests: &[Vec<usize>]) -> Turns {
        let mut turns = Turns::default();
        for (id, lengths) in (0..).zip(requests) {
            turns.add(RequestId(id), lengths.clone());
        }
        turns
    }

    #[test]
    fn requests_take_turns() {
        let mut turns = turns(&[vec![4, 4, 4], vec![2, 9]]);
        let numbers = |chosen: Vec<(RequestId, usize)>| -> Vec<(u64, usize)> {
            chosen.into_iter().map(|(id, text)| (id.0, text)).collect()
        };
        assert_eq!(numbers(turns.step(11)), [(0, 0), (1, 0), (0, 1)]);
        assert_eq!(numbers(turns.step(11)), [(1, 1)], "the next does not fit, nor pass by");
        assert_eq!(numbers(turns.step(1)), [(0, 2)], "at least one, whatever the budget");
        assert!(turns.is_empty() && turns.step(9).is_empty());
    }

    #[test]
    fn whoever_left_is_not_computed() {
        let mut turns = turns(&[vec![1, 1], vec![1]]);
        turns.remove(RequestId(0));
        assert_eq!(turns.step(9), [(RequestId(1), 0)]);
        assert!(turns.is_empty());
    }

    proptest! {
        #[test]
        fn each_text_is_taken_once_within_the_budget_and_no_request_waits_for_another(
            requests in prop::collection::vec(prop::collection::vec(1..10usize, 1..8), 1..8),
            budget in 10..40usize,
        ) {
            let mut turns = turns(&requests);
            let mut taken = vec![0; requests.len()];
            while !turns.is_empty() {
                let chosen = turns.step(budget);
                let tokens: usize =
                    chosen.iter().map(|(id, text)| requests[id.0 as usize][*text]).sum();
                prop_assert!(!chosen.is_empty() && tokens <= budget);
                for (id, text) in chosen {
                    prop_assert_eq!(text, taken[id.0 as usize], "in order");
                    taken[id.0 as usize] += 1;
                    let ahead = taken[id.0 as usize];
                    let fair = taken.iter().zip(&requests).all(|(n, all)| *n == all.len() || n + 1 >= ahead);
                    prop_assert!(fair, "one request is two texts ahead: {:?}", taken);
                }
            }
            let all: Vec<usize> = requests.iter().map(Vec::len).collect();
            prop_assert_eq!(taken, all);
        }
    }
}
