//! Embeddings: an encoder of the BERT family (Devlin et al., 2018) from a safetensors directory.
//!
//! [`Embedder`] is the handle, as [`crate::Engine`] is that of generation: one thread makes steps, each over a
//! flat ragged batch of texts, which [`turns`] takes from all requests in turn. A text's vector is a function of
//! its tokens and the model alone: not of the other texts, threads or the instruction level.
//!
//! Texts longer than the model looks at are *refused*, where sentence-transformers would cut them off without
//! a word.

mod config;
mod embedder;
mod encoder;
mod error;
mod folder;
mod load;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tokenizer;
pub mod turns;
mod worker;

pub use config::{EncoderConfig, Pooling};
pub use embedder::{Embedded, Embedder, Embedding, INPUTS_MAX};
pub use encoder::{Encoder, Scratch};
pub use error::{EmbedError, EncoderError};
pub use load::load_encoder;
pub(crate) use load::survey;
