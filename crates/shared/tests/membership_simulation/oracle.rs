//! What must hold, told by a witness that knows no rules of membership: it sees what one proxy was
//! told and what it then does.
//!
//! 1. No new request to a node known to be gone or draining.
//! 2. An old incarnation never wins over a newer one.
//! 3. Every live, reachable node is ready again within [`RECOVERY`] of the last fault.
//! 4. Two proxies that can see the same nodes agree within the same time: one lease.
//! 5. No entry leaks: who is gone for good is forgotten.

use crate::process::{LEASE, Process};
use inferno_shared::membership::{
    Announcement, Check, Generation, Goodbye, NodeState, Snapshot, Target,
};
use std::{collections::HashMap, net::SocketAddr, time::Duration};

/// From the last fault to everyone's being known for what it is.
pub(crate) const RECOVERY: Duration = LEASE;

/// One process among those that claim an id: two of them may well come to the same generation, even at the same
/// address.
type Incarnation = (String, SocketAddr, Generation, Option<String>);

/// What one proxy has been told of each incarnation.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// It said that it drains, or said goodbye: for good.
    retired: HashMap<Incarnation, &'static str>,
    /// Nobody or someone else answered at its address, and it has not answered since.
    lost: HashMap<Incarnation, &'static str>,
    /// The greatest generation seen of each id, while it is known.
    newest: HashMap<String, Generation>,
}

impl Oracle {
    /// The proxy took a registration.
    pub(crate) fn registered(&mut self, announcement: &Announcement) {
        if announcement.draining {
            self.retire(announcement, "it announced that it drains");
        }
    }

    /// The proxy took a goodbye.
    pub(crate) fn left(&mut self, id: &str, address: SocketAddr, goodbye: &Goodbye) {
        if let Some(generation) = goodbye.generation {
            let key = (id.to_owned(), address, generation, goodbye.nonce.clone());
            self.retired.insert(key, "it said goodbye");
        }
    }

    /// A check of `target` came back; `state` is the node's before it.
    pub(crate) fn checked(&mut self, target: &Target, check: Check, state: Option<NodeState>) {
        let key = incarnation(target);
        match check {
            Check::Passed { draining: true, .. } => {
                self.lost.remove(&key);
                self.retired.insert(key, "its vitals said that it drains");
            }
            Check::Passed { .. } => {
                self.lost.remove(&key);
            }
            Check::Refused | Check::Replaced if state != Some(NodeState::Joining) => {
                self.lost.insert(key, "it was not there when last checked");
            }
            Check::Refused | Check::Replaced | Check::Missed => {}
        }
    }

    /// The data path was refused a connection.
    pub(crate) fn refused(&mut self, target: &Target) {
        self.lost.insert(incarnation(target), "it refused a connection");
    }

    /// A request goes to that incarnation.
    pub(crate) fn routed(&self, target: &Target) -> Result<(), String> {
        let key = incarnation(target);
        match self.retired.get(&key).or_else(|| self.lost.get(&key)) {
            Some(why) => Err(format!("a request went to {key:?}: {why}")),
            None => Ok(()),
        }
    }

    /// The proxy shows these members.
    pub(crate) fn shown(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        // What a proxy has forgotten, it need not know.
        self.newest.retain(|id, _| snapshot.get(id).is_some());
        self.retired.retain(|(id, ..), _| snapshot.get(id).is_some());
        for node in &snapshot.nodes {
            let newest = self.newest.entry(node.id.clone()).or_insert(node.generation);
            if node.generation < *newest {
                let (id, old) = (&node.id, node.generation);
                return Err(format!("{id}: generation {old} won over {newest}"));
            }
            *newest = node.generation;
        }
        Ok(())
    }

    fn retire(&mut self, announcement: &Announcement, why: &'static str) {
        if let Some(generation) = announcement.generation {
            let nonce = announcement.nonce.clone();
            let key = (announcement.id.clone(), announcement.address, generation, nonce);
            self.retired.insert(key, why);
        }
    }
}

fn incarnation(target: &Target) -> Incarnation {
    (target.id.clone(), target.address, target.generation, target.nonce.clone())
}

/// Whether the proxy `name` knows each of the `living` for what it is.
pub(crate) fn knows_all<'a>(
    name: &str,
    snapshot: &Snapshot,
    living: impl Iterator<Item = &'a Process>,
) -> Result<(), String> {
    for process in living {
        let seen = snapshot.get(&process.id).map(|node| (node.state, node.generation));
        if seen != Some((NodeState::Ready, process.generation)) {
            let (id, generation) = (&process.id, process.generation);
            return Err(format!("{name} sees {id} of generation {generation} as {seen:?}"));
        }
    }
    Ok(())
}

/// Whether all proxies show the same incarnations as ready.
pub(crate) fn agree(snapshots: &[(String, Snapshot)]) -> Result<(), String> {
    let ready = |snapshot: &Snapshot, names: &[&str]| -> Vec<(String, Generation)> {
        let nodes = snapshot.nodes.iter().filter(|node| node.state == NodeState::Ready);
        // A proxy is no member of itself.
        let others = nodes.filter(|node| !names.contains(&node.id.as_str()));
        others.map(|node| (node.id.clone(), node.generation)).collect()
    };
    for pair in snapshots.windows(2) {
        let names = [pair[0].0.as_str(), pair[1].0.as_str()];
        let (one, two) = (ready(&pair[0].1, &names), ready(&pair[1].1, &names));
        if one != two {
            return Err(format!("{} and {} disagree: {one:?}, {two:?}", names[0], names[1]));
        }
    }
    Ok(())
}
