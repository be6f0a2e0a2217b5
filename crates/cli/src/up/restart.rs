//! When a process that ended is started again.

use std::time::Duration;

/// Before the first restart; doubled with each that follows.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Serving this long shows that the trouble before is over.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// Starts in a row that never led to readiness before we stop trying.
const FRUITLESS_STARTS_MAX: u32 = 5;

/// What to do about a process that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it again after this long.
    RestartAfter(Duration),
    /// It never gets ready: starting it again will not change that.
    GiveUp,
}

/// What is remembered of one process's starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RestartPolicy {
    next_delay: Duration,
    fruitless_starts: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { next_delay: FIRST_DELAY, fruitless_starts: 0 }
    }
}

impl RestartPolicy {
    /// The process ended after it had been ready for `ready_for`, or without ever being.
    pub(super) fn ended(&mut self, ready_for: Option<Duration>) -> Verdict {
        match ready_for {
            Some(steady) if steady >= STEADY_AFTER => *self = Self::default(),
            Some(_) => self.fruitless_starts = 0,
            None => self.fruitless_starts += 1,
        }
        if self.fruitless_starts == FRUITLESS_STARTS_MAX {
            return Verdict::GiveUp;
        }
        let delay = self.next_delay;
        self.next_delay = (delay * 2).min(LONGEST_DELAY);
        Verdict::RestartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEFLY: Option<Duration> = Some(Duration::from_secs(1));

    fn delays(policy: &mut RestartPolicy, ready_for: Option<Duration>, count: usize) -> Vec<u64> {
        let mut delay_ms = || match policy.ended(ready_for) {
            Verdict::RestartAfter(delay) => delay.as_millis() as u64,
            Verdict::GiveUp => 0,
        };
        (0..count).map(|_| delay_ms()).collect()
    }

    #[test]
    fn delays_double_up_to_ten_seconds_and_never_end_for_what_was_ready() {
        let delays = delays(&mut RestartPolicy::default(), BRIEFLY, 8);
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn serving_for_thirty_seconds_resets_the_delay() {
        let mut policy = RestartPolicy::default();
        delays(&mut policy, BRIEFLY, 5);
        assert_eq!(delays(&mut policy, Some(STEADY_AFTER), 1), [500]);
    }

    #[test]
    fn five_starts_in_vain_are_enough() {
        let mut policy = RestartPolicy::default();
        assert_eq!(delays(&mut policy, None, 4), [500, 1000, 2000, 4000]);
        assert_eq!(policy.ended(None), Verdict::GiveUp);
    }

    #[test]
    fn being_ready_in_between_starts_the_count_again() {
        let mut policy = RestartPolicy::default();
        delays(&mut policy, None, 4);
        delays(&mut policy, BRIEFLY, 1);
        assert!(delays(&mut policy, None, 4).iter().all(|delay| *delay > 0));
        assert_eq!(policy.ended(None), Verdict::GiveUp);
    }
}
