//! What is known of each process, and what follows from what happens. No I/O and no clock: events
//! come with their time, decisions go back.

use std::time::{Duration, Instant};

use inferno_shared::membership::NodeState;
use inferno_shared::registration::wire::Peer;

use super::restart::{RestartPolicy, Verdict};

/// Where one process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Running; ready since then, or not yet.
    Running { started: Instant, ready_since: Option<Instant> },
    /// Ended; to be started then.
    Due(Instant),
    /// Ended for good: it never got ready.
    GivenUp,
    /// Ended, as it was told.
    Ended,
}

/// One process.
#[derive(Debug)]
struct Member {
    name: String,
    phase: Phase,
    policy: RestartPolicy,
    /// The newest incarnation seen ready, so that the one before is not taken for it.
    generation: u64,
}

/// All processes: number 0 is the proxy, the others are backends.
#[derive(Debug)]
pub(super) struct Fleet {
    members: Vec<Member>,
    stopping: bool,
}

/// A backend that has just become ready.
#[derive(Debug, PartialEq)]
pub(super) struct NowReady {
    pub(super) process: usize,
    pub(super) after: Duration,
}

/// What follows from the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is started again after this long.
    RestartAfter(Duration),
    /// It is not, and the others go on.
    GivenUp,
    /// Without it nothing is left to serve: stop.
    Hopeless,
    /// It was told to end.
    Stopped,
}

impl Fleet {
    /// Processes that are to be started now.
    pub(super) fn new(names: impl IntoIterator<Item = String>, now: Instant) -> Self {
        let member = |name| Member {
            name,
            phase: Phase::Due(now),
            policy: RestartPolicy::default(),
            generation: 0,
        };
        Self { members: names.into_iter().map(member).collect(), stopping: false }
    }

    pub(super) fn name(&self, process: usize) -> &str {
        &self.members[process].name
    }

    /// The processes to be started at `now`, each told once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<usize> {
        let is_due = |member: &Member| matches!(member.phase, Phase::Due(at) if at <= now);
        let due: Vec<_> = (0..self.members.len()).filter(|i| is_due(&self.members[*i])).collect();
        for process in &due {
            self.members[*process].phase = Phase::Running { started: now, ready_since: None };
        }
        due
    }

    /// When the next process is due, if one is.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |member: &Member| match member.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        };
        self.members.iter().filter_map(due).min()
    }

    /// The proxy's answer to `GET /peers`: it is ready, and so are the backends it says are.
    pub(super) fn observed(&mut self, peers: &[Peer], now: Instant) -> Vec<NowReady> {
        if let Phase::Running { ready_since, .. } = &mut self.members[0].phase {
            ready_since.get_or_insert(now);
        }
        let mut news = Vec::new();
        for (process, member) in self.members.iter_mut().enumerate().skip(1) {
            let Phase::Running { started, ready_since: ready_since @ None } = &mut member.phase
            else {
                continue;
            };
            let peer = peers.iter().find(|peer| peer.id == member.name);
            let Some(peer) = peer.filter(|peer| peer.state == NodeState::Ready) else { continue };
            if peer.generation.0 > member.generation {
                member.generation = peer.generation.0;
                *ready_since = Some(now);
                news.push(NowReady { process, after: now - *started });
            }
        }
        news
    }

    /// Whether a backend serves.
    pub(super) fn serves(&self) -> bool {
        let ready =
            |member: &Member| matches!(member.phase, Phase::Running { ready_since: Some(_), .. });
        self.members[1..].iter().any(ready)
    }

    /// Whether every process that runs is ready, so that nothing is worth asking often.
    pub(super) fn is_settled(&self) -> bool {
        let waits = |member: &Member| {
            matches!(member.phase, Phase::Running { ready_since: None, .. } | Phase::Due(_))
        };
        !self.members.iter().any(waits)
    }

    /// A process ended, whatever the reason.
    pub(super) fn ended(&mut self, process: usize, now: Instant) -> Fate {
        let member = &mut self.members[process];
        if self.stopping {
            member.phase = Phase::Ended;
            return Fate::Stopped;
        }
        let ready_for = match member.phase {
            Phase::Running { ready_since, .. } => ready_since.map(|since| now - since),
            _ => None,
        };
        match member.policy.ended(ready_for) {
            Verdict::RestartAfter(delay) => {
                member.phase = Phase::Due(now + delay);
                Fate::RestartAfter(delay)
            }
            Verdict::GiveUp => {
                member.phase = Phase::GivenUp;
                if self.is_hopeless() { Fate::Hopeless } else { Fate::GivenUp }
            }
        }
    }

    /// From now on nothing is started again.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for member in &mut self.members {
            if matches!(member.phase, Phase::Due(_)) {
                member.phase = Phase::Ended;
            }
        }
    }

    /// Whether no process runs any more, nor will.
    pub(super) fn is_over(&self) -> bool {
        self.members.iter().all(|member| matches!(member.phase, Phase::Ended | Phase::GivenUp))
    }

    fn is_hopeless(&self) -> bool {
        let given_up = |member: &Member| member.phase == Phase::GivenUp;
        given_up(&self.members[0]) || self.members[1..].iter().all(given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferno_shared::membership::Generation;
    use inferno_shared::registration::wire::NodeType;

    fn peer(id: &str, state: NodeState, generation: u64) -> Peer {
        let address = ([127, 0, 0, 1], 1).into();
        Peer {
            id: id.to_owned(),
            node_type: NodeType::Backend,
            address,
            operations: address,
            state,
            generation: Generation(generation),
            capabilities: Vec::new(),
            operations_tls: None,
            models: Vec::new(),
            fingerprint: None,
            in_flight: 0,
            reported: Default::default(),
        }
    }

    fn fleet(now: Instant) -> Fleet {
        let mut fleet = Fleet::new(["proxy", "a", "b"].map(str::to_owned), now);
        assert_eq!(fleet.due(now), [0, 1, 2]);
        assert_eq!(fleet.due(now), [0; 0]);
        fleet
    }

    #[test]
    fn readiness_is_told_once_and_again_only_for_a_new_incarnation() {
        let start = Instant::now();
        let mut fleet = fleet(start);
        let now = start + Duration::from_millis(70);
        let joining = [peer("a", NodeState::Joining, 5)];
        assert_eq!(fleet.observed(&joining, now), []);
        let ready = [peer("a", NodeState::Ready, 5), peer("stranger", NodeState::Ready, 1)];
        let news = [NowReady { process: 1, after: Duration::from_millis(70) }];
        assert_eq!(fleet.observed(&ready, now), news);
        assert_eq!(fleet.observed(&ready, now), []);
        let delay = Duration::from_millis(500);
        assert_eq!(fleet.ended(1, now), Fate::RestartAfter(delay));
        assert_eq!(fleet.next_due(), Some(now + delay));
        assert_eq!(fleet.due(now + delay), [1]);
        // The proxy has not noticed yet: that is the old incarnation.
        assert_eq!(fleet.observed(&ready, now + delay), []);
        let again = [peer("a", NodeState::Ready, 6)];
        assert_eq!(fleet.observed(&again, now + delay).len(), 1);
        assert!(!fleet.is_settled());
        fleet.observed(&[peer("b", NodeState::Ready, 1)], now);
        assert!(fleet.is_settled());
    }

    #[test]
    fn it_is_hopeless_without_the_proxy_or_without_any_backend() {
        let now = Instant::now();
        for (last, losers) in
            [(Fate::Hopeless, vec![0]), (Fate::GivenUp, vec![1]), (Fate::Hopeless, vec![1, 2])]
        {
            let mut fleet = fleet(now);
            let fates = losers.iter().flat_map(|loser| [*loser; 5]);
            let fates: Vec<_> = fates.map(|process| fleet.ended(process, now)).collect();
            assert_eq!(fates.last(), Some(&last), "{losers:?}");
        }
    }

    #[test]
    fn stopping_is_over_when_all_have_ended_and_starts_nothing() {
        let now = Instant::now();
        let mut fleet = fleet(now);
        assert!(matches!(fleet.ended(2, now), Fate::RestartAfter(_)));
        fleet.stop();
        assert_eq!(fleet.next_due(), None);
        assert_eq!(fleet.ended(0, now), Fate::Stopped);
        assert!(!fleet.is_over());
        assert_eq!(fleet.ended(1, now), Fate::Stopped);
        assert!(fleet.is_over());
    }
}
