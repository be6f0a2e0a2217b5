//! The membership as the data path reads it: immutable, shared, replaced whole.

use super::{ModelRef, NodeState, NodeType, NodeView};
use std::{collections::BTreeMap, sync::Arc};

/// All nodes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each change.
    pub version: u64,
    /// Every node in the order of their ids, the gone among them.
    pub nodes: Vec<Arc<NodeView>>,
}

impl Snapshot {
    /// A snapshot of those nodes.
    pub fn new(version: u64, nodes: Vec<Arc<NodeView>>) -> Self {
        Self { version, nodes }
    }

    /// Who may get a request for `model`: the ready; if nobody is, the suspects, for a guess beats
    /// a refusal.
    pub fn candidates(&self, model: &str) -> Vec<Arc<NodeView>> {
        let in_state = |state| -> Vec<_> {
            self.nodes
                .iter()
                .filter(|node| node.state == state && node.is_backend() && node.serves(model))
                .cloned()
                .collect()
        };
        let ready = in_state(NodeState::Ready);
        if ready.is_empty() { in_state(NodeState::Suspect) } else { ready }
    }

    /// Whether a node that is not gone serves `model`, in whatever state.
    pub fn has_model(&self, model: &str) -> bool {
        self.members().any(|node| node.serves(model))
    }

    /// What can be asked for: the models of all live nodes, each once, by name.
    pub fn models(&self) -> Vec<&ModelRef> {
        let live = self.nodes.iter().filter(|node| node.state.is_alive());
        let by_id: BTreeMap<&str, &ModelRef> =
            live.flat_map(|node| &node.models).map(|model| (model.id.as_str(), model)).collect();
        by_id.into_values().collect()
    }

    /// Every backend that is not gone.
    pub fn members(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.nodes.iter().filter(|node| node.state != NodeState::Gone && node.is_backend())
    }

    /// The other proxies that have proved themselves.
    pub fn proxies(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        let is_proxy = |node: &&Arc<NodeView>| node.node_type == NodeType::Proxy;
        self.nodes.iter().filter(is_proxy).filter(|node| node.state.is_alive())
    }

    /// The node of that name.
    pub fn get(&self, id: &str) -> Option<&Arc<NodeView>> {
        let at = self.nodes.binary_search_by(|node| node.id.as_str().cmp(id)).ok()?;
        self.nodes.get(at)
    }
}
