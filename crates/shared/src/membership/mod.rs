//! Who is a member: a pure state machine.
//!
//! Events and the time come in as arguments, states come out; there is no clock, no I/O, no lock
//! and no task in here. The async edge that feeds it is [`crate::registration::registry`].
//!
//! ```text
//!               proof            1 miss
//!   joining ◄──────────► ready ◄────────► suspect ──3 misses──► gone ──► forgotten
//!            not ready     │    2 passes     │                    ▲
//!                          ▼                 ▼                    │
//!                      draining ─────────────┴── leave, refused, lease over
//! ```
//!
//! A node is heard (`joining`) when it registers, and believed (`ready`) when its node vitals, read
//! at the address it gave, carry the id, generation and nonce it registered with. Whoever claims
//! the id of a node that is alive has to wait until that one fails the same proof
//! ([`Conflict::Contested`]).

mod events;
mod node;
mod record;
mod snapshot;

pub use events::{Accepted, Announcement, Check, Conflict, Goodbye, Target, Transition};
pub use node::{
    CAPABILITY_FOREIGN, Generation, InFlight, ModelRef, NodeLoad, NodeState, NodeType, NodeView,
    ReportedLoad, Token,
};
pub use snapshot::{Candidate, CandidateList, Snapshot};

use record::{Claim, Node};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

/// Time since an origin that the caller chooses and never moves.
pub type Time = Duration;

/// The rules' numbers.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a registration holds.
    pub lease: Duration,
    /// Between two checks of one node.
    pub interval: Duration,
    /// How long a gone node is still shown.
    pub retention: Duration,
    /// Most nodes at once.
    pub nodes_max: usize,
}

/// The members as one proxy sees them.
#[derive(Debug)]
pub struct Membership {
    rules: Rules,
    nodes: BTreeMap<String, Node>,
    version: u64,
    /// Reported loads that no version shows yet: every check brings one, so they are shown together,
    /// once a tick.
    loads_changed: bool,
    /// When time was last seen to pass.
    ticked: Option<Time>,
    transitions: Vec<Transition>,
    /// Whose turn comes when: an entry for each node, by its next check. Entries of nodes that are
    /// no more are dropped when their turn comes.
    turns: BinaryHeap<Reverse<(Time, String)>>,
    ordinals: Ordinals,
}

/// Which ordinals are free: those that were given back, and all from `next` on.
#[derive(Debug, Default)]
struct Ordinals {
    free: BinaryHeap<Reverse<u32>>,
    next: u32,
}

impl Ordinals {
    /// The lowest free one.
    fn take(&mut self) -> u32 {
        self.free.pop().map_or_else(
            || {
                self.next += 1;
                self.next - 1
            },
            |Reverse(ordinal)| ordinal,
        )
    }
}

impl Membership {
    /// Nobody yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            nodes: BTreeMap::new(),
            version: 0,
            loads_changed: false,
            ticked: None,
            transitions: Vec::new(),
            turns: BinaryHeap::new(),
            ordinals: Ordinals::default(),
        }
    }

    /// A node registered or renewed.
    ///
    /// # Errors
    /// [`Conflict::Contested`] asks for a check of the present holder of the id: if it fails, the
    /// same announcement is taken.
    pub fn register(
        &mut self,
        now: Time,
        announcement: Announcement,
    ) -> Result<Accepted, Conflict> {
        let limit = self.rules.nodes_max;
        let Some(known) = self.nodes.get(&announcement.id) else {
            if self.nodes.len() >= limit {
                return Err(Conflict::Full { limit });
            }
            let generation = announcement.generation.unwrap_or(Generation(1));
            self.admit(now, announcement, generation);
            return Ok(Accepted::Registered);
        };
        match known.judge(&announcement)? {
            Claim::Renewal(generation) if known.state() != NodeState::Gone => {
                self.renew(now, announcement, generation);
                Ok(Accepted::Updated)
            }
            Claim::Renewal(generation) | Claim::Succession(generation) => {
                self.admit(now, announcement, generation);
                Ok(Accepted::Registered)
            }
        }
    }

    fn admit(&mut self, now: Time, announcement: Announcement, generation: Generation) {
        let id = announcement.id.clone();
        let was = self.nodes.get(&id);
        // Streams that began before a short absence still count.
        let load = match was {
            Some(old) if old.generation() == generation => Arc::clone(&old.view().load),
            _ => Arc::default(),
        };
        let ordinal = was.map(|old| old.view().ordinal);
        let was = was.map(Node::state);
        let ordinal = ordinal.unwrap_or_else(|| self.ordinals.take());
        let lease_until = now + self.rules.lease;
        // The first check follows at once; those after it are spread over the interval, so that a
        // fleet that started together is not checked in one burst.
        let next_check = now + spread(&id, self.rules.interval);
        let node = Node::joining(ordinal, announcement, generation, load, lease_until, next_check);
        self.note(&id, node.view(), was);
        self.turns.push(Reverse((next_check, id.clone())));
        self.nodes.insert(id, node);
        self.version += 1;
    }

    fn renew(&mut self, now: Time, announcement: Announcement, generation: Generation) {
        let lease_until = now + self.rules.lease;
        let id = announcement.id.clone();
        self.update(&id, |node| node.renew(announcement, generation, lease_until));
    }

    /// A node said goodbye. False: that incarnation is not (or no longer) known.
    pub fn leave(&mut self, now: Time, id: &str, goodbye: &Goodbye) -> bool {
        let Some(node) = self.nodes.get(id) else { return false };
        if !node.is_meant_by(goodbye) {
            return false;
        }
        let forget_at = now + self.rules.retention;
        self.update(id, |node| node.leave(now, goodbye.generation, forget_at));
        true
    }

    /// A check of `id`, as it was in `generation`, came back.
    pub fn checked(&mut self, now: Time, id: &str, generation: Generation, check: Check) {
        let forget_at = now + self.rules.retention;
        self.loads_changed |= self
            .update(id, |node| node.generation() == generation && node.checked(check, forget_at));
    }

    /// The data path could not connect: the node is out until a check passes again.
    pub fn connect_refused(&mut self, now: Time, id: &str, generation: Generation) {
        let forget_at = now + self.rules.retention;
        self.update(id, |node| node.generation() == generation && node.refused(forget_at));
    }

    /// Time passed: leases end, the gone are forgotten, reported loads are shown. To be called
    /// several times a lease; a longer silence means that this process did not run, and time that
    /// it did not live through costs nobody a lease.
    pub fn tick(&mut self, now: Time) {
        let silence = now.saturating_sub(self.ticked.replace(now).unwrap_or(now));
        if silence > self.rules.lease / 2 {
            self.nodes.values_mut().for_each(|node| node.prolong(silence));
        }
        let forget_at = now + self.rules.retention;
        let over = self.nodes.iter().filter(|(_, node)| node.is_over(now));
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.update(&id, |node| node.out(forget_at));
        }
        let before = self.nodes.len();
        let (transitions, ordinals) = (&mut self.transitions, &mut self.ordinals);
        self.nodes.retain(|id, node| {
            let keep = !node.is_forgotten(now);
            if !keep {
                transitions.push(Transition::forgotten(id, node.view()));
                ordinals.free.push(Reverse(node.view().ordinal));
            }
            keep
        });
        let mut changed = before != self.nodes.len();
        if std::mem::take(&mut self.loads_changed) {
            for node in self.nodes.values_mut() {
                changed |= node.show_load();
            }
        }
        self.version += u64::from(changed);
    }

    /// Whose check is due, each marked as being checked until [`Membership::checked`]: everyone
    /// whose lease holds, the gone among them, for they may return. At most `room`: those whose
    /// turn came first.
    pub fn start_checks(&mut self, now: Time, room: usize) -> Vec<Target> {
        let mut targets = Vec::new();
        while targets.len() < room
            && let Some(Reverse((turn, _))) = self.turns.peek()
            && *turn <= now
            && let Some(Reverse((turn, id))) = self.turns.pop()
        {
            // A node that was admitted anew has a turn of its own.
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.turn() == turn) else {
                continue;
            };
            targets.extend(node.take_turn(now, self.rules.interval));
            self.turns.push(Reverse((node.turn(), id)));
        }
        targets
    }

    /// One node, as something to check now, outside its turn.
    pub fn target(&self, id: &str) -> Option<Target> {
        self.nodes.get(id).map(Node::target)
    }

    /// The node of that name.
    pub fn get(&self, id: &str) -> Option<&NodeView> {
        self.nodes.get(id).map(|node| &**node.view())
    }

    /// Grows with every change that a snapshot would show.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The members as the data path reads them. Costs a pointer for each node.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(
            self.version,
            self.nodes.values().map(|node| Arc::clone(node.view())).collect(),
        )
    }

    /// The changes of state since the last call, in their order.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// Applies `change` to a node and shows what it changed. What `change` returned, or false
    /// without such a node.
    fn update(&mut self, id: &str, change: impl FnOnce(&mut Node) -> bool) -> bool {
        let Some(node) = self.nodes.get_mut(id) else { return false };
        let was = node.state();
        let outcome = change(node);
        let shows = node.refresh();
        let view = Arc::clone(node.view());
        self.version += u64::from(shows);
        self.note(id, &view, Some(was));
        outcome
    }

    fn note(&mut self, id: &str, view: &NodeView, was: Option<NodeState>) {
        if was != Some(view.state) {
            self.transitions.push(Transition::of(id, view, was));
        }
    }
}

/// A share of `interval` that depends on the name alone.
fn spread(id: &str, interval: Duration) -> Duration {
    interval.mul_f64((key(id) >> 32) as f64 / f64::from(u32::MAX))
}

/// A hash of `id`, the same in every process.
fn key(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
