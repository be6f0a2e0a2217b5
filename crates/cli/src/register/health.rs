//! Whether an engine can be sent requests: pure. What probes found comes in, with the time.

use std::time::Duration;

use super::probe::Failure;

/// While nothing changes, it is said again after this time that the engine is waited for.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What an engine's probes amount to.
#[derive(Debug)]
pub(crate) struct Health {
    /// Failures in a row that take a ready engine out.
    failures_max: u32,
    failures: u32,
    is_ready: bool,
    /// What was last said of an engine that is not ready, and when.
    told: Option<(String, Duration)>,
}

/// What there is to say after a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// As before, or said already.
    Nothing,
    /// It takes requests now.
    Ready,
    /// It failed a probe, and is not given up yet.
    Missed,
    /// It takes requests no longer.
    Lost,
    /// It does not take requests yet, or still not.
    Waiting,
}

impl Health {
    /// Of an engine that nobody has asked yet.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self { failures_max, failures: 0, is_ready: false, told: None }
    }

    /// Whether it takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// A probe found everything as it should be.
    pub(crate) fn passed(&mut self) -> News {
        self.failures = 0;
        self.told = None;
        match std::mem::replace(&mut self.is_ready, true) {
            true => News::Nothing,
            false => News::Ready,
        }
    }

    /// A probe failed. A ready engine is given up after several failures in a row, for a busy one may be slow
    /// to answer; at once where there is nothing to doubt.
    pub(crate) fn failed(&mut self, now: Duration, failure: &Failure) -> News {
        self.failures = self.failures.saturating_add(1);
        if self.is_ready && self.failures < self.failures_max && !failure.is_certain() {
            return News::Missed;
        }
        let reason = failure.to_string();
        let was_ready = std::mem::replace(&mut self.is_ready, false);
        let is_told = self
            .told
            .as_ref()
            .is_some_and(|(told, when)| *told == reason && now < *when + REMIND_EVERY);
        if is_told && !was_ready {
            return News::Nothing;
        }
        self.told = Some((reason, now));
        if was_ready { News::Lost } else { News::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_engine_that_is_slow_is_given_up_only_after_several_probes_in_a_row() {
        let mut health = Health::new(3);
        assert_eq!(health.passed(), News::Ready);
        for round in 0..5 {
            assert_eq!(health.failed(at(round), &Failure::Timeout(2_000)), News::Missed);
            assert_eq!(health.failed(at(round), &Failure::Timeout(2_000)), News::Missed);
            assert_eq!(health.passed(), News::Nothing, "it begins anew");
        }
        for expected in [News::Missed, News::Missed, News::Lost, News::Nothing] {
            assert_eq!(health.failed(at(9), &Failure::Timeout(2_000)), expected);
        }
        assert!(!health.is_ready());
        assert_eq!(health.passed(), News::Ready);
    }

    #[test]
    fn nobody_there_is_certain() {
        let mut health = Health::new(3);
        health.passed();
        assert_eq!(health.failed(at(0), &Failure::Refused), News::Lost);
    }

    #[test]
    fn waiting_is_told_when_its_reason_changes_and_once_a_minute() {
        let mut health = Health::new(3);
        assert_eq!(health.failed(at(0), &Failure::Refused), News::Waiting);
        assert_eq!(health.failed(at(1), &Failure::Refused), News::Nothing);
        assert_eq!(health.failed(at(2), &Failure::NoModels), News::Waiting);
        assert_eq!(health.failed(at(61), &Failure::NoModels), News::Nothing);
        assert_eq!(health.failed(at(62), &Failure::NoModels), News::Waiting);
        assert!(!health.is_ready());
    }
}
