//! A thread pool for regions of microseconds.
//!
//! A decode step is some hundred and fifty parallel regions of 10–200 µs, so waking by a system call
//! each time is too slow and spinning without bound ruins every neighbour when cores are scarce.
//! Workers here spin for a few tens of microseconds and then park.
//!
//! The caller works too, and waits only for workers that *entered* the region: one that the operating
//! system never scheduled costs nothing but its help. Parts are claimed from a shared counter, so which
//! thread computes which part varies from run to run; what a part computes must not depend on it.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};

/// Pauses before a waiting thread sleeps: 20–60 µs on the processors of this decade.
const SPINS: u32 = 1_000;

/// Set in [`Shared::state`] while workers may enter the region; the lower bits count those inside.
const OPEN: u32 = 1 << 31;

type Region<'a> = dyn Fn(usize) + Sync + 'a;

struct Job {
    region: *const Region<'static>,
    parts: usize,
    caller: Thread,
}

struct Shared {
    /// Counts regions; workers wait for it to change.
    epoch: AtomicU32,
    /// [`OPEN`] and the number of workers inside.
    state: AtomicU32,
    /// The next part nobody claimed.
    next: AtomicUsize,
    /// Written by the caller while the state is 0, read by workers between entering and leaving.
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. The caller (one at a time, under
// `ThreadPool::calls`) writes it only while `state` is 0, and a worker reads it only after it raised the
// count of an OPEN state with acquire ordering; `state` returns to 0 only when every such worker left.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is only followed between entering and leaving, see above.
unsafe impl Send for Shared {}

/// Threads that run the parts of one region at a time, together with the calling thread.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    calls: Mutex<()>,
}

impl ThreadPool {
    /// A pool in which `threads` threads work, the caller included; `0` counts as 1.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(0),
            state: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::new(), calls: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("kernel-{index}"))
                .spawn(move || shared.serve())?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// How many threads work on a region, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `region(0)` … `region(parts - 1)`, each exactly once, and returns when all are done. A region
    /// started while another runs (from inside one, or from a second thread) runs on its caller alone.
    ///
    /// # Panics
    /// With the first panic of a part, after every thread has left the region.
    pub fn run(&self, parts: usize, region: &Region<'_>) {
        if parts <= 1 || self.workers.is_empty() {
            return (0..parts).for_each(region);
        }
        match self.calls.try_lock() {
            Ok(_exclusive) => self.run_shared(parts, region),
            // A part of an earlier region panicked, after which everything was left in good order.
            Err(TryLockError::Poisoned(_exclusive)) => self.run_shared(parts, region),
            Err(TryLockError::WouldBlock) => (0..parts).for_each(region),
        }
    }

    fn run_shared(&self, parts: usize, region: &Region<'_>) {
        let region: *const Region<'_> = region;
        // SAFETY: only the lifetime is erased. `close_and_wait` below returns when no worker is inside
        // and none can enter, so nobody follows the pointer after this function.
        let region: *const Region<'static> = unsafe { std::mem::transmute(region) };
        let shared = &*self.shared;
        // SAFETY: `calls` is held and the previous region ended, so the state is 0: nobody reads `job`.
        unsafe { *shared.job.get() = Some(Job { region, parts, caller: thread::current() }) };
        shared.next.store(0, Ordering::Relaxed);
        shared.state.store(OPEN, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.iter().take(parts - 1) {
            worker.thread().unpark();
        }
        // SAFETY: the region is borrowed by our caller for longer than this call.
        shared.work(unsafe { &*region }, parts);
        shared.close_and_wait();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// A worker's life: wait for a region, help with it, wait again.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_epoch(seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if self.enter() {
                // SAFETY: between `enter` and the decrement below the caller waits for us, so `job`
                // stays as it is and the region it points to is alive.
                let job = unsafe { &*self.job.get() };
                let caller = job.as_ref().map(|job| {
                    // SAFETY: as above.
                    self.work(unsafe { &*job.region }, job.parts);
                    job.caller.clone()
                });
                if self.state.fetch_sub(1, Ordering::Release) == 1 {
                    caller.inspect(Thread::unpark);
                }
            }
        }
    }

    /// Spins, then parks, until the epoch differs from `seen`; returns the new one.
    fn wait_for_epoch(&self, seen: u32) -> u32 {
        let mut spins = 0;
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            spin_or_park(&mut spins);
        }
    }

    /// Joins the region if it is still open.
    fn enter(&self) -> bool {
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & OPEN != 0).then_some(state + 1)
            })
            .is_ok()
    }

    /// Claims and runs parts until none is left. A panic is kept for the caller and ends the region.
    fn work(&self, region: &Region<'_>, parts: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let part = self.next.fetch_add(1, Ordering::Relaxed);
                if part >= parts {
                    break;
                }
                region(part);
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(parts, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// Lets nobody else in and waits for those inside to leave.
    fn close_and_wait(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) != 0 {
            spin_or_park(&mut spins);
        }
    }
}

fn spin_or_park(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        *spins = 0;
        thread::park();
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its parts, so joining cannot fail.
            drop(worker.join());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn every_part_runs_exactly_once() {
        let pool = ThreadPool::new(4).unwrap();
        for parts in [0, 1, 2, 3, 17, 1000] {
            let counts: Vec<AtomicU32> = (0..parts).map(|_| AtomicU32::new(0)).collect();
            pool.run(parts, &|part| {
                counts[part].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{parts} parts");
        }
    }

    #[test]
    fn many_short_regions_in_a_row_lose_nothing() {
        let pool = ThreadPool::new(3).unwrap();
        let total = AtomicUsize::new(0);
        for _ in 0..20_000 {
            pool.run(5, &|part| {
                total.fetch_add(part, Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 20_000 * 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = ThreadPool::new(2).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|part| assert_ne!(part, 33, "part 33 fails"));
        }));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(64, &|part| {
            sum.fetch_add(part, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 63 * 32);
    }

    #[test]
    fn after_a_panic_all_threads_work_again() {
        let pool = ThreadPool::new(2).unwrap();
        let region = || pool.run(2, &|part| assert_ne!(part, 0, "part 0 fails"));
        assert!(catch_unwind(AssertUnwindSafe(region)).is_err());
        // Each part waits for the other, which only a second thread can run.
        let (entered, deadline) = (AtomicUsize::new(0), Instant::now() + Duration::from_secs(30));
        pool.run(2, &|_| {
            entered.fetch_add(1, Ordering::Relaxed);
            while entered.load(Ordering::Relaxed) < 2 && Instant::now() < deadline {
                thread::yield_now();
            }
        });
        assert!(Instant::now() < deadline, "only one thread works");
    }

    #[test]
    fn a_region_inside_a_region_runs_inline() {
        let pool = ThreadPool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 6);
    }
}
