//! A client of the OpenAI-compatible API, over HTTP/1.1 and HTTPS: what `chat` and `bench` share.
//!
//! Nothing a server sends can grow without bound here: heads, lines, events and whole answers have
//! limits, and an answer that passes one is an error of its own.

mod client;
mod error;
mod events;
mod key;
mod sse;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub(crate) use client::ApiClient;
pub(crate) use error::ApiError;
pub(crate) use events::Events;
pub(crate) use key::KeyArgs;
pub(crate) use wire::{Chunk, Usage, message};
