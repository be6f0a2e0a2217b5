//! What a run is to do, as it is told in the report too.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::goodput::Objectives;
use super::schedule::Arrivals;
use super::template::Endpoint;
use super::workload::TokenRange;

/// A run. Serialised, it is the `setup` of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) url: String,
    /// The first that the endpoint offers, until that is known.
    pub(crate) model: Option<String>,
    /// Sent as a bearer token, told to nobody else.
    #[serde(skip)]
    pub(crate) key: Option<String>,
    pub(crate) endpoint: Endpoint,
    pub(crate) stream: bool,
    pub(crate) load: Load,
    /// So many requests are sent at most.
    pub(crate) requests: Option<u64>,
    /// No request begins later.
    #[serde(rename = "duration_s", serialize_with = "optional_seconds")]
    pub(crate) duration: Option<Duration>,
    pub(crate) prompts: Prompts,
    pub(crate) max_tokens: u32,
    /// Fields merged into each body.
    pub(crate) extra_body: Map<String, Value>,
    /// Requests before the run that are not measured.
    pub(crate) warmup: u64,
    pub(crate) seed: u64,
    /// From sending a request to the end of its answer.
    #[serde(rename = "timeout_s", serialize_with = "in_seconds")]
    pub(crate) timeout: Duration,
    pub(crate) objectives: Objectives,
    /// Threads of the client.
    pub(crate) threads: usize,
}

/// When requests begin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub(crate) enum Load {
    /// When the one before has been answered.
    Closed { concurrency: usize },
    /// At a rate.
    Open { rate: f64, arrivals: Arrivals, max_in_flight: usize },
    /// When a trace says.
    Trace { speed: f64, max_in_flight: usize },
}

/// Where prompts come from.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub(crate) enum Prompts {
    /// Made up.
    Synthetic { tokens: TokenRange, shared_prefix: u32 },
    /// The same for all; it is not told in the report.
    Text {
        #[serde(skip)]
        text: String,
    },
    /// A file's lines.
    File { path: PathBuf, max_context: Option<u32> },
}

impl Load {
    /// The most requests that can be in flight.
    pub(super) fn in_flight_max(self) -> usize {
        match self {
            Self::Closed { concurrency } => concurrency,
            Self::Open { max_in_flight, .. } | Self::Trace { max_in_flight, .. } => max_in_flight,
        }
    }
}

fn in_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn optional_seconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}
