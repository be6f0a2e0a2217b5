//! What comes into the membership, and what it says of it.

use super::{Generation, ModelRef, NodeState, NodeType, NodeView, ReportedLoad, Token};
use crate::endpoint::Endpoint;
use std::net::SocketAddr;

/// A validated registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The node's name.
    pub id: String,
    /// What kind of node it is.
    pub node_type: NodeType,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its operations server answers.
    pub operations: Endpoint,
    /// This incarnation; none in the short form: each registration from a new address is a newer one.
    pub generation: Option<Generation>,
    /// What its vitals must show; none in the short form.
    pub nonce: Option<String>,
    /// What the node demands in requests.
    pub token: Option<Token>,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Free words about what it can do.
    pub capabilities: Vec<String>,
    /// Equal fingerprints give equal tokens.
    pub fingerprint: Option<String>,
    /// Sequences it computes together.
    pub max_concurrency: Option<u32>,
    /// It takes no new requests.
    pub draining: bool,
}

/// Which incarnation says goodbye; what is not given matches any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goodbye {
    /// Its generation.
    pub generation: Option<Generation>,
    /// Its nonce: of two processes that came to the same generation, which one.
    pub nonce: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A newer incarnation is known.
    #[error("generation is older than the current one, {current}")]
    OlderGeneration {
        /// The generation to go beyond.
        current: Generation,
    },
    /// The very process that speaks is registered at another of its addresses, and alive there: it
    /// reached this proxy by two ways, and one is enough.
    #[error("this process is registered at {address} already")]
    AlreadyHere {
        /// Where.
        address: SocketAddr,
    },
    /// The id belongs to another process that was alive when last checked: check it now. If that
    /// does not take it out, the claim is refused.
    #[error("id is in use at {}, which is alive", .0.address)]
    Contested(Box<Target>),
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

/// Where to check a node, and what must be found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node's name.
    pub id: String,
    /// The incarnation.
    pub generation: Generation,
    /// The generation its vitals must show; none for the short form.
    pub expected_generation: Option<Generation>,
    /// The nonce its vitals must show; none for the short form.
    pub nonce: Option<String>,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Its operations server.
    pub operations: Endpoint,
}

/// A node's state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The node's name.
    pub id: String,
    /// What kind of node it is.
    pub node_type: NodeType,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Its operations server.
    pub operations: Endpoint,
    /// The incarnation.
    pub generation: Generation,
    /// Its state before; none: it was not known.
    pub was: Option<NodeState>,
    /// Its state now; none: it is forgotten.
    pub state: Option<NodeState>,
}

impl Transition {
    pub(super) fn of(id: &str, view: &NodeView, was: Option<NodeState>) -> Self {
        Self {
            id: id.into(),
            node_type: view.node_type,
            address: view.address,
            operations: view.operations.clone(),
            generation: view.generation,
            was,
            state: Some(view.state),
        }
    }

    pub(super) fn forgotten(id: &str, view: &NodeView) -> Self {
        Self { state: None, ..Self::of(id, view, Some(view.state)) }
    }
}
