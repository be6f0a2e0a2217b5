//! Which proxies to register with, and when: pure. Time, answers and chance come in as arguments;
//! [`super::Leases`] is the edge that asks.

use crate::{endpoint::Endpoint, membership::Generation};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// Time since an origin that the caller chooses and never moves.
pub type Time = Duration;

/// Longest time from one try to the next.
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// However short a proxy's lease, it is not renewed more often.
const RENEWAL_MIN: Duration = Duration::from_millis(100);
/// Whoever was outgrown tries again at once, but no more often than this.
const OUTGROWN_INTERVAL: Duration = Duration::from_secs(1);
/// A second address of a proxy that holds our lease is tried again after this time.
const ALIAS_INTERVAL: Duration = Duration::from_secs(10);
/// Most proxies learned from others: no list of peers can make us knock at every door.
pub const LEARNED_MAX: usize = 64;
/// A learned proxy that did not answer for this long is forgotten.
pub const LEARNED_KEPT: Duration = Duration::from_secs(60);

/// What a node wants proxies to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// It finishes what it has.
    Draining,
}

/// What every proxy that holds our lease must know, at once when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether we take requests.
    pub phase: Phase,
    /// Which incarnation we are: it changes while we run if a proxy knew a newer one.
    pub generation: Generation,
    /// How often what we say of ourselves (our models) has changed.
    pub edition: u64,
}

/// What came of one announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The proxy holds a lease of ours.
    Held {
        /// The proxy's incarnation.
        instance: String,
        /// How long it holds.
        lease: Duration,
        /// Other proxies it knows.
        peers: Vec<Endpoint>,
    },
    /// It knows a newer generation of us; we have outgrown that by now.
    Outgrown,
    /// Our id is in use there, or it is no proxy to register with.
    Refused {
        /// The proxy's incarnation, if it said so.
        instance: Option<String>,
    },
    /// No answer, or another error.
    Failed,
}

/// What there is to tell about an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Our first lease with this incarnation of the proxy.
    Registered,
    /// As before.
    Nothing,
    /// It did not work; the next try is due after this pause.
    Failure {
        /// Until the next try.
        retry: Duration,
        /// Another address of the same name holds our lease: nobody needs to worry.
        covered: bool,
    },
}

/// One proxy to announce ourselves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Where.
    pub endpoint: Endpoint,
    /// It holds our lease already.
    pub known: bool,
}

/// A proxy as `/peers` of its leaseholder shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Where.
    pub endpoint: Endpoint,
    /// Its incarnation, if it holds our lease.
    pub instance: Option<String>,
    /// Told by another proxy, not by the configuration.
    pub learned: bool,
    /// Tries that failed since the last that did not.
    pub failures: u32,
}

#[derive(Debug)]
struct Lease {
    endpoint: Endpoint,
    /// The configured names it stands behind; none: it was learned.
    names: BTreeSet<usize>,
    /// The proxy's incarnation, while it holds a lease of ours.
    instance: Option<String>,
    /// What the proxy knows of us.
    told: Option<Standing>,
    failures: u32,
    /// When it was last tried again at once because a newer generation of us was known there.
    outgrown: Option<Time>,
    /// When to announce ourselves again.
    due: Time,
    /// When the announcement under way began.
    asked: Option<Time>,
    /// When it last held our lease, or when we first heard of it.
    heard: Time,
}

/// Every proxy known to this node.
#[derive(Debug)]
pub struct Book {
    own_instance: String,
    leases: BTreeMap<SocketAddr, Lease>,
}

impl Book {
    /// No proxy yet. `own_instance` is how a proxy recognises itself among its peers.
    pub fn new(own_instance: impl Into<String>) -> Self {
        Self { own_instance: own_instance.into(), leases: BTreeMap::new() }
    }

    /// A configured name stands for these addresses now. One it stood for before is kept as long as
    /// it answers, like one that was learned: name servers may tell a part of the truth at a time.
    pub fn resolved(&mut self, now: Time, name: usize, endpoints: &[Endpoint]) {
        for lease in self.leases.values_mut() {
            if !endpoints.iter().any(|endpoint| endpoint.address == lease.endpoint.address) {
                lease.names.remove(&name);
            }
        }
        for endpoint in endpoints {
            let lease = self.leases.entry(endpoint.address);
            let lease = lease.or_insert_with(|| Lease::new(now, endpoint.clone()));
            lease.names.insert(name);
            // The operator's word on how to speak to it counts more than a peer's.
            lease.endpoint = endpoint.clone();
        }
    }

    /// A peer told of a proxy, or a proxy introduced itself. False: there is no room for it.
    pub fn learned(&mut self, now: Time, endpoint: &Endpoint) -> bool {
        let learned = self.leases.values().filter(|lease| lease.names.is_empty()).count();
        let known = self.leases.contains_key(&endpoint.address);
        if !known && learned < LEARNED_MAX {
            self.leases.insert(endpoint.address, Lease::new(now, endpoint.clone()));
        }
        known || learned < LEARNED_MAX
    }

    /// Whom to tell now. Each is marked as being asked until [`Book::finished`].
    pub fn start_due(&mut self, now: Time, standing: Standing) -> Vec<Announce> {
        self.leases.retain(|_, lease| !lease.is_forgotten(now));
        let due = self.leases.values_mut().filter(|lease| lease.is_due(now, standing));
        due.map(|lease| {
            lease.asked = Some(now);
            Announce { endpoint: lease.endpoint.clone(), known: lease.instance.is_some() }
        })
        .collect()
    }

    /// An announcement of `standing` came back. `chance` in `[0, 1)` spreads renewals, so that a fleet
    /// that started together does not stay together.
    pub fn finished(
        &mut self,
        now: Time,
        address: SocketAddr,
        standing: Standing,
        outcome: Outcome,
        chance: f64,
    ) -> News {
        if let Outcome::Held { peers, .. } = &outcome {
            for peer in peers {
                self.learned(now, peer);
            }
        }
        let elsewhere = self.held_elsewhere(address, &outcome);
        let covered = self.is_covered(address);
        let Some(lease) = self.leases.get_mut(&address) else { return News::Nothing };
        let asked = lease.asked.take().unwrap_or(now);
        let lately = lease.outgrown.is_some_and(|at| now < at + OUTGROWN_INTERVAL);
        match outcome {
            Outcome::Held { instance, lease: duration, .. } => {
                lease.told = Some(standing);
                lease.failures = 0;
                lease.heard = now;
                let third = (duration / 3).max(RENEWAL_MIN);
                lease.due = now + third.mul_f64(0.9 + 0.2 * chance);
                let news = lease.instance.as_ref() != Some(&instance);
                lease.instance = Some(instance);
                if news { News::Registered } else { News::Nothing }
            }
            Outcome::Refused { .. } if elsewhere => {
                lease.lost();
                lease.failures = 0;
                lease.heard = now;
                lease.due = now + ALIAS_INTERVAL;
                News::Nothing
            }
            // At once, but not twice: two processes that outgrow each other must not do so in a hot loop.
            Outcome::Outgrown if !lately => {
                lease.lost();
                lease.outgrown = Some(now);
                lease.due = now;
                News::Nothing
            }
            Outcome::Outgrown | Outcome::Refused { .. } | Outcome::Failed => {
                lease.lost();
                lease.due = now.max(asked + backoff(lease.failures));
                lease.failures = lease.failures.saturating_add(1);
                News::Failure { retry: lease.due - now, covered }
            }
        }
    }

    /// Who refused is this node itself, or a proxy that holds our lease at another address.
    fn held_elsewhere(&self, address: SocketAddr, outcome: &Outcome) -> bool {
        let Outcome::Refused { instance: Some(instance) } = outcome else { return false };
        let mut others = self.leases.iter().filter(|(other, _)| **other != address);
        *instance == self.own_instance
            || others.any(|(_, lease)| lease.instance.as_ref() == Some(instance))
    }

    /// Another address behind one of its names holds our lease.
    fn is_covered(&self, address: SocketAddr) -> bool {
        let Some(names) = self.leases.get(&address).map(|lease| &lease.names) else { return false };
        self.leases.iter().any(|(other, lease)| {
            *other != address && lease.instance.is_some() && !lease.names.is_disjoint(names)
        })
    }

    /// When [`Book::start_due`] has something next; none while everyone is being asked.
    pub fn next_due(&self, standing: Standing) -> Option<Time> {
        let waiting = self.leases.values().filter(|lease| lease.asked.is_none());
        waiting.map(|lease| if lease.is_behind(standing) { Time::ZERO } else { lease.due }).min()
    }

    /// Whether every proxy that holds our lease knows what has become of us.
    pub fn has_told(&self, standing: Standing) -> bool {
        !self.leases.values().any(|lease| lease.is_behind(standing))
    }

    /// Proxies that hold a lease of ours.
    pub fn held(&self) -> Vec<Endpoint> {
        let held = self.leases.values().filter(|lease| lease.instance.is_some());
        held.map(|lease| lease.endpoint.clone()).collect()
    }

    /// Every proxy, in the order of their addresses.
    pub fn view(&self) -> Vec<LeaseView> {
        let view = |lease: &Lease| LeaseView {
            endpoint: lease.endpoint.clone(),
            instance: lease.instance.clone(),
            learned: lease.names.is_empty(),
            failures: lease.failures,
        };
        self.leases.values().map(view).collect()
    }
}

impl Lease {
    fn new(now: Time, endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            names: BTreeSet::new(),
            instance: None,
            told: None,
            failures: 0,
            outgrown: None,
            due: now,
            asked: None,
            heard: now,
        }
    }

    fn lost(&mut self) {
        self.instance = None;
        self.told = None;
    }

    /// The proxy holds our lease and does not know yet what has become of us.
    fn is_behind(&self, standing: Standing) -> bool {
        self.instance.is_some() && self.told != Some(standing)
    }

    fn is_due(&self, now: Time, standing: Standing) -> bool {
        self.asked.is_none() && (self.due <= now || self.is_behind(standing))
    }

    fn is_forgotten(&self, now: Time) -> bool {
        let silent = self.instance.is_none() && self.asked.is_none();
        silent && self.names.is_empty() && self.heard + LEARNED_KEPT <= now
    }
}

/// 1, 2, 4, 8 seconds, for ever, from the beginning of one try to that of the next.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests;
