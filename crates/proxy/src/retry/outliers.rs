//! Backends that fail requests though their operations server answers: left alone for a while.
//!
//! What counts is between proxy and backend: no connection in time, none of an answer, an answer that broke off,
//! stalled or is no HTTP. Whatever status an answer has, it is one: 429 and 503 say that there is no room, 4xx that
//! the request is wrong, 500 what came of one request. A refused connection is for the membership to judge.

use crate::upstream::{Incarnation, UpstreamError};
use inferno_shared::{config::ProxyRetry, membership::CandidateList};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Longest time that a backend is left alone.
const EJECTION_MAX: Duration = Duration::from_secs(60);
/// Backends that failures are remembered of. More than fail at a time: beyond it all is forgotten.
const RECORDS_MAX: usize = 10_000;

/// Who failed lately.
#[derive(Debug)]
pub(crate) struct Outliers {
    /// Failures in a row before it is left alone; 0: never.
    failures_max: usize,
    /// For how long at first; each time it is doubled.
    first: Duration,
    records: Mutex<HashMap<Incarnation, Record>>,
    /// There are records: nobody takes the lock while all is well.
    any: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// In a row.
    failures: usize,
    ejections: u32,
    until: Duration,
}

impl Outliers {
    pub(crate) fn new(config: &ProxyRetry) -> Self {
        Self {
            failures_max: config.eject_after,
            first: Duration::from_millis(config.ejection_ms),
            records: Mutex::default(),
            any: AtomicBool::new(false),
        }
    }

    /// The indices of those to be left alone now. At most half of them: if many fail, it is not they who are odd.
    pub(crate) fn ejected(&self, now: Duration, list: &CandidateList) -> Vec<usize> {
        if !self.any.load(Relaxed) {
            return Vec::new();
        }
        let records = self.records();
        let until = |index: &usize| {
            let record = records.get(&Incarnation::from(&*list.candidates[*index].node));
            record.map_or(Duration::ZERO, |record| record.until)
        };
        let mut ejected: Vec<usize> = (0..list.candidates.len()).collect();
        ejected.retain(|index| until(index) > now);
        ejected.sort_by_key(|index| std::cmp::Reverse(until(index)));
        ejected.truncate(list.candidates.len() / 2);
        ejected
    }

    /// A backend failed a request. For how long it is left alone, if that begins now.
    pub(crate) fn failed(
        &self,
        now: Duration,
        who: Incarnation,
        error: &UpstreamError,
    ) -> Option<Duration> {
        if self.failures_max == 0 || matches!(error, UpstreamError::ConnectRefused) {
            return None;
        }
        let mut records = self.records();
        if records.len() >= RECORDS_MAX {
            records.clear();
        }
        self.any.store(true, Relaxed);
        let record = records.entry(who).or_default();
        record.failures += 1;
        // Requests that were on their way when it was ejected say nothing new.
        if record.failures < self.failures_max || record.until > now {
            return None;
        }
        let time = self.first.saturating_mul(1 << record.ejections.min(16)).min(EJECTION_MAX);
        record.ejections += 1;
        record.until = now + time;
        // When it is over, one more failure is enough.
        record.failures = self.failures_max - 1;
        Some(time)
    }

    /// A backend answered a request to its end.
    pub(crate) fn answered(&self, who: Incarnation) {
        if self.any.load(Relaxed) {
            let mut records = self.records();
            records.remove(&who);
            self.any.store(!records.is_empty(), Relaxed);
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Incarnation, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferno_shared::membership::{NodeView, ReportedLoad};
    use std::{io, sync::Arc};

    const RULES: ProxyRetry = ProxyRetry {
        attempts_max: 3,
        replays_max: 1,
        budget: 0.2,
        eject_after: 3,
        ejection_ms: 1000,
    };

    fn list(count: u16) -> CandidateList {
        let view = |index: u16| {
            let address = ([127, 0, 0, 1], 1000 + index).into();
            let view = crate::routing::tests::node(index.into(), ReportedLoad::default());
            Arc::new(NodeView { address, ..view })
        };
        CandidateList::new((0..count).map(view))
    }

    fn who(list: &CandidateList, index: usize) -> Incarnation {
        Incarnation::from(&*list.candidates[index].node)
    }

    fn lost() -> UpstreamError {
        UpstreamError::Lost(io::ErrorKind::ConnectionReset.into())
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_in_a_row_and_it_is_left_alone_for_longer_each_time() {
        let (outliers, list) = (Outliers::new(&RULES), list(4));
        let fail = |now_s| outliers.failed(s(now_s), who(&list, 1), &lost());
        assert_eq!([fail(0), fail(0), fail(0)], [None, None, Some(s(1))]);
        assert_eq!(outliers.ejected(s(0), &list), [1]);
        assert_eq!(fail(0), None, "what was on its way");
        assert!(outliers.ejected(s(1), &list).is_empty());
        // Now one is enough.
        assert_eq!(fail(2), Some(s(2)));
        assert_eq!(fail(5), Some(s(4)));
        let times: Vec<_> = (1..20).filter_map(|n| fail(n * 100)).collect();
        assert_eq!(times.last(), Some(&EJECTION_MAX));
        outliers.answered(who(&list, 1));
        assert_eq!(
            [fail(9000), fail(9000), fail(9000)],
            [None, None, Some(s(1))],
            "all is forgiven"
        );
    }

    #[test]
    fn an_answer_in_between_makes_it_no_row() {
        let (outliers, list) = (Outliers::new(&RULES), list(2));
        for _ in 0..10 {
            assert_eq!(outliers.failed(s(0), who(&list, 0), &lost()), None);
            assert_eq!(outliers.failed(s(0), who(&list, 0), &lost()), None);
            outliers.answered(who(&list, 0));
        }
    }

    #[test]
    fn never_more_than_half_of_them() {
        let (outliers, list) = (Outliers::new(&RULES), list(5));
        for (index, now_s) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
            let fail = || outliers.failed(Duration::from_millis(now_s), who(&list, index), &lost());
            assert_eq!([fail(), fail(), fail()], [None, None, Some(s(1))]);
        }
        assert_eq!(outliers.ejected(Duration::from_millis(4), &list), [3, 2], "the latest");
        let one = CandidateList::new([Arc::clone(&list.candidates[0].node)]);
        assert!(outliers.ejected(Duration::from_millis(4), &one).is_empty(), "the only one");
    }

    #[test]
    fn what_the_membership_judges_and_what_is_switched_off_does_not_count() {
        let (outliers, list) = (Outliers::new(&RULES), list(2));
        let never = Outliers::new(&ProxyRetry { eject_after: 0, ..RULES });
        for _ in 0..10 {
            let refused = outliers.failed(s(0), who(&list, 0), &UpstreamError::ConnectRefused);
            assert_eq!((refused, never.failed(s(0), who(&list, 0), &lost())), (None, None));
        }
    }
}
