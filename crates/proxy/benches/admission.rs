//! What admission costs a request, beside a semaphore, which knows neither tenants nor turns.
//!
//! ```text
//! cargo bench -p inferno-proxy --bench admission
//! ```
//!
//! `free`: a place is there, taken and given back. `queued`: a thousand others wait, of so many tenants; one more joins,
//! one ends, one is called. `full`: as queued, but the queue is at its limit, so that somebody is chosen to go as well.
//! `window`: a reservation within a minute's limit, and its settlement. Nanoseconds each, the best of ten rounds.

#![allow(clippy::print_stdout, missing_docs)]

use inferno_proxy::admission::{
    fair_queue::{Claim, FairQueue, Places, Tenant},
    window::Window,
};
use std::{
    collections::VecDeque,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

const ROUNDS: usize = 10;
const STEPS: usize = 100_000;
const WAITING: usize = 1_000;
const TOKENS: u64 = 600;

struct Room(usize);

impl Places for Room {
    fn total(&self) -> usize {
        usize::MAX
    }

    fn of(&self, _: &str) -> usize {
        self.0
    }
}

/// Nanoseconds of one of [`STEPS`] steps, in the best round.
fn best(mut round: impl FnMut()) -> f64 {
    let time = |_| {
        let started = Instant::now();
        round();
        started.elapsed().as_secs_f64() * 1e9 / STEPS as f64
    };
    (0..ROUNDS).map(time).fold(f64::INFINITY, f64::min)
}

fn semaphore() -> f64 {
    let places = Semaphore::new(256);
    best(|| {
        for _ in 0..STEPS {
            drop(black_box(places.try_acquire()));
        }
    })
}

fn free() -> f64 {
    let (model, tenant) = (Arc::from("smollm2-135m-instruct"), Tenant::from("9aK2bQ7x"));
    let mut queue = FairQueue::<usize>::new(WAITING);
    best(|| {
        for _ in 0..STEPS {
            let claim = Claim { model: &model, tenant: &tenant, priority: 0, tokens: TOKENS };
            black_box(queue.try_run(claim, &Room(256)));
            queue.done(claim, TOKENS / 2);
        }
    })
}

fn queued(tenants: usize, waiting_max: usize) -> f64 {
    let model = Arc::from("smollm2-135m-instruct");
    let tenants: Vec<Tenant> = (0..tenants).map(|n| Tenant::from(format!("{n:08}"))).collect();
    let mut queue = FairQueue::new(waiting_max);
    let claim = |at: usize| Claim {
        model: &model,
        tenant: &tenants[at % tenants.len()],
        priority: 0,
        tokens: TOKENS,
    };
    let mut running = VecDeque::from([0]);
    queue.try_run(claim(0), &Room(1));
    for at in 0..WAITING {
        queue.wait(claim(at), at);
    }
    let mut next = 0;
    best(|| {
        for _ in 0..STEPS {
            next += 1;
            queue.wait(claim(next), next);
            black_box(queue.evict());
            if queue.waiting() > WAITING
                && let Some(at) = running.pop_front()
            {
                queue.done(claim(at), TOKENS / 2);
                running.extend(queue.call(&Room(1)).into_iter().map(|(at, _)| at));
            }
        }
    })
}

fn window() -> f64 {
    let mut window = Window::default();
    let mut now = Duration::from_secs(100);
    best(|| {
        for _ in 0..STEPS {
            now += Duration::from_micros(100);
            if let Ok(second) = window.spend(u64::MAX, TOKENS, now) {
                window.correct(second, TOKENS, TOKENS / 2, now);
            }
        }
    })
}

fn main() {
    println!("semaphore            {:7.0} ns", semaphore());
    println!("free                 {:7.0} ns", free());
    for tenants in [1, 10, 1_000] {
        println!("queued, {tenants:5} tenants {:6.0} ns", queued(tenants, usize::MAX));
    }
    for tenants in [1, 10, 1_000] {
        println!("full,   {tenants:5} tenants {:6.0} ns", queued(tenants, WAITING));
    }
    println!("window               {:7.0} ns", window());
}
