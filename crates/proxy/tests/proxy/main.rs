//! The traffic port between scripted peers: raw clients on one side, backends that say exact bytes
//! on the other, and a membership that the test sets. Nothing in here sleeps to wait for something.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod admission;
mod bodies;
mod cancellation;
mod chaos;
mod cors;
mod draining;
mod errors;
mod http;
mod http2;
mod keys;
mod limits;
mod pains;
mod passthrough;
mod retry;
mod routing;
mod slow;
mod smuggling;
mod streaming;
mod support;
mod tls;
mod transformation;
mod whole;
