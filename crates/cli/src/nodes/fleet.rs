//! What several proxies say, merged: one row a node, however many of them know it. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use inferno_shared::membership::{NodeState, ReportedLoad};
use inferno_shared::registration::wire::{NodeType, Peer};
use serde::Serialize;

use super::ask::Answer;
use super::spans::Tone;
use super::words::one_line;

/// One node, as all asked proxies together see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) node_type: NodeType,
    /// The best that any proxy says of its newest incarnation.
    pub(crate) state: NodeState,
    /// How many proxies say so …
    pub(crate) agreeing: usize,
    /// … of those that were asked.
    pub(crate) asked: usize,
    pub(crate) address: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) generation: u64,
    pub(crate) models: Vec<String>,
    pub(crate) fingerprint: Option<String>,
    /// Requests of all asked proxies on it now.
    pub(crate) in_flight: u64,
    /// Its own report at the last check; none of a node that is gone, for it is no longer true.
    pub(crate) reported: Option<ReportedLoad>,
    /// Known only from a proxy that no longer answers.
    pub(crate) stale: bool,
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fleet {
    /// Who serves models.
    pub(crate) backends: Vec<Node>,
    /// Other proxies that the asked ones know.
    pub(crate) proxies: Vec<Node>,
}

/// What all backends do together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) nodes: usize,
    pub(crate) ready: usize,
    pub(crate) in_flight: u64,
    pub(crate) queue_depth: u64,
    pub(crate) tokens_per_second: f64,
    /// Means over the nodes that reported.
    pub(crate) kv_cache_usage: f64,
    pub(crate) cpu_usage: f64,
    pub(crate) memory_usage: f64,
    pub(crate) gpu_usage: f64,
}

impl Fleet {
    /// Merges answers; `live` says which were given just now. What only a silent proxy knew is
    /// kept, marked as stale.
    pub(crate) fn merge<'a>(answers: impl IntoIterator<Item = (&'a Answer, bool)>) -> Self {
        let mut by_id: BTreeMap<&str, Vec<(&Peer, bool)>> = BTreeMap::new();
        let (mut live_proxies, mut proxies) = (0, 0);
        let mut asked = Vec::new();
        for (answer, live) in answers {
            proxies += 1;
            asked.push(answer.vitals.node_id.as_str());
            live_proxies += usize::from(live);
            for peer in &answer.peers {
                by_id.entry(peer.id.as_str()).or_default().push((peer, live));
            }
        }
        let mut fleet = Self::default();
        // Proxies that know one another and were asked themselves have their own lines.
        by_id.retain(|id, _| !asked.contains(id));
        for views in by_id.into_values() {
            let node = merge_node(&views, live_proxies, proxies);
            match node.node_type {
                NodeType::Backend => fleet.backends.push(node),
                NodeType::Proxy => fleet.proxies.push(node),
            }
        }
        fleet
    }

    /// The sums and means.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { nodes: self.backends.len(), ..Totals::default() };
        let mut reporting = 0.0;
        for node in &self.backends {
            totals.ready += usize::from(node.state == NodeState::Ready);
            totals.in_flight += node.in_flight;
            let Some(load) = &node.reported else { continue };
            reporting += 1.0;
            totals.queue_depth += load.queue_depth;
            totals.tokens_per_second += load.tokens_per_second;
            totals.kv_cache_usage += load.kv_cache_usage;
            totals.cpu_usage += load.cpu_usage;
            totals.memory_usage += load.memory_usage;
            totals.gpu_usage += load.gpu_usage;
        }
        for mean in [
            &mut totals.kv_cache_usage,
            &mut totals.cpu_usage,
            &mut totals.memory_usage,
            &mut totals.gpu_usage,
        ] {
            *mean /= f64::max(reporting, 1.0);
        }
        totals
    }
}

/// One node from what the proxies say of it (at least one does). The newest incarnation counts,
/// and a silent proxy only where no other knows the node.
fn merge_node(views: &[(&Peer, bool)], live_proxies: usize, proxies: usize) -> Node {
    let stale = !views.iter().any(|(_, live)| *live);
    let heard = views.iter().filter(|(_, live)| stale || *live).map(|(peer, _)| *peer);
    let newest = heard.clone().map(|peer| peer.generation).max().unwrap_or_default();
    let current: Vec<&Peer> = heard.filter(|peer| peer.generation == newest).collect();
    let best = current.iter().min_by_key(|peer| rank(peer.state)).copied().unwrap_or(views[0].0);
    Node {
        id: one_line(&best.id),
        node_type: best.node_type,
        state: best.state,
        agreeing: current.iter().filter(|peer| peer.state == best.state).count(),
        asked: if stale { proxies } else { live_proxies },
        address: best.address,
        operations: best.operations,
        generation: best.generation.0,
        models: best.models.iter().map(|model| one_line(&model.id)).collect(),
        fingerprint: best.fingerprint.as_deref().map(one_line),
        in_flight: current.iter().map(|peer| u64::from(peer.in_flight)).sum(),
        reported: (best.state != NodeState::Gone).then_some(best.reported),
        stale,
    }
}

/// The order of states: who serves first.
pub(super) fn rank(state: NodeState) -> u8 {
    match state {
        NodeState::Ready => 0,
        NodeState::Suspect => 1,
        NodeState::Draining => 2,
        NodeState::Joining => 3,
        NodeState::Gone => 4,
    }
}

impl Node {
    /// The state in a word; where proxies disagree, how many of them see it so.
    pub(crate) fn state_word(&self) -> String {
        match self.agreeing == self.asked {
            true => self.state.as_str().to_owned(),
            false => format!("{} {}/{}", self.state.as_str(), self.agreeing, self.asked),
        }
    }

    /// How good that is.
    pub(crate) fn tone(&self) -> Tone {
        match self.state {
            _ if self.stale => Tone::Dim,
            NodeState::Ready if self.agreeing == self.asked => Tone::Good,
            NodeState::Ready | NodeState::Joining | NodeState::Draining => Tone::Warn,
            NodeState::Suspect | NodeState::Gone => Tone::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, peer};
    use super::*;

    fn state(node: &Node) -> (&str, String, Tone) {
        (node.id.as_str(), node.state_word(), node.tone())
    }

    #[test]
    fn one_proxys_word_is_taken_as_it_stands() {
        let answer = answer(vec![peer("b", "suspect", 1), peer("a", "ready", 1)]);
        let fleet = Fleet::merge([(&answer, true)]);
        let states: Vec<_> = fleet.backends.iter().map(state).collect();
        let ready = ("a", "ready".to_owned(), Tone::Good);
        assert_eq!(states, [ready, ("b", "suspect".to_owned(), Tone::Bad)]);
    }

    #[test]
    fn proxies_that_disagree_are_counted() {
        let one = answer(vec![peer("a", "ready", 1), peer("b", "joining", 1)]);
        let two = answer(vec![peer("a", "gone", 1)]);
        let fleet = Fleet::merge([(&one, true), (&two, true)]);
        let states: Vec<_> = fleet.backends.iter().map(state).collect();
        assert_eq!(states[0], ("a", "ready 1/2".to_owned(), Tone::Warn));
        assert_eq!(states[1], ("b", "joining 1/2".to_owned(), Tone::Warn));
    }

    #[test]
    fn the_newest_incarnation_counts_and_in_flight_is_added_up() {
        let one = answer(vec![peer("a", "ready", 7)]);
        let two = answer(vec![peer("a", "gone", 6)]);
        let fleet = Fleet::merge([(&one, true), (&two, true)]);
        assert_eq!((fleet.backends[0].generation, fleet.backends[0].in_flight), (7, 3));
        let fleet = Fleet::merge([(&one, true), (&one, true)]);
        assert_eq!(fleet.backends[0].in_flight, 6);
        assert_eq!(fleet.totals().in_flight, 6);
    }

    #[test]
    fn what_only_a_silent_proxy_knew_is_stale() {
        let live = answer(vec![peer("a", "suspect", 1)]);
        let silent = answer(vec![peer("a", "ready", 1), peer("b", "ready", 1)]);
        let fleet = Fleet::merge([(&live, true), (&silent, false)]);
        assert_eq!(state(&fleet.backends[0]), ("a", "suspect".to_owned(), Tone::Bad));
        assert_eq!(fleet.backends[0].in_flight, 3, "an old word is not added to a new one");
        assert_eq!(fleet.backends[1].tone(), Tone::Dim);
        assert!(fleet.backends[1].stale && !fleet.backends[0].stale);
    }

    #[test]
    fn proxies_are_apart_and_the_gone_report_nothing() {
        let proxy = |id| Peer { node_type: NodeType::Proxy, ..peer(id, "ready", 1) };
        let peers = vec![proxy("p"), proxy("proxy-1"), peer("a", "gone", 1), peer("b", "ready", 1)];
        let answer = answer(peers);
        let fleet = Fleet::merge([(&answer, true)]);
        let others: Vec<_> = fleet.proxies.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(others, ["p"], "proxy-1 is the one that was asked");
        assert_eq!(fleet.backends[0].reported, None);
        let totals = fleet.totals();
        assert_eq!((totals.nodes, totals.ready, totals.queue_depth), (2, 1, 2));
        assert_eq!((totals.tokens_per_second, totals.cpu_usage), (40.5, 50.0));
    }
}
