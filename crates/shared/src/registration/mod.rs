//! Registration is a lease: a backend announces itself to each proxy, and goes on doing so.
//!
//! [`wire`] is the form on the wire and its validation, [`registry`] the proxy's side (answering,
//! proving, checking, publishing), [`lease`] the side of whoever registers (announcing, renewing,
//! leaving): each backend with each proxy, and each proxy with the others. [`elsewhere`] is what a
//! backend answers on its own `/registration`.

pub mod elsewhere;
pub mod lease;
pub mod policy;
pub mod proof;
mod refusal;
pub mod registry;
mod resolve;
pub mod secrets;
pub mod wire;
