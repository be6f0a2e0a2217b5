//! The rules one by one; the random ones are in `random`.

use super::*;
use crate::cache::{BLOCK_TOKENS, Miss};

mod random;

fn scheduler(blocks: u32, running_max: usize) -> (Scheduler, BlockPool) {
    let pool = BlockPool::new(blocks);
    (Scheduler::new(pool.clone(), running_max), pool)
}

/// Tokens that no other `first` has.
fn tokens(count: usize, first: u32) -> Vec<u32> {
    (0..count as u32).map(|n| first * 10_000 + n).collect()
}

impl Scheduler {
    /// Adds a prompt like no other.
    fn put(&mut self, id: u64, count: usize) {
        self.add(SequenceId(id), tokens(count, id as u32), Terms::default());
    }

    fn put_with_priority(&mut self, id: u64, count: usize, priority: i32) {
        let terms = Terms { priority, ..Terms::default() };
        self.add(SequenceId(id), tokens(count, id as u32), terms);
    }

    /// Makes a step as the engine would: commit, then one new token for each sequence that caught up.
    fn step(&mut self, budget: usize) -> Step {
        let step = self.schedule(budget);
        self.compute(&step);
        step
    }

    fn compute(&mut self, step: &Step) {
        self.commit(step);
        for entry in step.entries.iter().filter(|entry| entry.samples) {
            self.append(entry.id, 7);
        }
    }

    fn check(&self) {
        self.pool.check(&self.sequences.values().map(|s| &s.table).collect::<Vec<_>>());
        self.check_places();
    }

    fn check_places(&self) {
        let places = [
            (&self.running, Place::Running),
            (&self.waiting, Place::Waiting),
            (&self.paused, Place::Paused),
        ];
        for (ranks, place) in places {
            assert!(ranks.iter().all(|rank| self.at(rank.id).place == place));
        }
        let everywhere = self.running.len() + self.waiting.len() + self.paused.len();
        assert_eq!(everywhere, self.sequences.len());
        let waiting = self.waiting.iter().map(|rank| self.at(rank.id).tokens.len()).sum::<usize>();
        assert_eq!(waiting, self.waiting_tokens);
        for sequence in self.sequences.values() {
            let blocks = sequence.table.blocks().len();
            assert!(blocks * BLOCK_TOKENS >= sequence.computed, "computed into nowhere");
            assert!(sequence.table.shared_tokens() <= sequence.computed, "shared, not computed");
        }
    }
}

/// `(id, tokens in this step)` of each entry.
fn shares(step: &Step) -> Vec<(u64, usize)> {
    step.entries.iter().map(|entry| (entry.id.0, entry.tokens.len())).collect()
}

#[test]
fn a_prompt_is_computed_in_chunks_and_then_token_by_token() {
    let (mut scheduler, _) = scheduler(8, 4);
    scheduler.put(1, 20);
    let mut chunks = Vec::new();
    for _ in 0..5 {
        let step = scheduler.step(8);
        chunks.push((step.tokens(), step.entries[0].samples));
    }
    assert_eq!(chunks, [(8, false), (8, false), (4, true), (1, true), (1, true)]);
}

#[test]
fn a_long_prompt_never_stops_a_stream() {
    let (mut scheduler, _) = scheduler(64, 4);
    scheduler.put(1, 4);
    scheduler.step(8);
    scheduler.put(2, 500);
    assert_eq!(shares(&scheduler.step(8)), [(1, 1), (2, 7)]);
    let load = scheduler.load();
    assert_eq!(load, Load { decoding: 1, decoding_keys: 6, prefill_from: 7 });
    assert_eq!(shares(&scheduler.step(8)), [(1, 1), (2, 7)]);
}

#[test]
fn a_stream_younger_than_a_long_prompt_goes_on_too() {
    let (mut scheduler, _) = scheduler(64, 4);
    scheduler.put(1, 500);
    scheduler.put(2, 3);
    scheduler.step(505);
    scheduler.remove(SequenceId(1));
    scheduler.put(3, 500);
    scheduler.put(4, 2);
    let step = scheduler.schedule(503);
    assert_eq!(shares(&step), [(2, 1), (3, 500), (4, 2)]);
    scheduler.commit(&Step { entries: vec![step.entries[0].clone()], ..Step::default() });
    // 2 has nothing to do until its next token is appended; 3 and 4 go on from nothing.
    scheduler.append(SequenceId(2), 7);
    assert_eq!(shares(&scheduler.schedule(6)), [(2, 1), (3, 4), (4, 1)]);
}

#[test]
fn the_youngest_gives_way_when_blocks_run_out_and_is_computed_again() {
    let (mut scheduler, pool) = scheduler(4, 4);
    scheduler.put(1, 2 * BLOCK_TOKENS - 4);
    scheduler.put(2, 4);
    assert_eq!(shares(&scheduler.step(1000)), [(1, 2 * BLOCK_TOKENS - 4), (2, 4)]);
    let mut spare = crate::cache::BlockTable::new(pool.clone(), CacheSalt::default());
    assert!(spare.grow(1), "one block is left");
    // 1 fills its second block; then it needs a third, and the only one that it can have is 2's.
    for _ in 0..4 {
        assert!(scheduler.step(1000).preempted.is_empty());
    }
    let step = scheduler.step(1000);
    assert_eq!(step.preempted, [SequenceId(2)]);
    assert_eq!(shares(&step), [(1, 1)]);
    assert_eq!((pool.available(), scheduler.waiting()), (0, 1));
    scheduler.remove(SequenceId(1));
    drop(spare);
    let again = scheduler.schedule(1000);
    assert_eq!(shares(&again), [(2, 4 + 5)], "everything it had is computed again");
    assert!(again.entries[0].samples);
}

#[test]
fn removing_frees_blocks_wherever_the_sequence_is() {
    let (mut scheduler, pool) = scheduler(5, 1);
    scheduler.put(1, 40);
    scheduler.put(2, 40);
    scheduler.step(100);
    scheduler.pause(SequenceId(1));
    scheduler.step(100);
    scheduler.put(3, 40);
    assert_eq!((scheduler.running(), scheduler.waiting(), scheduler.paused()), (1, 1, 1));
    assert_eq!(pool.available(), 1);
    for id in [3, 2, 1, 1] {
        scheduler.remove(SequenceId(id));
        scheduler.check();
    }
    assert!(scheduler.is_idle());
    assert_eq!((scheduler.paused(), pool.available()), (0, 5));
}

#[test]
fn a_repeated_prompt_computes_its_last_block_only() {
    let (mut scheduler, _) = scheduler(16, 4);
    let prompt = tokens(4 * BLOCK_TOKENS, 1);
    scheduler.add(SequenceId(1), prompt.clone(), Terms::default());
    scheduler.step(1000);
    scheduler.add(SequenceId(2), prompt.clone(), Terms::default());
    let step = scheduler.step(1000);
    assert_eq!(shares(&step), [(1, 1), (2, BLOCK_TOKENS)]);
    assert!(step.entries[1].samples);
    assert_eq!(scheduler.cached_tokens(SequenceId(2)), 3 * BLOCK_TOKENS);
    // With an answer and a question behind it, all of it is found.
    let longer = [&prompt[..], &tokens(5, 9)].concat();
    scheduler.add(SequenceId(3), longer.clone(), Terms::default());
    assert_eq!(shares(&scheduler.step(1000)), [(1, 1), (2, 1), (3, 5)]);
    let salt = CacheSalt::of(b"someone else");
    scheduler.add(SequenceId(4), longer.clone(), Terms { salt, ..Terms::default() });
    assert_eq!(scheduler.step(1000).entries[3].tokens, 0..longer.len());
    let counts = scheduler.prefix_counts();
    assert_eq!(counts.hit as usize, 7 * BLOCK_TOKENS);
    let missed = Miss::ALL.map(|why| (why, counts.missed[why as usize] as usize));
    let cold = 3 * BLOCK_TOKENS;
    let tail = 2 * BLOCK_TOKENS + 5 + 5;
    let expected = [cold, 0, 4 * BLOCK_TOKENS, 0, 0, tail];
    assert_eq!(missed.map(|(_, count)| count), expected, "{missed:?}");
    scheduler.check();
}

#[test]
fn an_answer_is_found_by_the_next_turn() {
    let (mut scheduler, _) = scheduler(16, 4);
    scheduler.put(1, BLOCK_TOKENS - 10);
    (0..BLOCK_TOKENS + 20).for_each(|_| drop(scheduler.step(1000)));
    let turn = scheduler.sequence(SequenceId(1)).expect("it runs").0.to_vec();
    scheduler.remove(SequenceId(1));
    scheduler.add(SequenceId(2), [&turn[..], &[1, 2, 3]].concat(), Terms::default());
    scheduler.step(1000);
    assert_eq!(scheduler.cached_tokens(SequenceId(2)), turn.len() / BLOCK_TOKENS * BLOCK_TOKENS);
}

#[test]
fn a_neighbour_just_ahead_in_the_same_prompt_is_followed() {
    let (mut scheduler, pool) = scheduler(32, 4);
    let prompt = tokens(4 * BLOCK_TOKENS, 1);
    let (first, second) = (SequenceId(1), SequenceId(2));
    scheduler.add(first, prompt.clone(), Terms::default());
    scheduler.add(second, prompt.clone(), Terms::default());
    let mut computed = 0;
    while scheduler.at(second).pending() > 1 || scheduler.at(first).pending() > 1 {
        computed += scheduler.step(BLOCK_TOKENS + 4).tokens();
        scheduler.check();
    }
    assert!(computed < 6 * BLOCK_TOKENS, "{computed} tokens for twice {}", prompt.len());
    let used = pool.total() - pool.available();
    assert!(
        used <= 4 + 2,
        "{used} blocks: more than the prompt once and what comes behind it twice"
    );
    let counts = scheduler.prefix_counts();
    assert_eq!(counts.hit + counts.missed.iter().sum::<u64>(), 2 * prompt.len() as u64);
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks_again() {
    let (mut scheduler, _) = scheduler(8, 4);
    scheduler.put(1, 2 * BLOCK_TOKENS + 3);
    scheduler.step(1000);
    scheduler.preempt(SequenceId(1), &mut Step::default());
    scheduler.check();
    let counts = scheduler.prefix_counts();
    assert_eq!(shares(&scheduler.step(1000)), [(1, 4)]);
    assert_eq!(scheduler.prefix_counts(), counts, "a prompt counts once");
    assert_eq!(scheduler.cached_tokens(SequenceId(1)), 0, "and was computed");
}

#[test]
fn the_higher_priority_goes_first_and_the_older_of_equals() {
    let (mut scheduler, _) = scheduler(32, 2);
    scheduler.put_with_priority(1, 10, -1);
    scheduler.put(2, 10);
    scheduler.put_with_priority(3, 10, 5);
    scheduler.put(4, 10);
    assert_eq!(shares(&scheduler.step(1000)), [(3, 10), (2, 10)]);
    scheduler.remove(SequenceId(3));
    assert_eq!(shares(&scheduler.step(1000)), [(2, 1), (4, 10)]);
    scheduler.remove(SequenceId(4));
    assert_eq!(shares(&scheduler.step(1000)), [(2, 1), (1, 10)]);
}

#[test]
fn a_higher_priority_takes_the_place_of_the_lowest_and_youngest() {
    let (mut scheduler, _) = scheduler(32, 3);
    scheduler.put_with_priority(1, 10, 2);
    scheduler.put(2, 10);
    scheduler.put(3, 10);
    scheduler.step(1000);
    scheduler.put(4, 10);
    assert!(scheduler.step(1000).preempted.is_empty(), "an equal waits");
    scheduler.put_with_priority(5, 10, 1);
    let step = scheduler.step(1000);
    assert_eq!(step.preempted, [SequenceId(3)]);
    assert_eq!(shares(&step), [(1, 1), (5, 10), (2, 1)]);
    scheduler.remove(SequenceId(5));
    assert_eq!(scheduler.step(1000).entries[2].id, SequenceId(3), "before the younger 4");
    scheduler.check();
}

#[test]
fn a_paused_sequence_keeps_its_blocks_until_they_are_needed() {
    let (mut scheduler, pool) = scheduler(5, 4);
    scheduler.put(1, 2 * BLOCK_TOKENS - 1);
    scheduler.step(1000);
    scheduler.pause(SequenceId(1));
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.step(1000), Step::default());
    scheduler.put(2, 4);
    assert!(scheduler.step(1000).preempted.is_empty());
    assert_eq!(pool.total() - pool.available(), 3);
    scheduler.resume(SequenceId(1));
    assert_eq!(shares(&scheduler.step(1000)), [(2, 1), (1, 1)], "nothing was lost");
    scheduler.pause(SequenceId(1));
    scheduler.put(3, 2 * BLOCK_TOKENS);
    let step = scheduler.step(1000);
    assert_eq!(step.preempted, [SequenceId(1)], "the paused goes first");
    assert_eq!(shares(&step), [(2, 1), (3, 2 * BLOCK_TOKENS)]);
    scheduler.check();
    scheduler.remove(SequenceId(3));
    scheduler.resume(SequenceId(1));
    let step = scheduler.step(1000);
    let again = step.entries.last().expect("it goes on");
    assert!(again.id == SequenceId(1) && again.samples, "{step:?}");
}

#[test]
fn a_long_prompt_of_a_lower_priority_does_not_keep_a_higher_one_waiting() {
    let (mut scheduler, _) = scheduler(64, 4);
    scheduler.put_with_priority(1, 500, -1);
    scheduler.step(20);
    scheduler.put(2, 12);
    assert_eq!(shares(&scheduler.step(20)), [(2, 12), (1, 8)]);
}

#[test]
fn deadlines_are_told_in_order_and_forgotten_with_their_sequence() {
    let (mut scheduler, _) = scheduler(8, 4);
    let start = Instant::now();
    let at = |seconds| start + std::time::Duration::from_secs(seconds);
    for (id, deadline) in [(1, Some(at(9))), (2, None), (3, Some(at(5)))] {
        scheduler.add(SequenceId(id), vec![1], Terms { deadline, ..Terms::default() });
    }
    assert_eq!(scheduler.next_deadline(), Some(at(5)));
    assert_eq!(scheduler.expired(at(4)), []);
    assert_eq!(scheduler.expired(at(5)), [SequenceId(3)]);
    assert_eq!(scheduler.expired(at(9)), [SequenceId(3), SequenceId(1)]);
    scheduler.remove(SequenceId(3));
    assert_eq!(scheduler.next_deadline(), Some(at(9)));
    scheduler.remove(SequenceId(1));
    assert_eq!(scheduler.next_deadline(), None);
}
