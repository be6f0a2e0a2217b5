//! What was spent within the last minute, pure: a minute is a minute, at every moment. A token bucket would let twice
//! its size through in the minute after a pause.

use std::time::Duration;

/// One slot a second: those of the minute before this second, and this one.
const SLOTS: usize = 61;

/// A sliding window over a minute, exact to a second, on the safe side.
#[derive(Debug)]
pub struct Window {
    /// By second modulo [`SLOTS`].
    slots: [u64; SLOTS],
    /// All of them together.
    spent: u64,
    /// The second of the newest slot.
    second: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: [0; SLOTS], spent: 0, second: 0 }
    }
}

impl Window {
    /// Spends `amount` at `now` if `limit` allows it: the second in which it was spent, for
    /// [`Self::correct`].
    ///
    /// # Errors
    /// How long until it would; never, if `amount` is over `limit`.
    pub fn spend(&mut self, limit: u64, amount: u64, now: Duration) -> Result<u64, Wait> {
        self.advance(now);
        if amount > limit {
            return Err(Wait::Forever);
        }
        let over = self.spent.saturating_add(amount).saturating_sub(limit);
        if over > 0 {
            return Err(Wait::For(self.until_freed(over, now)));
        }
        self.add(self.second, amount);
        Ok(self.second)
    }

    /// What was spent as `reserved` in the `second` was `actual`. Whatever has left the window is over.
    pub fn correct(&mut self, second: u64, reserved: u64, actual: u64, now: Duration) {
        self.advance(now);
        if second + (SLOTS as u64) > self.second {
            self.add(second, actual);
            let slot = &mut self.slots[index(second)];
            // It is there: it was added in that second, and a slot is emptied when its minute is over.
            let back = reserved.min(*slot);
            *slot -= back;
            self.spent -= back;
        }
    }

    /// How much of `limit` is left.
    pub fn left(&mut self, limit: u64, now: Duration) -> u64 {
        self.advance(now);
        limit.saturating_sub(self.spent)
    }

    /// Until all of it is free again.
    pub fn reset(&mut self, now: Duration) -> Duration {
        self.advance(now);
        self.until_freed(self.spent, now)
    }

    /// Nothing is spent.
    pub fn is_clear(&mut self, now: Duration) -> bool {
        self.advance(now);
        self.spent == 0
    }

    fn add(&mut self, second: u64, amount: u64) {
        let slot = &mut self.slots[index(second)];
        // Nobody's sums come near: a request has at most 2^32 tokens.
        *slot = slot.saturating_add(amount);
        self.spent = self.spent.saturating_add(amount);
    }

    /// Empties the slots whose minute is over at `now`.
    fn advance(&mut self, now: Duration) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.second);
        for offset in 0..passed.min(SLOTS as u64) {
            self.spent -= std::mem::take(&mut self.slots[index(second - offset)]);
        }
        self.second = self.second.max(second);
    }

    /// Until `amount` of what is spent has left the window.
    fn until_freed(&self, amount: u64, now: Duration) -> Duration {
        let mut freed = 0u64;
        let oldest = self.second.saturating_sub(SLOTS as u64 - 1);
        for second in oldest..=self.second {
            if freed >= amount {
                break;
            }
            freed += self.slots[index(second)];
            if freed >= amount {
                return Duration::from_secs(second + SLOTS as u64).saturating_sub(now);
            }
        }
        Duration::ZERO
    }
}

/// How long something has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So long, if nothing else comes.
    For(Duration),
    /// It is more than there ever will be.
    Forever,
}

const fn index(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn what_is_spent_comes_back_after_a_minute_and_not_before() {
        let mut window = Window::default();
        for second in [0.5, 10.0, 20.9] {
            assert!(window.spend(3, 1, at(second)).is_ok());
        }
        assert_eq!(window.spend(3, 1, at(30.0)), Err(Wait::For(at(31.0))));
        assert_eq!((window.left(3, at(30.0)), window.reset(at(30.0))), (0, at(51.0)));
        assert_eq!(window.spend(3, 2, at(60.9)), Err(Wait::For(at(10.1))));
        assert!(window.spend(3, 1, at(61.0)).is_ok());
        assert_eq!(window.spend(3, 4, at(61.0)), Err(Wait::Forever));
        assert!(window.is_clear(at(200.0)));
        assert_eq!(window.reset(at(200.0)), Duration::ZERO);
    }

    #[test]
    fn what_was_reserved_is_settled_in_its_own_second() {
        let mut window = Window::default();
        let second = window.spend(100, 80, at(5.0)).expect("room");
        window.correct(second, 80, 30, at(9.0));
        assert_eq!(window.left(100, at(9.0)), 70);
        window.correct(second, 30, 130, at(10.0));
        assert_eq!(window.left(100, at(10.0)), 0, "a debt");
        assert_eq!(window.spend(100, 1, at(10.0)), Err(Wait::For(at(56.0))));
        assert_eq!(window.left(100, at(66.0)), 100);
        window.correct(second, 130, 0, at(67.0));
        assert_eq!(window.left(100, at(67.0)), 100, "too late to matter");
    }

    proptest! {
        #[test]
        fn no_minute_ever_has_more_than_its_limit(
            steps in prop::collection::vec((0u64..20_000, 1u64..8), 1..200),
        ) {
            const LIMIT: u64 = 10;
            let (mut window, mut now, mut spent) = (Window::default(), Duration::ZERO, Vec::new());
            for (pause, amount) in steps {
                now += Duration::from_millis(pause);
                let before: u64 = spent.iter().filter(|(at, _)| *at + at_minute() > now).map(|(_, n)| n).sum();
                match window.spend(LIMIT, amount, now) {
                    Ok(_) => {
                        prop_assert!(before + amount <= LIMIT);
                        spent.push((now, amount));
                    }
                    Err(Wait::For(wait)) => {
                        // To wait as told is enough.
                        prop_assert!(wait <= Duration::from_secs(61));
                        now += wait;
                        prop_assert!(window.spend(LIMIT, amount, now).is_ok());
                        spent.push((now, amount));
                    }
                    Err(Wait::Forever) => prop_assert!(amount > LIMIT),
                }
                prop_assert_eq!(window.spent, window.slots.iter().sum::<u64>());
            }
        }
    }

    fn at_minute() -> Duration {
        Duration::from_secs(60)
    }
}
