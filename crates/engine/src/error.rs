//! What can go wrong, by the moment it does: loading, reading a prompt, submitting, generating.

use crate::gguf::GgufError;
use std::any::Any;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why an engine did not start. Nothing here is cured by trying again with the same file and options.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be opened or mapped.
    #[error("cannot read the model file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is damaged, or lacks something that a model needs.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A model or a switch of it that this engine does not implement.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// What was found, for example `architecture "bert"`.
        what: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// The memory does not suffice. Sizes in bytes.
    #[error(
        "not enough memory for the KV cache: {needed} bytes hold one sequence of {context} tokens, {available} bytes are {origin}; \
         lower the context (backend.context_max) or raise the share (backend.kv_memory)"
    )]
    Memory {
        /// What one sequence of full length needs.
        needed: u64,
        /// What there is.
        available: u64,
        /// Where that figure comes from.
        origin: &'static str,
        /// The length of a sequence, in tokens.
        context: usize,
    },
    /// The configuration promises the KV cache more memory than there is. Sizes in bytes.
    #[error(
        "not enough memory for the KV cache: {configured} bytes are configured (backend.kv_memory), {available} bytes are available"
    )]
    Overcommitted {
        /// What was asked for.
        configured: u64,
        /// What there is.
        available: u64,
    },
    /// The sha256 that came with the source is not 64 hexadecimal digits.
    #[error("the model's sha256 {0:?} is not 64 hexadecimal digits")]
    Hash(String),
    /// The directory of an encoder.
    #[error(transparent)]
    Encoder(#[from] crate::embed::EncoderError),
    /// The operating system refused a thread.
    #[error("cannot start the engine's threads: {0}")]
    Threads(std::io::Error),
}

/// Why a model file cannot be used, before it is known which file that is.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The metadata or a tensor is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A kind of model or a switch that is not implemented.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What would be accepted.
        supported: &'static str,
    },
}

impl ModelFileError {
    pub(crate) fn unsupported(what: String, supported: &'static str) -> Self {
        Self::Unsupported { what, supported }
    }

    /// As the error of loading the model at `path`.
    pub(crate) fn at(self, path: &Path) -> LoadError {
        match self {
            Self::Gguf(source) => LoadError::Gguf { path: path.to_owned(), source },
            Self::Unsupported { what, supported } => LoadError::Unsupported { what, supported },
        }
    }
}

/// Why a prompt cannot be made from what the client sent. All are the client's or the model's doing.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model file carries no chat template.
    #[error("this model has no chat template: use /v1/completions, or a chat model")]
    NoTemplate,
    /// The template refused the conversation in its own words (`raise_exception`).
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template is wrong, or ran into a limit.
    #[error("the model's chat template failed: {0}")]
    Template(String),
    /// The text could not be tokenised.
    #[error("the text could not be tokenised: {0}")]
    Tokenizer(String),
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SubmitError {
    /// Prompt and answer do not fit the context.
    #[error(
        "this model's context is {context} tokens; the prompt has {prompt} and {max_tokens} were asked for"
    )]
    ContextLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for (at least 1).
        max_tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A parameter is out of its range.
    #[error("{parameter}: {message}")]
    Parameter {
        /// The field of the request.
        parameter: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// As many requests wait as may. Worth a retry, here later or elsewhere at once.
    #[error("the queue is full: {limit} requests are waiting")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The prompts that wait have as many tokens as may. Worth a retry, here later or elsewhere at once.
    #[error(
        "the queue is full: {waiting} tokens of prompts are waiting, {limit} may, and this prompt has {prompt}"
    )]
    QueueTokens {
        /// Tokens of this prompt.
        prompt: usize,
        /// Tokens that wait.
        waiting: u64,
        /// The limit.
        limit: usize,
    },
    /// The engine is shut down or has failed. Worth a retry elsewhere.
    #[error("the engine is stopped")]
    Stopped,
}

/// Why a generation ended early.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum GenerationError {
    /// Something in this request alone failed (sampling, detokenising). The message is for the log.
    #[error("this request failed inside the engine: {0}")]
    Request(String),
    /// The deadline of the request is over. A retry would be as late.
    #[error("the request's deadline was over before its answer was complete")]
    DeadlineExceeded,
    /// The client did not read its answer for this long.
    #[error("the client read nothing for {} s", .0.as_secs_f64())]
    SlowReader(Duration),
    /// The engine stopped under it: shut down, or failed for everyone.
    #[error("the engine stopped")]
    Stopped,
}

/// What a panic said, if that was written when the program was. Any other text may quote a prompt, as
/// that of slicing a string at the wrong place does, and this goes to logs; the process's panic hook
/// says where it was.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic.downcast_ref::<&'static str>().copied().unwrap_or("a panic; the log says where").into()
}
