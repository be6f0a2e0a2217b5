//! `POST /registration`: what is read, what is refused, what is answered.

pub use super::refusal::Refusal;
pub use crate::membership::NodeType;
use crate::{
    endpoint::Endpoint,
    membership::{Generation, ModelRef, NodeState, NodeView, ReportedLoad, Token},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Largest body read.
pub const BODY_BYTES_MAX: usize = 32 << 10;
/// Longest address, in characters.
const ADDRESS_CHARS_MAX: usize = 256;
/// Most capabilities, and the longest of them.
const CAPABILITIES_MAX: (usize, usize) = (32, 64);
/// Most models, and the longest name.
const MODELS_MAX: (usize, usize) = (64, 256);
/// Longest nonce, token, fingerprint.
const SECRET_CHARS_MAX: usize = 256;

/// Exact in every JSON implementation, and far beyond Unix milliseconds: there is always a newer one.
const GENERATION_MAX: Generation = Generation(1 << 53);

/// The capability of a node whose operations server speaks TLS.
pub const CAPABILITY_TLS: &str = "operations-tls";

/// The protocol version spoken here.
pub const PROTOCOL: u32 = 1;

/// A registration: the short form is `{"id","address","metrics_port"}`, the rest is optional.
/// Unknown fields are ignored, so that one minor version can talk to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The node's name: 1–128 of `[A-Za-z0-9._-]`.
    pub id: String,
    /// `host:port`, `name:port` or `[v6]:port` where it takes traffic.
    pub address: String,
    /// Port of its operations server, on the same host.
    pub metrics_port: u16,
    /// First time or again; the answer is the same rule either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What kind of node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<NodeType>,
    /// Free words about what it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// What it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelRef>,
    /// Its incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Equal fingerprints give equal tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Sequences it computes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// What its vitals will show, as proof that it is the one that registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// What it demands in requests from this proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// `draining`: no new requests, please.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// [`PROTOCOL`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
}

/// Why a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new here.
    Register,
    /// It renews.
    Update,
}

/// The answer to a registration that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// `registered` or `updated`.
    pub status: Status,
    /// How long it holds without renewal.
    pub lease_ms: u64,
    /// This proxy's incarnation: when it changes, the proxy has restarted.
    pub instance: String,
    /// The other proxies that are alive: register with them too.
    pub peers: Vec<Peer>,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// New here.
    Registered,
    /// Renewed.
    Updated,
    /// Refused.
    #[default]
    Error,
}

/// The answer to a registration that was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Always `error`.
    pub status: Status,
    /// For the operator.
    pub message: String,
    /// With 409: the generation to go beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// With 409 from a backend: the proxies to register with instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<String>,
    /// With 409 from a proxy: its incarnation, so that a node that reached one proxy by two
    /// addresses can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// One member, as `GET /peers` and the registration's answer show it. No token, no nonce.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The node's name.
    pub id: String,
    /// What kind of node.
    pub node_type: NodeType,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its operations server answers.
    pub operations: SocketAddr,
    /// It speaks TLS there, with a certificate for this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_tls: Option<String>,
    /// Where it is in its life.
    pub state: NodeState,
    /// Its incarnation.
    pub generation: Generation,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Free words about what it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Equal fingerprints give equal tokens.
    pub fingerprint: Option<String>,
    /// Requests of the asked proxy on it now.
    pub in_flight: u32,
    /// What it reported at the last check.
    pub reported: ReportedLoad,
}

impl Peer {
    /// Its operations server.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.operations, tls: self.operations_tls.clone() }
    }
}

impl From<&NodeView> for Peer {
    fn from(node: &NodeView) -> Self {
        Self {
            id: node.id.clone(),
            node_type: node.node_type,
            address: node.address,
            operations: node.operations.address,
            operations_tls: node.operations.tls.clone(),
            state: node.state,
            generation: node.generation,
            models: node.models.clone(),
            capabilities: node.capabilities.clone(),
            fingerprint: node.fingerprint.clone(),
            in_flight: node.load.in_flight(),
            reported: node.reported,
        }
    }
}

/// What `GET /peers` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// The members, the lately gone among them; a backend has none.
    pub peers: Vec<Peer>,
    /// The proxies that the asked node registers with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<KnownProxy>,
}

/// A proxy that a node registers with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownProxy {
    /// Its operations server: `address:port`, or `https://address:port`.
    pub operations: String,
    /// It holds the node's lease.
    pub held: bool,
    /// Another proxy told of it, or it introduced itself; the configuration does not name it.
    pub learned: bool,
    /// Tries that failed since the last that did not.
    pub failures: u32,
}

/// 1–128 of `[A-Za-z0-9._-]`.
pub fn is_valid_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Reads a registration, in the flat or the nested form, and checks every limit but the network's.
pub fn parse(body: &[u8]) -> Result<Registration, Refusal> {
    #[derive(Deserialize)]
    struct Nested {
        #[serde(default)]
        action: Option<Action>,
        node: serde_json::Value,
    }
    let malformed = |error: serde_json::Error| Refusal::Malformed(format!("registration: {error}"));
    let value: serde_json::Value = serde_json::from_slice(body).map_err(malformed)?;
    let registration = if value.get("node").is_some_and(serde_json::Value::is_object) {
        let nested: Nested = serde_json::from_value(value).map_err(malformed)?;
        let mut inner: Registration = serde_json::from_value(nested.node).map_err(malformed)?;
        inner.action = nested.action.or(inner.action);
        inner
    } else {
        serde_json::from_value(value).map_err(malformed)?
    };
    check_limits(&registration)
        .map_err(|why| Refusal::Malformed(format!("registration: {why}")))?;
    Ok(registration)
}

fn check_limits(registration: &Registration) -> Result<(), String> {
    let (capabilities, capability_chars) = CAPABILITIES_MAX;
    let (models, model_chars) = MODELS_MAX;
    let longest_secret = [&registration.nonce, &registration.fingerprint]
        .into_iter()
        .flatten()
        .map(String::len)
        .chain(registration.token.iter().map(|token| token.expose().len()))
        .max();
    let rules: [(bool, String); 9] = [
        (is_valid_id(&registration.id), "`id` must be 1-128 of [A-Za-z0-9._-]".into()),
        (
            (1..=ADDRESS_CHARS_MAX).contains(&registration.address.len()),
            format!("`address` must be host:port of at most {ADDRESS_CHARS_MAX} characters"),
        ),
        (registration.metrics_port != 0, "`metrics_port` must not be 0".into()),
        (
            registration.capabilities.len() <= capabilities
                && registration.capabilities.iter().all(|c| c.len() <= capability_chars),
            format!("at most {capabilities} `capabilities` of {capability_chars} characters"),
        ),
        (
            registration.models.len() <= models
                && registration.models.iter().all(|m| (1..=model_chars).contains(&m.id.len())),
            format!("at most {models} `models` with names of 1-{model_chars} characters"),
        ),
        (
            longest_secret.is_none_or(|chars| chars <= SECRET_CHARS_MAX),
            format!(
                "`nonce`, `token` and `fingerprint` have at most {SECRET_CHARS_MAX} characters"
            ),
        ),
        (
            registration
                .token
                .as_ref()
                .is_none_or(|t| t.expose().bytes().all(|b| b.is_ascii_graphic())),
            "`token` must be printable ASCII".into(),
        ),
        (
            registration.generation.is_none_or(|generation| generation <= GENERATION_MAX),
            format!("`generation` must be at most {GENERATION_MAX}"),
        ),
        (
            registration.protocol.is_none_or(|version| version == PROTOCOL),
            format!("`protocol` must be {PROTOCOL}"),
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
