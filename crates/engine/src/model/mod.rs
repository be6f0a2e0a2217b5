//! The decoder: one implementation with switches, not a file a model.

pub mod config;
mod decoder;
mod load;

pub use config::DecoderConfig;
pub use decoder::{Decoder, Scratch};
