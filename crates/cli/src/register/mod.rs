//! A foreign engine among the backends: this process keeps its registration with the proxies, for the
//! engine (llama-server, vLLM, SGLang, TGI, Ollama …) does not know us.
//!
//! Requests go from the proxy to the engine and never pass here. What a proxy asks of a node (who it
//! is, whether it takes requests, how busy it is) this process answers on its operations port, from
//! what it sees of the engine: [`probe`] asks it, [`health`] judges the answers, [`models`] and [`load`]
//! read them, and [`reach`] sees to it that a proxy can come to both. [`service`] is the edge that runs
//! all of that until it is told to stop.

mod engine_url;
mod health;
mod load;
mod models;
mod probe;
mod reach;
mod service;

pub(crate) use engine_url::EngineUrl;
pub(crate) use models::{named, parse_name};
pub(crate) use service::{Engine, RegisterError, SERVICE, run_blocking};
