//! One node of the membership, and the rules of its life.

use super::{
    Announcement, Check, Conflict, Generation, Goodbye, NodeLoad, NodeState, NodeView,
    ReportedLoad, Target, Time, key,
};
use std::sync::Arc;

/// Checks missed before a node is out.
const MISSES_TO_GONE: u32 = 3;
/// Checks passed before a suspect is trusted again.
const PASSES_TO_READY: u32 = 2;

/// What an announcement is to the node of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The same process speaks again, perhaps under a greater generation.
    Renewal(Generation),
    /// Another process takes the place of one that is no more.
    Succession(Generation),
}

#[derive(Debug)]
pub(super) struct Node {
    announcement: Announcement,
    generation: Generation,
    state: NodeState,
    lease_until: Time,
    next_check: Time,
    being_checked: bool,
    misses: u32,
    passes: u32,
    forget_at: Option<Time>,
    reported: ReportedLoad,
    /// As the data path sees it; made anew when something it shows has changed.
    view: Arc<NodeView>,
    /// Something the view shows has changed since it was made.
    stale: bool,
}

impl Node {
    /// A node that was heard and not yet proved.
    pub(super) fn joining(
        ordinal: u32,
        announcement: Announcement,
        generation: Generation,
        load: Arc<NodeLoad>,
        lease_until: Time,
        next_check: Time,
    ) -> Self {
        let (state, reported) = (NodeState::Joining, ReportedLoad::default());
        let view = Arc::new(view(ordinal, &announcement, generation, state, reported, load));
        Self {
            announcement,
            generation,
            state,
            lease_until,
            next_check,
            being_checked: false,
            misses: 0,
            passes: 0,
            forget_at: None,
            reported,
            view,
            stale: false,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn state(&self) -> NodeState {
        self.state
    }

    pub(super) fn view(&self) -> &Arc<NodeView> {
        &self.view
    }

    /// Makes the view anew if it no longer shows what is; whether it did.
    pub(super) fn refresh(&mut self) -> bool {
        let stale = std::mem::take(&mut self.stale);
        if stale {
            let load = Arc::clone(&self.view.load);
            let (ordinal, announcement) = (self.view.ordinal, &self.announcement);
            let view =
                view(ordinal, announcement, self.generation, self.state, self.reported, load);
            self.view = Arc::new(view);
        }
        stale
    }

    /// What `announcement` is, if it may speak for this id.
    pub(super) fn judge(&self, announcement: &Announcement) -> Result<Claim, Conflict> {
        let same_place = announcement.address == self.announcement.address
            && announcement.operations == self.announcement.operations;
        let generation = match announcement.generation {
            Some(generation) => generation,
            None if same_place => self.generation,
            None => self.generation.next(),
        };
        let older = Conflict::OlderGeneration { current: self.generation };
        if generation < self.generation {
            return Err(older);
        }
        let same_nonce = announcement.nonce == self.announcement.nonce;
        // Without a nonce a greater generation at the same place can only be a restart.
        let outgrown = generation > self.generation;
        if same_place && same_nonce && (announcement.nonce.is_some() || !outgrown) {
            return Ok(Claim::Renewal(generation));
        }
        if self.state.is_alive() && same_nonce && announcement.nonce.is_some() && !outgrown {
            return Err(Conflict::AlreadyHere { address: self.announcement.address });
        }
        if self.state.is_alive() {
            return Err(Conflict::Contested(Box::new(self.target())));
        }
        // A check of the former holder that is still under way must not prove its successor.
        if outgrown { Ok(Claim::Succession(generation)) } else { Err(older) }
    }

    pub(super) fn renew(
        &mut self,
        announcement: Announcement,
        generation: Generation,
        lease_until: Time,
    ) -> bool {
        self.lease_until = self.lease_until.max(lease_until);
        self.stale |= self.announcement != announcement;
        if self.generation != generation {
            self.generation = generation;
            self.stale = true;
            // The answer to a check under way will be of the former generation, and not count.
            self.being_checked = false;
        }
        if announcement.draining {
            self.become_state(NodeState::Draining);
        }
        self.announcement = announcement;
        true
    }

    /// Whether a goodbye is that of this incarnation or of a newer one. One that was long under way may be of a
    /// predecessor, and the successor may have come to the same generation.
    pub(super) fn is_meant_by(&self, goodbye: &Goodbye) -> bool {
        match goodbye.generation {
            Some(generation) if generation != self.generation => generation > self.generation,
            _ => match (&goodbye.nonce, &self.announcement.nonce) {
                (Some(said), Some(known)) => said == known,
                _ => true,
            },
        }
    }

    /// A goodbye of a newer incarnation than the known one is remembered too: whoever comes next
    /// must be newer still.
    pub(super) fn leave(
        &mut self,
        now: Time,
        generation: Option<Generation>,
        forget_at: Time,
    ) -> bool {
        self.lease_until = now;
        if let Some(newer) = generation.filter(|generation| *generation > self.generation) {
            self.generation = newer;
            self.stale = true;
        }
        self.out(forget_at)
    }

    /// Whether the node reports another load than before.
    pub(super) fn checked(&mut self, check: Check, forget_at: Time) -> bool {
        self.being_checked = false;
        let before = self.reported;
        match check {
            Check::Passed { ready, draining, load } => self.passed(ready, draining, load),
            Check::Missed => self.missed(forget_at),
            // A node that is still starting may not listen yet; its lease decides.
            Check::Refused | Check::Replaced if self.state == NodeState::Joining => {
                self.missed(forget_at);
            }
            Check::Refused | Check::Replaced => {
                self.out(forget_at);
            }
        }
        before != self.reported
    }

    /// The data path was refused a connection.
    pub(super) fn refused(&mut self, forget_at: Time) -> bool {
        self.state != NodeState::Joining && self.out(forget_at)
    }

    fn passed(&mut self, ready: bool, draining: bool, load: ReportedLoad) {
        self.misses = 0;
        self.passes = if ready { self.passes.saturating_add(1) } else { 0 };
        self.reported = load;
        let trusted = self.passes >= PASSES_TO_READY;
        self.become_state(match self.state {
            _ if draining || self.announcement.draining => NodeState::Draining,
            NodeState::Joining if ready => NodeState::Ready,
            // It answers and says it cannot serve: no traffic, but not out. It knows; nobody has to guess.
            NodeState::Ready | NodeState::Suspect if !ready => NodeState::Joining,
            NodeState::Suspect | NodeState::Gone if trusted => NodeState::Ready,
            unchanged => unchanged,
        });
        if self.state != NodeState::Gone {
            self.forget_at = None;
        }
    }

    fn missed(&mut self, forget_at: Time) {
        self.misses = self.misses.saturating_add(1);
        self.passes = 0;
        if self.misses >= MISSES_TO_GONE {
            self.out(forget_at);
        } else if self.state == NodeState::Ready {
            self.become_state(NodeState::Suspect);
        }
    }

    /// Takes the node out; false if it was out.
    pub(super) fn out(&mut self, forget_at: Time) -> bool {
        self.passes = 0;
        let was_in = self.state != NodeState::Gone;
        if was_in {
            self.become_state(NodeState::Gone);
            self.forget_at = Some(forget_at);
        }
        was_in
    }

    fn become_state(&mut self, state: NodeState) {
        self.stale |= self.state != state;
        self.state = state;
    }

    /// Shows the load reported last; whether the view showed another.
    pub(super) fn show_load(&mut self) -> bool {
        self.stale |= self.view.reported != self.reported;
        self.refresh()
    }

    pub(super) fn prolong(&mut self, lost: Time) {
        self.lease_until += lost;
        self.forget_at = self.forget_at.map(|at| at + lost);
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        self.lease_until <= now && self.state != NodeState::Gone
    }

    pub(super) fn is_forgotten(&self, now: Time) -> bool {
        self.forget_at.is_some_and(|at| at <= now)
    }

    /// When it is to be checked next.
    pub(super) fn turn(&self) -> Time {
        self.next_check
    }

    /// Its turn has come: what to check, if its lease holds and no check is under way.
    pub(super) fn take_turn(&mut self, now: Time, interval: Time) -> Option<Target> {
        // In its own rhythm, but never twice to make up for a turn that was missed.
        self.next_check = (self.next_check + interval).max(now + interval / 2);
        let due = now < self.lease_until && !self.being_checked;
        self.being_checked |= due;
        due.then(|| self.target())
    }

    pub(super) fn target(&self) -> Target {
        Target {
            id: self.announcement.id.clone(),
            generation: self.generation,
            expected_generation: self.announcement.generation,
            nonce: self.announcement.nonce.clone(),
            address: self.announcement.address,
            operations: self.announcement.operations.clone(),
        }
    }
}

fn view(
    ordinal: u32,
    announcement: &Announcement,
    generation: Generation,
    state: NodeState,
    reported: ReportedLoad,
    load: Arc<NodeLoad>,
) -> NodeView {
    NodeView {
        id: announcement.id.clone(),
        ordinal,
        key: key(&announcement.id),
        node_type: announcement.node_type,
        generation,
        address: announcement.address,
        operations: announcement.operations.clone(),
        state,
        models: announcement.models.clone(),
        capabilities: announcement.capabilities.clone(),
        fingerprint: announcement.fingerprint.clone(),
        max_concurrency: announcement.max_concurrency,
        token: announcement.token.clone(),
        reported,
        load,
    }
}
