//! Request bodies: read whole, within limits for each and for all together.
//!
//! Whole, because the model's name may stand at the very end, and because a request that is sent
//! again has to be here.

use crate::{
    downstream::Client,
    error::{Interruption, RequestError},
};
use bytes::{Bytes, BytesMut};
use inferno_shared::config::ProxyConfig;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::timeout;

/// Most room made for a body before any of it has come, bytes: a promise costs a client nothing.
const FIRST_ROOM_BYTES: u64 = 64 * 1024;

/// The limits on request bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    each_max: u64,
    patience: Duration,
    budget: Arc<Budget>,
}

/// A request's body; while it lives, it counts.
#[derive(Debug)]
pub(crate) struct Body {
    /// All of it.
    pub(crate) bytes: Bytes,
    share: Share,
}

impl Body {
    /// Puts `bytes` in the place of what the client sent. What they are more counts too.
    pub(crate) fn replace(&mut self, bytes: Bytes) -> Result<(), RequestError> {
        let more = (bytes.len() as u64).saturating_sub(self.share.bytes);
        self.share.grow(more)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Bodies {
    pub(crate) fn new(config: &ProxyConfig) -> Self {
        Self {
            each_max: config.body_bytes_max.0,
            patience: Duration::from_millis(config.timeouts.request_read_ms),
            budget: Arc::new(Budget {
                total_max: config.body_bytes_total.0,
                held: AtomicU64::new(0),
            }),
        }
    }

    /// Reads the client's body, having invited it where the client waits for that.
    pub(crate) async fn read(&self, client: &mut Client) -> Result<Body, Interruption> {
        let promised = client.promised_length().unwrap_or(0);
        self.check(promised)?;
        let read = timeout(self.patience, async {
            client.invite_body().await?;
            self.collect(client, promised).await
        });
        read.await.map_err(|_| RequestError::ReadTimeout)?
    }

    async fn collect(&self, client: &mut Client, promised: u64) -> Result<Body, Interruption> {
        let mut share = Share { budget: Arc::clone(&self.budget), bytes: 0 };
        let room = promised.min(FIRST_ROOM_BYTES);
        let mut body = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
        while let Some(piece) = client.read_body().await? {
            self.check(body.len() as u64 + piece.len() as u64)?;
            share.grow(piece.len() as u64)?;
            body.extend_from_slice(&piece);
        }
        Ok(Body { bytes: body.freeze(), share })
    }

    fn check(&self, length: u64) -> Result<(), RequestError> {
        let limit = self.each_max;
        if length > limit { Err(RequestError::BodyTooLarge { limit }) } else { Ok(()) }
    }
}

/// All bodies together.
#[derive(Debug)]
struct Budget {
    total_max: u64,
    held: AtomicU64,
}

/// One body's part of the budget, given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, bytes: u64) -> Result<(), RequestError> {
        let limit = self.budget.total_max;
        let more = |held: u64| held.checked_add(bytes).filter(|&held| held <= limit);
        self.budget
            .held
            .fetch_update(Relaxed, Relaxed, more)
            .map_err(|_| RequestError::BodiesExhausted { limit })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_replaces_a_body_counts_for_what_it_is_more() {
        let budget = Arc::new(Budget { total_max: 10, held: AtomicU64::new(0) });
        let mut share = Share { budget: Arc::clone(&budget), bytes: 0 };
        share.grow(4).expect("room");
        let mut body = Body { bytes: "1234".into(), share };
        assert!(body.replace("x".repeat(11).into()).is_err());
        assert_eq!((&*body.bytes, budget.held.load(Relaxed)), (&b"1234"[..], 4));
        body.replace("x".repeat(10).into()).expect("room");
        assert_eq!((body.bytes.len(), budget.held.load(Relaxed)), (10, 10));
        drop(body);
        assert_eq!(budget.held.load(Relaxed), 0);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_passed_and_always_given_back(
            steps in proptest::collection::vec((0usize..4, 0u64..60), 1..50),
        ) {
            let budget = Arc::new(Budget { total_max: 100, held: AtomicU64::new(0) });
            let new = || Share { budget: Arc::clone(&budget), bytes: 0 };
            let mut shares = [new(), new(), new(), new()];
            for (index, bytes) in steps {
                let held = budget.held.load(Relaxed);
                let granted = shares[index].grow(bytes).is_ok();
                prop_assert_eq!(granted, held + bytes <= 100, "granted exactly where it fits");
                prop_assert_eq!(budget.held.load(Relaxed), shares.iter().map(|share| share.bytes).sum::<u64>());
                if !granted {
                    shares[index] = new();
                }
            }
            drop(shares);
            prop_assert_eq!(budget.held.load(Relaxed), 0);
        }
    }
}
