//! The membership as the data path reads it: immutable, shared, replaced whole.

use super::{ModelRef, NodeLoad, NodeState, NodeType, NodeView};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// All nodes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each change.
    pub version: u64,
    /// Every node in the order of their ids, the gone among them.
    pub nodes: Vec<Arc<NodeView>>,
    /// By model, made when somebody asks: most snapshots of a node that starts are read by nobody.
    candidates: OnceLock<HashMap<String, Arc<CandidateList>>>,
}

/// Everyone who may get a request for one model, laid out for whoever reads all of them for each request.
#[derive(Clone, Debug)]
pub struct CandidateList {
    /// No two lists of a process have the same.
    pub id: u64,
    /// In the order of their ids.
    pub candidates: Vec<Candidate>,
    /// Requests that they compute together, if every one of them says how many it does.
    pub max_concurrency: Option<u64>,
}

/// One of them. What is not the node's view is copied from it, so that it lies side by side.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: Arc<NodeView>,
    /// [`NodeView::load`].
    pub load: Arc<NodeLoad>,
    /// [`NodeView::ordinal`].
    pub ordinal: u32,
    /// [`NodeView::max_concurrency`], 0 for none.
    pub max_concurrency: u32,
    /// [`NodeView::key`].
    pub key: u64,
    /// Requests waiting on the node at its last check.
    pub queue_depth: u32,
}

impl CandidateList {
    /// Of those nodes.
    pub fn new(nodes: impl IntoIterator<Item = Arc<NodeView>>) -> Self {
        static LISTS: AtomicU64 = AtomicU64::new(1);
        let candidate = |node: Arc<NodeView>| Candidate {
            load: Arc::clone(&node.load),
            ordinal: node.ordinal,
            max_concurrency: node.max_concurrency.unwrap_or(0),
            key: node.key,
            queue_depth: u32::try_from(node.reported.queue_depth).unwrap_or(u32::MAX),
            node,
        };
        let candidates: Vec<_> = nodes.into_iter().map(candidate).collect();
        let each = candidates.iter().map(|candidate| candidate.node.max_concurrency.map(u64::from));
        let max_concurrency = each.sum();
        Self { id: LISTS.fetch_add(1, Relaxed), candidates, max_concurrency }
    }
}

impl Candidate {
    /// Our own requests in flight, and those of others that wait: what the node reported as waiting beyond our own. The
    /// report is up to a check's interval old, hence only the excess counts.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.load.in_flight().max(self.queue_depth)
    }
}

impl Snapshot {
    /// A snapshot of those nodes.
    pub fn new(version: u64, nodes: Vec<Arc<NodeView>>) -> Self {
        Self { version, nodes, candidates: OnceLock::new() }
    }

    /// Who may get a request for `model`: the ready; if nobody is, the suspects, for a guess beats
    /// a refusal. In the order of their ids.
    /// `None` if there is nobody.
    pub fn candidates(&self, model: &str) -> Option<&Arc<CandidateList>> {
        let lists = self.candidates.get_or_init(|| {
            let mut lists = self.by_model(NodeState::Suspect);
            lists.extend(self.by_model(NodeState::Ready));
            let list =
                |(model, nodes): (&str, _)| (model.to_owned(), Arc::new(CandidateList::new(nodes)));
            lists.into_iter().map(list).collect()
        });
        lists.get(model)
    }

    fn by_model(&self, state: NodeState) -> HashMap<&str, Vec<Arc<NodeView>>> {
        let mut lists: HashMap<&str, Vec<Arc<NodeView>>> = HashMap::new();
        for node in self.nodes.iter().filter(|node| node.state == state && node.is_backend()) {
            for model in &node.models {
                let list = lists.entry(&model.id).or_default();
                // A node may name a model twice.
                if !list.last().is_some_and(|last| Arc::ptr_eq(last, node)) {
                    list.push(Arc::clone(node));
                }
            }
        }
        lists
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

    /// How many other proxies take requests.
    pub fn proxies_that_serve(&self) -> usize {
        let serves =
            |node: &&Arc<NodeView>| matches!(node.state, NodeState::Ready | NodeState::Suspect);
        self.proxies().filter(serves).count()
    }

    /// The node of that name.
    pub fn get(&self, id: &str) -> Option<&Arc<NodeView>> {
        let at = self.nodes.binary_search_by(|node| node.id.as_str().cmp(id)).ok()?;
        self.nodes.get(at)
    }
}
