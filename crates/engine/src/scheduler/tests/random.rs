//! Random schedules against the rules.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const BLOCKS: u32 = 8;
/// Longest sequence: it alone must fit the pool.
const LENGTH_MAX: usize = 7 * BLOCK_TOKENS;

#[derive(Clone, Debug)]
enum Operation {
    /// A prompt of this length, one of a few texts, with a priority, a salt and a deadline in seconds.
    Add {
        length: usize,
        text: u32,
        priority: i32,
        salt: u8,
        deadline: Option<u64>,
    },
    Remove(usize),
    Pause(usize),
    Resume(usize),
    /// Seconds pass.
    Wait(u64),
    Step(usize),
    /// Somebody else takes this many blocks of the pool, or gives them back.
    Pressure(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let add = (1..200usize, 0..3u32, -1..2i32, 0..2u8, prop::option::of(0..40u64));
    let add = add.prop_map(|(length, text, priority, salt, deadline)| Operation::Add {
        length,
        text,
        priority,
        salt,
        deadline,
    });
    prop_oneof![
        3 => add,
        1 => any::<usize>().prop_map(Operation::Remove),
        1 => any::<usize>().prop_map(Operation::Pause),
        1 => any::<usize>().prop_map(Operation::Resume),
        1 => (0..10u64).prop_map(Operation::Wait),
        8 => (1..80usize).prop_map(Operation::Step),
        1 => (0..5usize).prop_map(Operation::Pressure),
    ]
}

/// What is known of a live sequence from outside.
#[derive(Debug)]
struct Seen {
    priority: i32,
    deadline: Option<u64>,
    paused: bool,
    /// Whether it ever was: a younger one may have its place since then.
    was_paused: bool,
}

struct World {
    scheduler: Scheduler,
    pool: BlockPool,
    start: Instant,
    now: u64,
    next: u64,
    live: BTreeMap<SequenceId, Seen>,
    /// Somebody else's blocks.
    others: crate::cache::BlockTable,
}

impl World {
    fn new(running_max: usize) -> Self {
        let (scheduler, pool) = scheduler(BLOCKS, running_max);
        let others = crate::cache::BlockTable::new(pool.clone(), CacheSalt::default());
        let (start, live) = (Instant::now(), BTreeMap::new());
        Self { scheduler, pool, start, now: 0, next: 0, live, others }
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_secs(self.now)
    }

    fn nth(&self, nth: usize) -> Option<SequenceId> {
        self.live.keys().nth(nth % self.live.len().max(1)).copied()
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Add { length, text, priority, salt, deadline } => {
                self.next += 1;
                let id = SequenceId(self.next);
                let deadline = deadline.map(|after| self.now + after);
                let terms = Terms {
                    priority,
                    deadline: deadline.map(|at| self.start + Duration::from_secs(at)),
                    salt: CacheSalt::of(&[salt]),
                    computes_all: self.next % 8 == 0,
                };
                self.scheduler.add(id, tokens(length, text), terms);
                self.live.insert(id, Seen { priority, deadline, paused: false, was_paused: false });
            }
            Operation::Remove(nth) => self.nth(nth).into_iter().for_each(|id| self.remove(id)),
            Operation::Pause(nth) => self.pause(nth, true),
            Operation::Resume(nth) => self.pause(nth, false),
            Operation::Wait(seconds) => self.wait(seconds),
            Operation::Step(budget) => drop(self.step(budget)),
            Operation::Pressure(blocks) => {
                self.others.clear();
                // As much as there is.
                self.others.grow(blocks);
            }
        }
        self.check();
    }

    fn remove(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.live.remove(&id);
    }

    fn pause(&mut self, nth: usize, paused: bool) {
        let Some(id) = self.nth(nth) else { return };
        match paused {
            true => self.scheduler.pause(id),
            false => self.scheduler.resume(id),
        }
        let seen = self.live.get_mut(&id).expect("it is live");
        (seen.paused, seen.was_paused) = (paused, seen.was_paused || paused);
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let expired = self.scheduler.expired(self.time());
        let over =
            self.live.iter().filter(|(_, seen)| seen.deadline.is_some_and(|at| at <= self.now));
        let mut over: Vec<_> = over.map(|(id, seen)| (seen.deadline, *id)).collect();
        over.sort();
        assert_eq!(expired, over.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        expired.into_iter().for_each(|id| self.remove(id));
    }

    /// One step, by all rules; a sequence that is as long as can be ends.
    fn step(&mut self, budget: usize) -> Step {
        let before: BTreeMap<_, _> =
            self.scheduler.sequences.iter().map(|(id, s)| (*id, (s.place, s.computed))).collect();
        let step = self.scheduler.schedule(budget);
        self.check();
        self.check_step(&step, budget, &before);
        self.scheduler.commit(&step);
        for entry in step.entries.iter().filter(|entry| entry.samples) {
            let length = self.scheduler.sequence(entry.id).expect("it runs").0.len();
            match length < LENGTH_MAX {
                true => self.scheduler.append(entry.id, 7),
                false => self.remove(entry.id),
            }
        }
        step
    }

    fn check_step(
        &self,
        step: &Step,
        budget: usize,
        before: &BTreeMap<SequenceId, (Place, usize)>,
    ) {
        let scheduler = &self.scheduler;
        assert!(step.tokens() <= budget.max(scheduler.running()), "{step:?} exceeds {budget}");
        for entry in &step.entries {
            let sequence = scheduler.at(entry.id);
            assert_eq!(sequence.place, Place::Running);
            assert_eq!(entry.tokens.start, sequence.computed, "it goes on where it was");
            assert!(!entry.tokens.is_empty() && entry.tokens.end <= sequence.tokens.len());
            assert!(sequence.table.blocks().len() * BLOCK_TOKENS >= entry.tokens.end);
            assert!(
                sequence.table.shared_tokens() <= entry.tokens.start,
                "writes to shared blocks"
            );
            assert_eq!(entry.samples, entry.tokens.end == sequence.tokens.len());
        }
        let computes = |id| step.entries.iter().any(|entry| entry.id == id);
        for (id, (place, computed)) in before {
            if *place == Place::Running {
                let advances = computes(*id) || step.preempted.contains(id);
                assert!(advances, "{id:?} neither advances nor is preempted: {step:?}");
            }
            let kept = scheduler.at(*id).computed >= *computed || step.preempted.contains(id);
            assert!(kept, "{id:?} lost something in silence");
        }
        // Nobody starves: the first in rank of those that want to go on does, each time; and if it was paused,
        // once the younger ones that took its place are through (see `drain`).
        let eager = self.live.iter().filter(|(_, seen)| !seen.paused);
        let first = eager.min_by_key(|(id, seen)| (std::cmp::Reverse(seen.priority), **id));
        if let Some((first, seen)) = first
            && !seen.was_paused
            && self.others.blocks().is_empty()
        {
            assert!(computes(*first), "{first:?} does not advance: {step:?}");
        }
    }

    fn check(&self) {
        let tables = self.scheduler.sequences.values().map(|sequence| &sequence.table);
        self.pool.check(&tables.chain([&self.others]).collect::<Vec<_>>());
        self.scheduler.check_places();
        let counts = self.scheduler.prefix_counts();
        let counted = counts.hit + counts.missed.iter().sum::<u64>();
        assert!(counted >= self.scheduler.sequences.values().map(|s| s.cached as u64).sum());
    }

    /// Lets everybody finish; each does within the steps that they and those before them need.
    fn drain(mut self) {
        self.others.clear();
        let paused: Vec<_> = self.live.keys().copied().collect();
        paused.into_iter().for_each(|id| self.scheduler.resume(id));
        self.live.values_mut().for_each(|seen| seen.paused = false);
        let mut steps = self.live.len() * LENGTH_MAX;
        while !self.live.is_empty() {
            assert!(steps > 0, "these starve: {:?}", self.live);
            steps -= 1;
            self.step(64);
        }
        assert!(self.scheduler.is_idle());
        self.check();
        assert_eq!(self.pool.available(), BLOCKS as usize, "blocks leaked");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any mixture of arrivals, departures, pauses, deadlines, budgets and pressure: after each, blocks are
    /// accounted for; each step keeps its budget, every running sequence advances or is preempted, the first
    /// in rank always advances, and in the end everybody finishes.
    #[test]
    fn random_schedules_keep_the_rules(
        operations in prop::collection::vec(operation(), 1..120),
        running_max in 1..6usize,
    ) {
        let mut world = World::new(running_max);
        operations.into_iter().for_each(|operation| world.apply(operation));
        world.drain();
    }

    /// Each token of a prompt is found or computed once, and counted once, whatever happens in between.
    #[test]
    fn every_prompt_token_is_counted_once(
        prompts in prop::collection::vec((1..150usize, 0..2u32), 1..12),
        budgets in prop::collection::vec(1..90usize, 1..40),
    ) {
        let (mut scheduler, _) = scheduler(BLOCKS, 3);
        let mut tokens_in = 0;
        let mut budgets = budgets.into_iter().cycle();
        for (id, (length, text)) in prompts.into_iter().enumerate() {
            scheduler.add(SequenceId(id as u64), tokens(length, text), Terms::default());
            tokens_in += length as u64;
            for _ in 0..3 {
                scheduler.step(budgets.next().expect("a cycle"));
            }
        }
        while let Some(first) = scheduler.running.first().or(scheduler.waiting.first()).map(|rank| rank.id) {
            let step = scheduler.step(budgets.next().expect("a cycle"));
            let sampled = |id| step.entries.iter().any(|entry| entry.id == id && entry.samples);
            if sampled(first) {
                scheduler.remove(first);
            }
        }
        let counts = scheduler.prefix_counts();
        prop_assert_eq!(counts.hit + counts.missed.iter().sum::<u64>(), tokens_in);
    }
}
