//! What is known of one node.

use crate::endpoint::Endpoint;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// An incarnation of a node: Unix milliseconds at its start, greater at each restart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The smallest newer one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of node speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeType {
    /// It serves models.
    #[default]
    Backend,
    /// It routes, and never gets traffic from another proxy.
    Proxy,
}

/// Where a node is in its life, as a proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heard, not yet proved, or says that it cannot serve now: no traffic.
    Joining,
    /// Proved and ready.
    Ready,
    /// Missed a check: traffic only if nobody is ready.
    Suspect,
    /// Finishes what it has: no new traffic.
    Draining,
    /// Out. Shown for a while, then forgotten.
    Gone,
}

impl NodeState {
    /// It has proved itself and has not been lost since.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Ready | Self::Suspect | Self::Draining)
    }

    /// The word used on the wire and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// A model that a node serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// The name that requests use.
    pub id: String,
    /// Hash of its weights, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The capability of an engine that is not ours, and that somebody else registered ([`NodeView::is_foreign`]).
pub const CAPABILITY_FOREIGN: &str = "foreign";

/// What a backend demands in each request; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the header it travels in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The load a node reported at its last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportedLoad {
    /// Requests it is working on, from whichever proxy.
    pub requests_in_progress: u64,
    /// Requests waiting among them.
    pub queue_depth: u64,
    /// Share of the KV cache in use, 0–100.
    pub kv_cache_usage: f64,
    /// Tokens generated a second.
    pub tokens_per_second: f64,
    /// Percent of the CPU it may use.
    pub cpu_usage: f64,
    /// Percent of the memory it may use.
    pub memory_usage: f64,
    /// Percent, the mean over its GPUs; 0 without one.
    #[serde(default)]
    pub gpu_usage: f64,
    /// Tokens that the whole KV cache holds; 0 where nobody says.
    #[serde(default)]
    pub kv_cache_tokens: u64,
}

/// This proxy's own count of requests on one node.
#[derive(Debug, Default)]
pub struct NodeLoad {
    in_flight: AtomicU32,
}

impl NodeLoad {
    /// Requests of this proxy on the node now.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts one request, from its selection until the guard is dropped.
    pub fn acquire(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// One counted request; gives its count back exactly once, when dropped.
#[derive(Debug)]
pub struct InFlight(Arc<NodeLoad>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// One node as the data path sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node's name.
    pub id: String,
    /// A small number that no other member has now; another gets it when this one is forgotten.
    pub ordinal: u32,
    /// A hash of its name, the same on every proxy.
    pub key: u64,
    /// What kind of node it is.
    pub node_type: NodeType,
    /// Its incarnation.
    pub generation: Generation,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its operations server answers.
    pub operations: Endpoint,
    /// Where it is in its life.
    pub state: NodeState,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Free words about what it can do.
    pub capabilities: Vec<String>,
    /// Equal fingerprints give equal tokens.
    pub fingerprint: Option<String>,
    /// Sequences it computes together.
    pub max_concurrency: Option<u32>,
    /// What it demands in each request.
    pub token: Option<Token>,
    /// What it said of itself at the last check.
    pub reported: ReportedLoad,
    /// This proxy's own count.
    pub load: Arc<NodeLoad>,
}

impl NodeView {
    /// Whether it takes traffic at all.
    pub fn is_backend(&self) -> bool {
        self.node_type == NodeType::Backend
    }

    /// Whether it is no backend of ours: it gets the client's request, and nothing that only we understand.
    /// Ours all mint a token.
    pub fn is_foreign(&self) -> bool {
        self.token.is_none() || self.capabilities.iter().any(|word| word == CAPABILITY_FOREIGN)
    }

    /// Whether it serves `model`.
    pub fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|served| served.id == model)
    }
}
