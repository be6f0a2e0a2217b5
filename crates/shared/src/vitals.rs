//! NodeVitals: what a node says of itself at `GET /metrics`.

use crate::membership::{Generation, ModelRef};
use serde::{Deserialize, Serialize};

/// What a process does about requests, in the word that `/health` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Not yet able to serve.
    #[default]
    Loading,
    /// Serving.
    Ready,
    /// Finishing what it has.
    Draining,
    /// Work waits and no step was made for the stated time.
    Stalled,
}

impl ServiceState {
    /// The body of `/health` in that state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "healthy",
            Self::Draining => "draining",
            Self::Stalled => "stalled",
        }
    }
}

/// Every field is always present and true; a number this machine cannot know is 0.
///
/// Each numeric field `f` is also the Prometheus gauge `inferno_node_f`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeVitals {
    /// It takes new requests.
    pub ready: bool,
    /// Requests being worked on.
    pub requests_in_progress: u64,
    /// Percent of the CPU time this process may use, over the last second or more; of a foreign engine 0.
    pub cpu_usage: f64,
    /// Percent of the memory this process may use; of a foreign engine 0.
    pub memory_usage: f64,
    /// Percent, the mean over its GPUs.
    pub gpu_usage: f64,
    /// Requests that ended in a failure of ours.
    pub failed_responses: u64,
    /// Nodes this one is in touch with.
    pub connected_peers: u32,
    /// Requests refused for lack of capacity.
    pub backoff_requests: u64,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// Of the program.
    pub version: String,
    /// The node's name.
    pub node_id: String,
    /// `inferno-proxy`, `inferno-backend`, or `inferno-register` for a foreign engine.
    pub service: String,
    /// What it does about requests.
    pub state: ServiceState,
    /// This incarnation.
    pub generation: Generation,
    /// What it registered with, so that a proxy can tell it is the one that did.
    pub nonce: String,
    /// Requests ever begun.
    pub requests_total: u64,
    /// Mean over all finished requests.
    pub average_response_ms: f64,
    /// Requests waiting for the engine.
    pub queue_depth: u64,
    /// Percent of the KV cache in use.
    pub kv_cache_usage: f64,
    /// Tokens that the whole KV cache holds.
    pub kv_cache_tokens: u64,
    /// Generated tokens a second, over the last second or more.
    pub tokens_per_second: f64,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Equal fingerprints give equal tokens; none while the weights are still being hashed.
    pub fingerprint: Option<String>,
    /// Its GPUs.
    pub gpus: Vec<GpuVitals>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuVitals {
    /// As the driver calls it.
    pub name: String,
    /// Percent.
    pub utilization: f64,
    /// In use by anyone.
    pub memory_used_bytes: u64,
    /// On the board.
    pub memory_total_bytes: u64,
    /// Of the chip.
    pub temperature_celsius: f64,
    /// Drawn now.
    pub power_watts: f64,
}
