//! The decoder: one implementation with switches, not a file a model.
//!
//! [`config`] says what the switches are and reads them from a file's metadata; [`family`] has what the metadata
//! leaves unsaid, a row an architecture. [`decoder`] is the forward pass, its two blocks in files of their own.

mod attention;
pub mod config;
mod decoder;
mod family;
mod feed_forward;
mod load;
mod metadata;
mod moe;
#[cfg(test)]
mod oracle_tests;
mod rope;
mod scratch;

pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use scratch::Scratch;
