//! What goes into the engine and what comes out: requests, events, results.

use crate::cache::CacheSalt;
use crate::error::{GenerationError, SubmitError};
use crate::events::Receiver;
use crate::grammar::Grammar;
use std::time::{Duration, Instant};

/// Most alternatives a log-probability may come with, as in OpenAI's API.
pub const LOGPROBS_MAX: usize = 20;
/// Most stop strings of a request.
pub const STOPS_MAX: usize = 16;
/// Longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 1024;
/// Most tokens with a bias of their own.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// Most tokens that end a generation beside the model's own.
pub const STOP_TOKENS_MAX: usize = 64;

/// One sequence to generate. A client's `n` choices are `n` requests.
#[derive(Clone, Debug, Default)]
pub struct GenerationRequest {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; `None` means up to the end of the context. 0 only where the prompt's own
    /// log-probabilities are asked for.
    pub max_tokens: Option<usize>,
    /// No end-of-sequence token is drawn before so many tokens.
    pub min_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Strings that end the generation.
    pub stop: Vec<String>,
    /// Tokens that end it as the end of the sequence does.
    pub stop_token_ids: Vec<u32>,
    /// Whether the stop string that ended it is part of the answer.
    pub include_stop: bool,
    /// `Some(n)`: report each token's log-probability and the `n` likeliest alternatives.
    pub logprobs: Option<usize>,
    /// `Some(n)`: first report the prompt's tokens in the same way, all but the first, which nothing precedes.
    pub prompt_logprobs: Option<usize>,
    /// What the answer's text must be a sentence of; see [`crate::Engine::compile`].
    pub grammar: Option<Grammar>,
    /// Go on after an end-of-sequence token.
    pub ignore_eos: bool,
    /// Which of the client's choices this is; part of the random key.
    pub choice: u32,
    /// Which of the client's prompts this is; part of the random key.
    pub prompt_index: u32,
    /// Higher goes first, also at the cost of lower ones that run.
    pub priority: i32,
    /// When its answer is of no use any more: it is ended then, wherever it is.
    pub deadline: Option<Instant>,
    /// With whom it shares cached prefixes; by default with all that have none.
    pub cache_salt: Option<CacheSalt>,
}

/// How a token is chosen from the model's distribution. Applied in this order: bias, penalties, temperature,
/// then top-k, top-p and min-p together.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 takes the likeliest token (the lowest id of equals); 1 is the model's own distribution.
    pub temperature: f32,
    /// Keep the smallest set of likeliest tokens that holds this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Subtracted from the logit of every token generated before.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time it was generated before.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1 is off.
    pub repetition_penalty: f32,
    /// The random key; with it, the same request gives the same tokens.
    pub seed: u64,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            logit_bias: Vec::new(),
        }
    }
}

impl GenerationRequest {
    /// Checks what does not depend on the model's state. `vocab` is the number of token ids.
    pub(crate) fn validate(&self, vocab: usize) -> Result<(), SubmitError> {
        let known = |id: &u32| (*id as usize) < vocab;
        require(!self.prompt.is_empty(), "prompt", || "must have at least one token".into())?;
        require(self.prompt.iter().all(known), "prompt", || {
            format!("token ids are below {vocab}")
        })?;
        let scores = self.prompt_logprobs.is_some();
        require(self.max_tokens != Some(0) || scores, "max_tokens", || {
            "must be at least 1".into()
        })?;
        require(self.stop_token_ids.len() <= STOP_TOKENS_MAX, "stop_token_ids", || {
            format!("at most {STOP_TOKENS_MAX} tokens")
        })?;
        require(self.stop_token_ids.iter().all(known), "stop_token_ids", || {
            format!("token ids are below {vocab}")
        })?;
        require(self.stop.len() <= STOPS_MAX, "stop", || format!("at most {STOPS_MAX} strings"))?;
        let sized = |stop: &String| (1..=STOP_BYTES_MAX).contains(&stop.len());
        require(self.stop.iter().all(sized), "stop", || {
            format!("strings have 1 to {STOP_BYTES_MAX} bytes")
        })?;
        let tops = self.logprobs.max(self.prompt_logprobs);
        require(tops.is_none_or(|n| n <= LOGPROBS_MAX), "logprobs", || {
            format!("at most {LOGPROBS_MAX}")
        })?;
        let ends = self.grammar.is_none() || (!self.ignore_eos && self.min_tokens == 0);
        require(ends, "min_tokens", || {
            "a grammar says where the answer ends: neither `min_tokens` nor `ignore_eos` may contradict it".into()
        })?;
        self.sampling.validate(vocab)
    }
}

impl SamplingParams {
    /// Whether the likeliest token under the model's own logits is taken.
    pub(crate) fn takes_the_likeliest(&self) -> bool {
        self.temperature == 0.0
            && self.logit_bias.is_empty()
            && self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
    }

    fn validate(&self, vocab: usize) -> Result<(), SubmitError> {
        let within = |value: f32, low: f32, high: f32| (low..=high).contains(&value);
        let range = |value: f32, low: f32, high: f32, parameter: &'static str| {
            require(within(value, low, high), parameter, || format!("must be from {low} to {high}"))
        };
        range(self.temperature, 0.0, 100.0, "temperature")?;
        range(self.top_p, 0.0, 1.0, "top_p")?;
        range(self.min_p, 0.0, 1.0, "min_p")?;
        range(self.presence_penalty, -2.0, 2.0, "presence_penalty")?;
        range(self.frequency_penalty, -2.0, 2.0, "frequency_penalty")?;
        range(self.repetition_penalty, 0.01, 100.0, "repetition_penalty")?;
        require(self.logit_bias.len() <= LOGIT_BIAS_MAX, "logit_bias", || {
            format!("at most {LOGIT_BIAS_MAX} tokens")
        })?;
        let fine = |(id, bias): &(u32, f32)| (*id as usize) < vocab && within(*bias, -100.0, 100.0);
        require(self.logit_bias.iter().all(fine), "logit_bias", || {
            format!("token ids are below {vocab}, biases from -100 to 100")
        })
    }
}

fn require(
    condition: bool,
    parameter: &'static str,
    message: impl FnOnce() -> String,
) -> Result<(), SubmitError> {
    if condition { Ok(()) } else { Err(SubmitError::Parameter { parameter, message: message() }) }
}

/// What happens to a generation, in order: the prompt's log-probabilities if they were asked for, any number of
/// tokens, then one end.
#[derive(Clone, Debug)]
pub enum GenerationEvent {
    /// How likely the prompt's tokens were, from the second on.
    Prompt(Vec<TokenLogprob>),
    /// Text was released, or the last tokens came without any.
    Token(TokenEvent),
    /// It ended as it should; nothing follows.
    Finished(Finish),
    /// It ended early; nothing follows.
    Failed(GenerationError),
}

/// Tokens, and the text they released.
#[derive(Clone, Debug, Default)]
pub struct TokenEvent {
    /// Ids consumed since the previous event, an end-of-sequence token included.
    pub token_ids: Vec<u32>,
    /// Text that can no longer change: whole characters, and no beginning of a stop string.
    pub text: String,
    /// One entry per id when the request asked for log-probabilities, else empty.
    pub logprobs: Vec<TokenLogprob>,
}

/// How likely the model found a token, before temperature, penalties and bias.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenChance,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<TokenChance>,
}

/// A token with its natural log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenChance {
    /// Token id.
    pub id: u32,
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// A mark for the model: its bytes are its name, and no part of any text.
    pub hidden: bool,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token, a stop string or the end of a grammar.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
}

/// The result of a generation.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, an end-of-sequence token included.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were not computed because a cache held them.
    pub cached_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the time of a generation went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From submission to the first step.
    pub queue: Duration,
    /// From the first step to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// A running generation: a stream of events. Dropping it cancels: its slot and its blocks are free at the
/// next step, whether it was waiting, in prefill or decoding.
#[derive(Debug)]
pub struct Generation {
    events: Receiver,
    /// Whether the last event was handed out.
    ended: bool,
}

impl Generation {
    pub(crate) fn new(events: Receiver) -> Self {
        Self { events, ended: false }
    }

    /// The next event; `None` after the last, which is always [`GenerationEvent::Finished`] or
    /// [`GenerationEvent::Failed`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        let event = self.events.recv().await;
        self.note(event)
    }

    /// As [`Generation::next`], for threads without a runtime.
    ///
    /// # Panics
    /// When called from within an async runtime.
    pub fn blocking_next(&mut self) -> Option<GenerationEvent> {
        let event = self.events.blocking_recv();
        self.note(event)
    }

    /// An engine that ends just as a request arrives drops it without a word: that is said here.
    fn note(&mut self, event: Option<GenerationEvent>) -> Option<GenerationEvent> {
        let event = match event {
            None if !self.ended => Some(GenerationEvent::Failed(GenerationError::Stopped)),
            event => event,
        };
        let goes_on = matches!(event, Some(GenerationEvent::Token(_) | GenerationEvent::Prompt(_)));
        self.ended |= !goes_on;
        event
    }
}
