//! The membership under crashes, restarts, pauses, partitions, clock skew, slow and duplicated
//! messages: simulated, so that minutes take milliseconds and every run can be had again.
//!
//! What runs is the real thing: [`inferno_shared::membership::Membership`] in each proxy,
//! [`inferno_shared::registration::lease::book::Book`] in each node, and the real proof of vitals.
//! Only the edges around them are made up: time, chance and the network.
//!
//! A seed is a whole run. `SIMULATION_SEEDS=1000000` runs that many, `SIMULATION_SEED=42` replays
//! one and tells its story. What must hold is written down in [`oracle`].

#![expect(clippy::print_stdout, reason = "a story is told, and progress")]

mod network;
mod oracle;
mod process;
mod schedule;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use world::World;

/// Seeds that a plain test run covers.
const SEEDS: u64 = 3_000;
/// Threads that share them.
const THREADS: usize = 2;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs one seed; what it broke, if it broke something.
fn run(seed: u64, tell: bool) -> Result<(), String> {
    World::new(seed, tell).run().map_err(|broken| {
        format!("seed {seed}: {broken}\nreplay it with its story: SIMULATION_SEED={seed} cargo test --release -p inferno-shared --test membership_simulation -- --nocapture")
    })
}

#[test]
fn whatever_happens_the_members_are_known_for_what_they_are() {
    if let Some(seed) = setting("SIMULATION_SEED") {
        return run(seed, true).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let seeds = setting("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let first = setting("SIMULATION_FIRST").unwrap_or(0);
    let (next, began) = (AtomicU64::new(first), Instant::now());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + seeds {
                return Ok(());
            }
            run(seed, false)?;
            if seeds > SEEDS && (seed - first) % 20_000 == 19_999 {
                println!("{} seeds in {} s", seed - first + 1, began.elapsed().as_secs());
            }
        }
    };
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("it ran")).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in [1, 2, 64] {
        let story = || {
            let mut world = World::new(seed, false);
            world.run().expect("holds");
            world.digest()
        };
        assert_eq!(story(), story());
    }
}

/// Milliseconds as the simulation's time.
fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
