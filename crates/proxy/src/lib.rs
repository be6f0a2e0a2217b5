//! Inferno's gateway: OpenAI-compatible requests in, one ready backend out, its answer back.
//!
//! It is an app of our own over `pingora_core`: Pingora listens, validates and frames what clients
//! send (HTTP/1, HTTP/2, with TLS and without), and everything between a request and its answer is here. Pingora's
//! `ProxyHttp` is not used, because routing by the model in a body needs the whole body, of any size.
//!
//! It is *not* where backends register (that is `inferno_shared`, on the operations port), and it
//! keeps no state that a restart would miss, but what routing remembers of prompts: who serves what is
//! read from the membership's snapshot.
//! It runs no inference. Of requests and answers it rewrites what the configuration says (`transform`), and no more.

#![forbid(unsafe_code)]

pub mod admission;
mod app;
mod attempt;
mod auth;
mod body;
mod client_stream;
mod cors;
mod dispatch;
mod downstream;
mod drain;
mod envelope;
mod error;
mod exchange;
mod explain;
mod form;
mod headers;
pub mod keys;
mod limits;
#[doc(hidden)]
pub mod measured;
mod metrics;
mod models;
pub mod prompt;
mod reading;
mod relay;
mod retry;
mod route;
pub mod routing;
mod run;
mod server;
mod stream;
mod strict;
pub mod tls;
pub mod transform;
mod unwritten;
mod upstream;
mod workers;
mod wrapped;

pub use metrics::METRICS;
pub use routing::Fleet;
pub use run::{ProxyError, RunningProxy, SERVICE, check, run_blocking, start, warnings};
pub use server::{TrafficError, TrafficServer};
