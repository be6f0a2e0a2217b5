//! Random schedules against the rules, and the rules one by one.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn scheduler(blocks: u32, running_max: usize) -> (Scheduler, BlockPool) {
    let pool = BlockPool::new(blocks);
    (Scheduler::new(pool.clone(), running_max), pool)
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

/// `(id, tokens in this step)` of each entry.
fn shares(step: &Step) -> Vec<(u64, usize)> {
    step.entries.iter().map(|entry| (entry.id.0, entry.tokens.len())).collect()
}

/// Computes the step as the engine would: commit, then one new token for each sequence that caught up.
fn compute(scheduler: &mut Scheduler, step: &Step) {
    scheduler.commit(step);
    for entry in step.entries.iter().filter(|entry| entry.samples) {
        scheduler.append(entry.id, 7);
    }
}

#[test]
fn a_prompt_is_computed_in_chunks_and_then_token_by_token() {
    let (mut scheduler, _) = scheduler(8, 4);
    scheduler.add(SequenceId(1), tokens(20));
    let mut chunks = Vec::new();
    for _ in 0..5 {
        let step = scheduler.schedule(8);
        chunks.push((step.tokens(), step.entries[0].samples));
        compute(&mut scheduler, &step);
    }
    assert_eq!(chunks, [(8, false), (8, false), (4, true), (1, true), (1, true)]);
}

#[test]
fn a_long_prompt_never_stops_a_stream() {
    let (mut scheduler, _) = scheduler(64, 4);
    scheduler.add(SequenceId(1), tokens(4));
    let step = scheduler.schedule(8);
    compute(&mut scheduler, &step);
    scheduler.add(SequenceId(2), tokens(500));
    let first = scheduler.schedule(8);
    assert_eq!(shares(&first), [(1, 1), (2, 7)]);
    compute(&mut scheduler, &first);
    assert_eq!(shares(&scheduler.schedule(8)), [(1, 1), (2, 7)]);
}

#[test]
fn a_stream_younger_than_a_long_prompt_goes_on_too() {
    let (mut scheduler, _) = scheduler(64, 4);
    scheduler.add(SequenceId(1), tokens(500));
    scheduler.add(SequenceId(2), tokens(3));
    let step = scheduler.schedule(505);
    compute(&mut scheduler, &step);
    scheduler.remove(SequenceId(1));
    scheduler.add(SequenceId(3), tokens(500));
    scheduler.add(SequenceId(4), tokens(2));
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
    scheduler.add(SequenceId(1), tokens(2 * BLOCK_TOKENS - 4));
    scheduler.add(SequenceId(2), tokens(4));
    let step = scheduler.schedule(1000);
    assert_eq!(shares(&step), [(1, 2 * BLOCK_TOKENS - 4), (2, 4)]);
    compute(&mut scheduler, &step);
    let spare = pool.lease().expect("one block is left");
    // 1 fills its second block; then it needs a third, and the only one that it can have is 2's.
    for _ in 0..4 {
        let step = scheduler.schedule(1000);
        assert!(step.preempted.is_empty());
        compute(&mut scheduler, &step);
    }
    let step = scheduler.schedule(1000);
    assert_eq!(step.preempted, [SequenceId(2)]);
    assert_eq!(shares(&step), [(1, 1)]);
    assert_eq!((pool.free(), scheduler.waiting()), (0, 1));
    compute(&mut scheduler, &step);
    scheduler.remove(SequenceId(1));
    drop(spare);
    let again = scheduler.schedule(1000);
    assert_eq!(shares(&again), [(2, 4 + 5)], "everything it had is computed again");
    assert!(again.entries[0].samples);
}

#[test]
fn removing_frees_blocks_wherever_the_sequence_is() {
    let (mut scheduler, pool) = scheduler(4, 1);
    scheduler.add(SequenceId(1), tokens(40));
    scheduler.add(SequenceId(2), tokens(40));
    let step = scheduler.schedule(100);
    assert_eq!((scheduler.running(), scheduler.waiting(), pool.free()), (1, 1, 2));
    scheduler.remove(SequenceId(2));
    scheduler.commit(&step);
    scheduler.remove(SequenceId(1));
    scheduler.remove(SequenceId(1));
    assert!(scheduler.is_idle());
    assert_eq!(pool.free(), 4);
}

#[derive(Clone, Debug)]
enum Operation {
    Add(usize),
    Remove(usize),
    Step(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (1..200usize).prop_map(Operation::Add),
        1 => any::<usize>().prop_map(Operation::Remove),
        6 => (1..64usize).prop_map(Operation::Step),
    ]
}

/// What must hold for every step.
fn check_step(scheduler: &Scheduler, step: &Step, budget: usize, pool: &BlockPool) {
    assert!(step.tokens() <= budget.max(scheduler.running()), "{step:?} exceeds {budget}");
    let ids: Vec<_> = step.entries.iter().map(|entry| entry.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "entries are by age: {ids:?}");
    assert!(step.preempted.iter().all(|id| !ids.contains(id)), "preempted and computed: {step:?}");
    let mut held = BTreeSet::new();
    for sequence in &scheduler.running {
        for block in &sequence.blocks {
            assert!(held.insert(block.block()), "block {} is held twice", block.block());
        }
    }
    assert_eq!(held.len() + pool.free(), pool.total(), "blocks leaked");
    for entry in &step.entries {
        let (tokens, blocks) = scheduler.sequence(entry.id).expect("entries are running");
        assert!(!entry.tokens.is_empty() && entry.tokens.end <= tokens.len());
        assert!(blocks.len() * BLOCK_TOKENS >= entry.tokens.end, "no block to write to");
        assert_eq!(entry.samples, entry.tokens.end == tokens.len());
    }
}

proptest! {
    /// Any mixture of arrivals, departures and budgets: blocks are accounted for, computed positions are
    /// contiguous, the oldest always advances, and in the end everybody can finish.
    #[test]
    fn random_schedules_keep_the_rules(
        operations in prop::collection::vec(operation(), 1..120),
        running_max in 1..6usize,
    ) {
        let (mut scheduler, pool) = scheduler(8, running_max);
        let mut computed: BTreeMap<SequenceId, usize> = BTreeMap::new();
        let mut next = 0;
        for operation in operations {
            match operation {
                Operation::Add(count) => {
                    next += 1;
                    scheduler.add(SequenceId(next), tokens(count));
                    computed.insert(SequenceId(next), 0);
                }
                Operation::Remove(nth) if !computed.is_empty() => {
                    let id = *computed.keys().nth(nth % computed.len()).expect("not empty");
                    scheduler.remove(id);
                    computed.remove(&id);
                }
                Operation::Remove(_) => {}
                Operation::Step(budget) => {
                    let step = scheduler.schedule(budget);
                    check_step(&scheduler, &step, budget, &pool);
                    prop_assert!(step.entries.is_empty() == computed.is_empty(), "work but no step");
                    for id in &step.preempted {
                        computed.insert(*id, 0);
                    }
                    for entry in &step.entries {
                        prop_assert_eq!(entry.tokens.start, computed[&entry.id]);
                        computed.insert(entry.id, entry.tokens.end);
                    }
                    if let Some((oldest, _)) = computed.first_key_value() {
                        prop_assert_eq!(step.entries[0].id, *oldest, "the oldest advances");
                    }
                    scheduler.commit(&step);
                    for entry in step.entries.iter().filter(|entry| entry.samples) {
                        let length = scheduler.sequence(entry.id).expect("running").0.len();
                        if length < 7 * BLOCK_TOKENS {
                            scheduler.append(entry.id, 7);
                        } else {
                            scheduler.remove(entry.id);
                            computed.remove(&entry.id);
                        }
                    }
                }
            }
        }
        for id in computed.keys() {
            scheduler.remove(*id);
        }
        prop_assert_eq!(pool.free(), pool.total());
    }
}
