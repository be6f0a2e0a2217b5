//! The two ways to put a target under load.
//!
//! *Closed loop*: so many workers, each with one request at a time. A slow answer delays the next
//! question, so that a server that stalls is asked less: right for "how fast at this concurrency", wrong
//! for "how long do users wait".
//!
//! *Open loop*: requests begin when they are scheduled, whatever the server does, and latencies count
//! from the schedule. A stall shows in every request it delayed (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;
use super::target::Target;
use super::watch::{Recorder, Watch};

/// How long a worker of a closed loop waits when nobody is there.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// A request ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) body: Bytes,
    /// Length of a made-up prompt, in tokens.
    pub(super) prompt_tokens: Option<u32>,
}

/// A request and the time at which it is to begin.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) scheduled: Instant,
    pub(super) request: Prepared,
}

/// What both loops need.
#[derive(Debug)]
pub(super) struct Loader<T> {
    pub(super) target: Arc<T>,
    pub(super) recorder: Recorder,
    /// From sending to the end of the answer.
    pub(super) timeout: Duration,
}

/// When a closed loop sends no more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stop {
    pub(super) requests: Option<u64>,
    pub(super) at: Option<Instant>,
}

impl<T> Clone for Loader<T> {
    fn clone(&self) -> Self {
        let (target, recorder) = (self.target.clone(), self.recorder.clone());
        Self { target, recorder, timeout: self.timeout }
    }
}

impl Stop {
    fn is_reached(self, index: u64) -> bool {
        self.requests.is_some_and(|requests| index >= requests)
            || self.at.is_some_and(|at| Instant::now() >= at)
    }
}

impl<T: Target> Loader<T> {
    /// Runs `concurrency` workers until `stop`, and waits for the answers under way.
    pub(super) async fn closed_loop(
        &self,
        concurrency: usize,
        stop: Stop,
        prepare: impl Fn(u64) -> Prepared + Clone + Send + 'static,
    ) {
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            let (loader, next, prepare) = (self.clone(), next.clone(), prepare.clone());
            workers.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if stop.is_reached(index) {
                        break;
                    }
                    let request = prepare(index);
                    let outcome = loader.send(Arrival { scheduled: Instant::now(), request }).await;
                    if outcome.is_err_and(|failure| failure.is_unreachable()) {
                        sleep(UNREACHABLE_PAUSE).await;
                    }
                }
            });
        }
        join(workers).await;
    }

    /// Sends each arrival when it comes, `in_flight_max` at a time at most, until there are no more,
    /// and waits for the answers under way.
    pub(super) async fn open_loop(
        &self,
        in_flight_max: usize,
        mut arrivals: mpsc::Receiver<Arrival>,
    ) {
        let places = Arc::new(Semaphore::new(in_flight_max));
        let mut requests = JoinSet::new();
        let mut full_until = None;
        while let Some(arrival) = arrivals.recv().await {
            let is_full = places.available_permits() == 0;
            // Nobody closes it.
            let Ok(place) = places.clone().acquire_owned().await else { break };
            if is_full {
                full_until = Some(Instant::now());
            }
            // Also what was due while another waited for the place.
            if full_until.is_some_and(|until| arrival.scheduled <= until) {
                self.recorder.figures().held += 1;
            }
            let loader = self.clone();
            requests.spawn(async move {
                loader.send(arrival).await.ok();
                drop(place);
            });
            while requests.try_join_next().is_some() {}
        }
        join(requests).await;
    }

    /// One request, from sending to the end of its answer.
    async fn send(&self, arrival: Arrival) -> Result<(), Failure> {
        let Arrival { scheduled, request } = arrival;
        let mut watch = Watch::start(self.recorder.clone(), scheduled);
        let asked = timeout(self.timeout, self.target.ask(request.body, &mut watch)).await;
        match asked.unwrap_or_else(|_| Err(Failure::timeout(self.timeout))) {
            Ok(answer) => {
                watch.completed(answer, request.prompt_tokens);
                Ok(())
            }
            Err(failure) => {
                watch.failed(&failure);
                Err(failure)
            }
        }
    }
}

/// Waits for all; a panic in one is a panic here.
async fn join(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[cfg(test)]
mod tests;
