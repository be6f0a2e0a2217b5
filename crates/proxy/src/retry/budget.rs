//! How many retries there may be for how many requests.
//!
//! One dead backend costs each request a retry; a dead fleet would cost each request all of them, at the moment when
//! there is the least to spare. So requests earn a part of a retry each, and a few a second are free (the budget of
//! Finagle and Linkerd).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A retry, in the unit that budgets are counted in.
const ONE: u64 = 1000;
/// Retries that are free each second, so that a proxy with little to do may retry at all.
const FREE_PER_S: u64 = 10 * ONE;
/// Most retries that are saved up.
const SAVED_MAX: u64 = 100 * ONE;

/// A budget for retries.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What each request earns.
    share: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    saved: u64,
    /// Until when the free ones were counted.
    counted: Duration,
}

impl Budget {
    /// Each request earns `share` of a retry.
    pub(crate) fn new(share: f64) -> Self {
        let share = (share * ONE as f64).round() as u64;
        Self { share, state: Mutex::new(State { saved: FREE_PER_S, counted: Duration::ZERO }) }
    }

    /// A request came.
    pub(crate) fn earn(&self) {
        self.with(|state| state.saved = (state.saved + self.share).min(SAVED_MAX));
    }

    /// Takes a retry, if there is one.
    pub(crate) fn spend(&self, now: Duration) -> bool {
        self.with(|state| {
            let passed_s = now.saturating_sub(state.counted).as_secs_f64();
            state.counted = state.counted.max(now);
            // Free ones are for those who have nothing: they do not pile up.
            let free = (FREE_PER_S as f64 * passed_s.min(1.0)) as u64;
            state.saved = state.saved.max((state.saved + free).min(FREE_PER_S));
            let has = state.saved >= ONE;
            state.saved -= if has { ONE } else { 0 };
            has
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &Budget, now_s: u64, asked: usize) -> usize {
        (0..asked).filter(|_| budget.spend(Duration::from_secs(now_s))).count()
    }

    #[test]
    fn a_part_of_a_retry_for_each_request() {
        let budget = Budget::new(0.2);
        assert_eq!(spent(&budget, 0, 50), 10, "what there is at first");
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spent(&budget, 0, 50), 20);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!(spent(&budget, 0, 500), 100, "no more is saved than that");
    }

    #[test]
    fn a_few_a_second_are_free_and_do_not_pile_up() {
        let budget = Budget::new(0.0);
        assert_eq!(spent(&budget, 0, 50), 10);
        assert_eq!(spent(&budget, 1, 50), 10);
        assert_eq!(spent(&budget, 1000, 50), 10);
        assert_eq!(spent(&budget, 999, 50), 0, "time that goes back brings nothing");
        assert_eq!(spent(&budget, 1000, 50), 0);
        assert_eq!(spent(&budget, 1001, 50), 10);
    }
}
