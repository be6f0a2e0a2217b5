//! What can go wrong with an encoder: loading it, and asking it.

use crate::error::SubmitError;
use crate::safetensors::SafetensorsError;
use std::path::{Path, PathBuf};

/// Why a model directory cannot be used. Nothing here is cured by trying again.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A file is absent or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than such files are.
    #[error("{} has {bytes} bytes; {limit} is the limit", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest there may be.
        limit: u64,
    },
    /// A JSON file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The weights are damaged, or not those that the configuration describes.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafetensorsError,
    },
    /// A model or a switch of it that is not implemented.
    #[error("{}: {what} is not supported; supported: {supported}", path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What was found, for example `model_type "roberta"`.
        what: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// The memory does not suffice. Sizes in bytes.
    #[error(
        "not enough memory for the encoder: {needed} bytes of weights and buffers, {available} are available"
    )]
    Memory {
        /// What the weights and the buffers of the largest step take.
        needed: u64,
        /// What there is.
        available: u64,
    },
}

impl EncoderError {
    pub(super) fn unsupported(
        path: &Path,
        what: impl Into<String>,
        supported: &'static str,
    ) -> Self {
        Self::Unsupported { path: path.to_owned(), what: what.into(), supported }
    }
}

/// Why texts were not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EmbedError {
    /// None, or more than may come at once.
    #[error("1 to {limit} inputs are embedded at once; there are {inputs}")]
    Count {
        /// How many came.
        inputs: usize,
        /// The limit.
        limit: usize,
    },
    /// A text without tokens.
    #[error("input {index} is empty")]
    Empty {
        /// Which, from 0.
        index: usize,
    },
    /// A text of more tokens than the model looks at.
    #[error("this model takes at most {limit} tokens an input; input {index} has {tokens}")]
    TooLong {
        /// Which, from 0.
        index: usize,
        /// How many it has, what the tokenizer adds included.
        tokens: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A text of so many bytes that it is not worth looking for its tokens.
    #[error("this model takes at most {limit} bytes an input; input {index} has {bytes}")]
    TooManyBytes {
        /// Which, from 0.
        index: usize,
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A token id that the model does not have.
    #[error("token ids are below {vocab}; input {index} has {id}")]
    UnknownToken {
        /// Which input, from 0.
        index: usize,
        /// The id.
        id: u32,
        /// The number of ids.
        vocab: usize,
    },
    /// The tokenizer failed on a text.
    #[error("input {index} could not be tokenised")]
    Tokenizer {
        /// Which, from 0.
        index: usize,
    },
    /// As many texts wait as may. Worth a retry, here later or elsewhere at once.
    #[error("the queue is full: {limit} texts are waiting")]
    Backlog {
        /// The limit.
        limit: usize,
    },
    /// As for generation: the queue is full, or the thread has ended.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}
