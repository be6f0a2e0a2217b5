//! What a policy hears of its choice afterwards.

use super::{
    Pick, Policy,
    prefix::{Expected, StreamSeen},
};
use std::{sync::Arc, time::Duration};

/// Tells the policy what came of its choice: that the first token came, or, if it is dropped before anything
/// else, that nothing will.
pub struct Ticket {
    policy: Arc<dyn Policy>,
    model: u64,
    expected: Option<Expected>,
}

impl Ticket {
    /// For `pick` of `policy` for a request of that model.
    pub fn new(policy: &Arc<dyn Policy>, model: u64, pick: &Pick) -> Self {
        Self { policy: Arc::clone(policy), model, expected: pick.expected }
    }

    /// The first token came.
    pub fn first_token(&mut self, now: Duration) {
        if let Some(expected) = self.expected.take() {
            self.policy.answered(&expected, now);
        }
    }

    /// Its stream came to an end.
    pub fn streamed(&self, seen: &StreamSeen) {
        self.policy.streamed(self.model, seen);
    }

    /// The whole answer came at once: when its first token was there, nobody saw.
    pub fn unobserved(&mut self) {
        self.expected = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(expected) = self.expected.take() {
            self.policy.abandoned(&expected);
        }
    }
}
