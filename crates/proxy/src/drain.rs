//! Stopping without cutting anyone off: count what runs, wait for zero, and only then lose patience.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use tokio::sync::{Notify, watch};

/// The requests that run, and the signal that ends them.
#[derive(Debug)]
pub(crate) struct Drain {
    running: AtomicUsize,
    none_left: Notify,
    cut: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            running: AtomicUsize::new(0),
            none_left: Notify::new(),
            cut: watch::Sender::new(false),
        }
    }
}

impl Drain {
    /// Counts one request until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, SeqCst);
        Running(self)
    }

    /// How many requests run.
    pub(crate) fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    /// Resolves when no request runs.
    pub(crate) async fn idle(&self) {
        let mut left = pin!(self.none_left.notified());
        loop {
            // Listen before looking: the last one may leave in between.
            left.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            left.as_mut().await;
            left.set(self.none_left.notified());
        }
    }

    /// Ends every request that still runs.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Resolves when requests have to end.
    pub(crate) async fn is_cut(&self) {
        // The sender lives as long as `self`, so the error of a closed channel cannot come.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }
}

/// A running request.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Drain);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, SeqCst) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::Future,
        task::{Context, Poll, Waker},
    };

    #[test]
    fn idle_waits_for_the_last_one() {
        let drain = Drain::default();
        let mut context = Context::from_waker(Waker::noop());
        let (first, second) = (drain.enter(), drain.enter());
        let mut idle = pin!(drain.idle());
        assert!(idle.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(idle.as_mut().poll(&mut context).is_pending());
        drop(second);
        assert_eq!(idle.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
