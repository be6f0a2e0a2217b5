//! Stopping without cutting anyone off: count what runs, wait for zero, and only then lose patience.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use tokio::sync::Notify;

/// What is waited for.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Requests that run.
    pub(crate) requests: Count,
    /// Connections on which something may still have to be written when their requests are done.
    pub(crate) connections: Count,
}

/// How many there are of something that comes and goes.
#[derive(Debug, Default)]
pub(crate) struct Count {
    entered: AtomicUsize,
    none_left: Notify,
}

impl Count {
    /// Counts one until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.entered.fetch_add(1, SeqCst);
        Entered(self)
    }

    /// How many there are.
    pub(crate) fn get(&self) -> usize {
        self.entered.load(SeqCst)
    }

    /// Resolves when there is none.
    pub(crate) async fn none(&self) {
        let mut left = pin!(self.none_left.notified());
        loop {
            // Listen before looking: the last one may leave in between.
            left.as_mut().enable();
            if self.get() == 0 {
                return;
            }
            left.as_mut().await;
            left.set(self.none_left.notified());
        }
    }
}

/// One that is counted.
#[derive(Debug)]
pub(crate) struct Entered<'a>(&'a Count);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.0.entered.fetch_sub(1, SeqCst) == 1 {
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
    fn none_waits_for_the_last_one() {
        let count = Count::default();
        let mut context = Context::from_waker(Waker::noop());
        let (first, second) = (count.enter(), count.enter());
        let mut none = pin!(count.none());
        assert!(none.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(none.as_mut().poll(&mut context).is_pending());
        drop(second);
        assert_eq!(none.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
