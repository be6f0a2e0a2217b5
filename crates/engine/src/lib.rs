//! A continuous-batching inference engine for one model, as a library.
//!
//! [`Engine::load`] maps a GGUF file and starts one thread; [`Engine::submit`] hands it a request and gives
//! back a [`Generation`], a stream of events. The thread makes steps: the [`scheduler`] chooses tokens of all
//! sequences under one budget, the [`runner`] computes them as one ragged batch over a paged KV cache, and
//! each sequence that caught up draws its next token.
//!
//! For one [`Fingerprint`], tokens and log-probabilities are a function of prompt and sampling parameters
//! alone: not of neighbours, chunking, preemption, threads or restarts.
//!
//! There is *no* network in here, no HTTP, no OpenAI types and no configuration files; the clock is read
//! to measure steps and never to decide what a token is.

pub mod batch;
pub mod cache;
pub mod catalogue;
#[cfg(test)]
mod determinism_tests;
pub mod embed;
mod engine;
mod error;
mod events;
mod generation;
pub mod gguf;
mod grammar;
mod life;
mod load;
mod memory;
pub mod model;
mod numerics;
pub mod output;
mod request;
pub mod runner;
pub mod safetensors;
pub mod sampling;
pub mod scheduler;
mod stats;
pub mod store;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokenizer;
mod warm;
mod worker;

pub use cache::{CacheSalt, Miss};
pub use embed::{Embedded, Embedder};
pub use engine::{BudgetLine, Engine, EngineOptions, ModelInfo, ModelSource};
pub use error::{GenerationError, LoadError, ModelFileError, PromptError, SubmitError};
pub use grammar::{
    CHOICES_MAX, GRAMMAR_DEPTH_MAX, Grammar, GrammarError, GrammarSource, LARK_BYTES_MAX,
    REGEX_BYTES_MAX, SCHEMA_BYTES_MAX,
};
pub use load::{Survey, survey};
pub use numerics::{ARITHMETIC, Fingerprint, NUMERICS_VERSION};
pub use request::{
    Finish, FinishReason, Generation, GenerationEvent, GenerationRequest, LOGIT_BIAS_MAX,
    LOGPROBS_MAX, STOP_BYTES_MAX, STOP_TOKENS_MAX, STOPS_MAX, SamplingParams, Timings, TokenChance,
    TokenEvent, TokenLogprob,
};
pub use stats::EngineStats;
pub use template::{Chat, Message};
pub use worker::STEP_TOKENS_MAX;
