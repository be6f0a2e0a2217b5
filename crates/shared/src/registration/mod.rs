//! Registration is a lease: a backend announces itself to each proxy, and goes on doing so.
//!
//! [`wire`] is the form on the wire and its validation, [`registry`] the proxy's side (answering,
//! proving, checking, publishing), [`lease`] the backend's side (announcing, renewing, leaving).

pub mod lease;
pub mod policy;
pub mod registry;
pub mod secrets;
pub mod wire;
