//! Who is a member: a pure state machine.
//!
//! Events and the time come in as arguments, states come out; there is no clock, no I/O, no lock
//! and no task in here. The async edge that feeds it is [`crate::registration::registry`].
//!
//! ```text
//!               proof            1 miss
//!   joining ───────────► ready ◄────────► suspect ──3 misses──► gone ──► forgotten
//!                          │    2 passes     │                    ▲
//!                          ▼                 ▼                    │
//!                      draining ─────────────┴── leave, refused, lease over
//! ```
//!
//! A node is heard (`joining`) when it registers, and believed (`ready`) when its node vitals, read
//! at the address it gave, carry the id, generation and nonce it registered with.

mod node;
mod snapshot;

pub use node::{
    Generation, InFlight, ModelRef, NodeLoad, NodeState, NodeView, ReportedLoad, Token,
};
pub use snapshot::Snapshot;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Time since an origin that the caller chooses and never moves.
pub type Time = Duration;

/// Checks missed before a node is out.
const MISSES_TO_GONE: u32 = 3;
/// Checks passed before a suspect is trusted again.
const PASSES_TO_READY: u32 = 2;

/// The rules' numbers.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a registration holds.
    pub lease: Duration,
    /// How long a gone node is still shown.
    pub retention: Duration,
    /// Most nodes at once.
    pub nodes_max: usize,
}

/// A validated registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The node's name.
    pub id: String,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its operations server answers.
    pub operations: SocketAddr,
    /// This incarnation; none in the short form: each registration from a new address is a newer one.
    pub generation: Option<Generation>,
    /// What its vitals must show; none in the short form.
    pub nonce: Option<String>,
    /// What the node demands in requests.
    pub token: Option<Token>,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Equal fingerprints give equal tokens.
    pub fingerprint: Option<String>,
    /// Sequences it computes together.
    pub max_concurrency: Option<u32>,
    /// It takes no new requests.
    pub draining: bool,
}

/// A registration was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// New here, or a new incarnation: to be proved.
    Registered,
    /// The same incarnation: its lease was renewed.
    Updated,
}

/// A registration was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A newer incarnation is known.
    #[error("generation is older than the current one, {current}")]
    OlderGeneration {
        /// The generation to go beyond.
        current: Generation,
    },
    /// The id belongs to a node elsewhere that proves alive.
    #[error("id is in use at {holder}, which is alive")]
    IdInUse {
        /// Where that node is.
        holder: SocketAddr,
    },
    /// No room.
    #[error("the limit of {limit} nodes is reached")]
    Full {
        /// The limit.
        limit: usize,
    },
}

/// What a check of a node found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// The incarnation we know answered.
    Passed {
        /// It takes new requests.
        ready: bool,
        /// It is draining.
        draining: bool,
        /// The load it reports.
        load: ReportedLoad,
    },
    /// No answer in time, or one that makes no sense.
    Missed,
    /// Nobody listens there.
    Refused,
    /// Someone else answered: this incarnation is no more.
    Replaced,
}

#[derive(Debug)]
struct Node {
    announcement: Announcement,
    generation: Generation,
    state: NodeState,
    lease_until: Time,
    misses: u32,
    passes: u32,
    forget_at: Option<Time>,
    reported: ReportedLoad,
    load: Arc<NodeLoad>,
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
}

impl Membership {
    /// Nobody yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, nodes: BTreeMap::new(), version: 0, loads_changed: false }
    }

    /// A node registered or renewed.
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
        let generation = known.judge(&announcement)?;
        if generation == known.generation && known.state != NodeState::Gone {
            self.renew(now, announcement);
            Ok(Accepted::Updated)
        } else {
            self.admit(now, announcement, generation);
            Ok(Accepted::Registered)
        }
    }

    fn admit(&mut self, now: Time, announcement: Announcement, generation: Generation) {
        let id = announcement.id.clone();
        // Streams that began before a short absence still count.
        let load = match self.nodes.get(&id) {
            Some(old) if old.generation == generation => Arc::clone(&old.load),
            _ => Arc::default(),
        };
        let node = Node {
            generation,
            state: NodeState::Joining,
            lease_until: now + self.rules.lease,
            misses: 0,
            passes: 0,
            forget_at: None,
            reported: ReportedLoad::default(),
            load,
            announcement,
        };
        self.nodes.insert(id, node);
        self.version += 1;
    }

    fn renew(&mut self, now: Time, announcement: Announcement) {
        let lease_until = now + self.rules.lease;
        let Some(node) = self.nodes.get_mut(&announcement.id) else { return };
        node.lease_until = lease_until;
        if announcement.draining && node.state != NodeState::Draining {
            node.state = NodeState::Draining;
            self.version += 1;
        }
        if node.announcement != announcement {
            node.announcement = announcement;
            self.version += 1;
        }
    }

    /// A node said goodbye. False: that incarnation is not (or no longer) known.
    pub fn leave(&mut self, now: Time, id: &str, generation: Option<Generation>) -> bool {
        let forget_at = now + self.rules.retention;
        let Some(node) = self.nodes.get_mut(id) else { return false };
        if generation.is_some_and(|generation| generation < node.generation) {
            return false;
        }
        node.lease_until = now;
        self.version += u64::from(node.out(forget_at));
        true
    }

    /// A check of `id`, as it was in `generation`, came back.
    pub fn checked(&mut self, now: Time, id: &str, generation: Generation, check: Check) {
        let forget_at = now + self.rules.retention;
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.generation == generation) else {
            return;
        };
        let before = (node.state, node.reported);
        match check {
            Check::Passed { ready, draining, load } => node.passed(ready, draining, load),
            Check::Missed => node.missed(forget_at),
            // A node that is still starting may not listen yet; its lease decides.
            Check::Refused | Check::Replaced if node.state == NodeState::Joining => {
                node.missed(forget_at);
            }
            Check::Refused | Check::Replaced => {
                node.out(forget_at);
            }
        }
        self.version += u64::from(before.0 != node.state);
        self.loads_changed |= before.1 != node.reported;
    }

    /// The data path could not connect: the node is out until a check passes again.
    pub fn connect_refused(&mut self, now: Time, id: &str, generation: Generation) {
        self.checked(now, id, generation, Check::Refused);
    }

    /// Time passed: leases end, the gone are forgotten, reported loads are shown.
    pub fn tick(&mut self, now: Time) {
        let forget_at = now + self.rules.retention;
        for node in self.nodes.values_mut().filter(|node| node.lease_until <= now) {
            self.version += u64::from(node.out(forget_at));
        }
        let before = self.nodes.len();
        self.nodes.retain(|_, node| node.forget_at.is_none_or(|at| now < at));
        let changed = before != self.nodes.len() || std::mem::take(&mut self.loads_changed);
        self.version += u64::from(changed);
    }

    /// Who is to be checked: everyone whose lease holds, the gone among them, for they may return.
    pub fn to_check(&self, now: Time) -> impl Iterator<Item = Target> + '_ {
        self.nodes.values().filter(move |node| now < node.lease_until).map(Node::target)
    }

    /// One node, as something to check.
    pub fn target(&self, id: &str) -> Option<Target> {
        self.nodes.get(id).map(Node::target)
    }

    /// Grows with every change that a snapshot would show.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The members as the data path reads them.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.version, self.nodes.values().map(|node| Arc::new(node.view())).collect())
    }
}

/// Where to check a node, and what must be found there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The node's name.
    pub id: String,
    /// The incarnation.
    pub generation: Generation,
    /// The generation its vitals must show; none for the short form.
    pub expected_generation: Option<Generation>,
    /// The nonce its vitals must show; none for the short form.
    pub nonce: Option<String>,
    /// Its operations server.
    pub operations: SocketAddr,
}

impl Node {
    /// Which incarnation `announcement` is of, if it may speak for this id.
    fn judge(&self, announcement: &Announcement) -> Result<Generation, Conflict> {
        let same_place = announcement.address == self.announcement.address
            && announcement.operations == self.announcement.operations;
        let alive =
            matches!(self.state, NodeState::Ready | NodeState::Suspect | NodeState::Draining);
        let generation = match announcement.generation {
            Some(generation) => generation,
            None if same_place => self.generation,
            None => self.generation.next(),
        };
        if generation < self.generation {
            return Err(Conflict::OlderGeneration { current: self.generation });
        }
        if !same_place && alive {
            return Err(Conflict::IdInUse { holder: self.announcement.address });
        }
        let same_process = same_place && announcement.nonce == self.announcement.nonce;
        if generation == self.generation && !same_process {
            return Err(Conflict::OlderGeneration { current: self.generation });
        }
        Ok(generation)
    }

    fn passed(&mut self, ready: bool, draining: bool, load: ReportedLoad) {
        self.misses = 0;
        self.passes = if ready { self.passes.saturating_add(1) } else { 0 };
        self.reported = load;
        self.state = match self.state {
            _ if draining => NodeState::Draining,
            NodeState::Joining if ready => NodeState::Ready,
            NodeState::Joining => NodeState::Joining,
            NodeState::Draining => NodeState::Draining,
            // It answers and says it cannot serve: no new traffic, but not out.
            NodeState::Ready | NodeState::Suspect if !ready => NodeState::Suspect,
            NodeState::Ready => NodeState::Ready,
            NodeState::Suspect | NodeState::Gone if self.passes >= PASSES_TO_READY => {
                NodeState::Ready
            }
            state @ (NodeState::Suspect | NodeState::Gone) => state,
        };
        if self.state != NodeState::Gone {
            self.forget_at = None;
        }
    }

    fn missed(&mut self, forget_at: Time) {
        self.misses += 1;
        self.passes = 0;
        if self.misses >= MISSES_TO_GONE {
            self.out(forget_at);
        } else if self.state == NodeState::Ready {
            self.state = NodeState::Suspect;
        }
    }

    /// Takes the node out; false if it was out.
    fn out(&mut self, forget_at: Time) -> bool {
        self.passes = 0;
        let was_in = self.state != NodeState::Gone;
        if was_in {
            self.state = NodeState::Gone;
            self.forget_at = Some(forget_at);
        }
        was_in
    }

    fn target(&self) -> Target {
        Target {
            id: self.announcement.id.clone(),
            generation: self.generation,
            expected_generation: self.announcement.generation,
            nonce: self.announcement.nonce.clone(),
            operations: self.announcement.operations,
        }
    }

    fn view(&self) -> NodeView {
        NodeView {
            id: self.announcement.id.clone(),
            generation: self.generation,
            address: self.announcement.address,
            operations: self.announcement.operations,
            state: self.state,
            models: self.announcement.models.clone(),
            fingerprint: self.announcement.fingerprint.clone(),
            max_concurrency: self.announcement.max_concurrency,
            token: self.announcement.token.clone(),
            reported: self.reported,
            load: Arc::clone(&self.load),
        }
    }
}

#[cfg(test)]
mod tests;
