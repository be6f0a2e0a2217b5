//! Writing an answer: as one JSON object here, as a stream of events in [`super::events`].

use super::{
    choices::{Choices, together},
    errors::ApiError,
    params::Params,
    usage,
};
use crate::{exchange::Exchange, metrics::Observed};
use bytes::Bytes;
use inferno_engine::{
    CacheSalt, Finish, GenerationEvent, GenerationRequest, SubmitError, TokenLogprob,
};
use inferno_shared::identity::random_hex;
use serde_json::{Value, json};
use std::time::Instant;

/// What tells one kind of completion from the other on the wire.
pub trait Shape: Sync + std::fmt::Debug {
    /// What ids begin with.
    fn id_prefix(&self) -> &'static str;
    /// `object` of a whole answer and of an event.
    fn objects(&self) -> (&'static str, &'static str);
    /// The request's field that holds the prompt.
    fn prompt_field(&self) -> &'static str;
    /// Whether each choice of a stream begins with an event of its own.
    fn has_opening(&self) -> bool;
    /// One choice of a whole answer, but for its index.
    fn choice(&self, text: &str, logprobs: Option<&Logprobs<'_>>, finish: &Finish) -> Value;
    /// One choice of an event, but for its index.
    fn delta(&self, delta: &Delta<'_>) -> Value;
}

/// What one event tells of a choice.
#[derive(Debug)]
pub enum Delta<'a> {
    /// The answer begins.
    Opening,
    /// Text was released.
    Text {
        /// The text.
        text: &'a str,
        /// Its tokens' chances, when asked for.
        logprobs: Option<Logprobs<'a>>,
    },
    /// The answer ends.
    End(&'a Finish),
}

/// The chances of successive tokens of a choice.
#[derive(Clone, Copy, Debug)]
pub struct Logprobs<'a> {
    /// The first token of an echoed prompt: nothing precedes it, so it has no chance.
    pub first: Option<&'a FirstToken>,
    /// The tokens after it.
    pub tokens: &'a [TokenLogprob],
    /// Characters of the choice before all of them.
    pub offset: usize,
}

/// The first token of a prompt that is echoed.
#[derive(Clone, Debug, Default)]
pub struct FirstToken {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it is a mark, and no part of the text.
    pub hidden: bool,
}

/// A prompt and what is repeated of it.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What each of its choices begins with, if the request says so.
    pub echo: Option<Echo>,
}

/// A prompt as its choices repeat it.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Its text.
    pub text: String,
    /// Its first token.
    pub first: FirstToken,
}

/// A request that was understood: what to generate, and how to write it.
#[derive(Debug)]
pub struct Answer {
    pub(super) shape: &'static dyn Shape,
    pub(super) params: Params,
    id: String,
    created: u64,
    fingerprint: Option<String>,
    prompts: Vec<Prompt>,
    /// What all its generations have in common.
    request: GenerationRequest,
}

/// What has come of one choice.
#[derive(Debug, Default)]
struct Written {
    text: String,
    logprobs: Vec<TokenLogprob>,
    finish: Option<Finish>,
}

/// What a request comes with beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// With whom it shares cached prefixes.
    pub salt: Option<CacheSalt>,
    /// Higher goes first.
    pub priority: i32,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl Answer {
    /// An answer of that shape to `prompts`, named and dated. `request` is what its generations have in common.
    pub fn new(
        shape: &'static dyn Shape,
        params: Params,
        prompts: Vec<Prompt>,
        request: GenerationRequest,
        created: u64,
    ) -> Self {
        let id = format!("{}-{}", shape.id_prefix(), random_hex(12));
        Self { shape, params, id, created, fingerprint: None, prompts, request }
    }

    /// Signs the answer with the engine's fingerprint.
    #[must_use]
    pub fn signed(mut self, fingerprint: Option<String>) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Under the terms that the request came with.
    #[must_use]
    pub fn on(mut self, terms: Terms) -> Self {
        let Terms { salt, priority, deadline } = terms;
        self.request.cache_salt = salt;
        (self.request.priority, self.request.deadline) = (priority, deadline);
        self
    }

    /// What to generate: every choice of the first prompt, then of the next.
    pub fn requests(&self) -> impl Iterator<Item = GenerationRequest> + '_ {
        let choices = self.params.n as u32;
        self.prompts.iter().zip(0..).flat_map(move |(prompt, prompt_index)| {
            (0..choices).map(move |choice| GenerationRequest {
                prompt: prompt.ids.clone(),
                prompt_index,
                choice,
                ..self.request.clone()
            })
        })
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }

    /// What choice `index` begins with.
    pub(super) fn echo(&self, index: usize) -> Option<&Echo> {
        self.prompts.get(index / self.params.n.max(1))?.echo.as_ref()
    }

    /// Why the engine did not take the request, in terms of the client's fields.
    pub fn refusal(&self, error: SubmitError) -> ApiError {
        let mut refusal = ApiError::from(error);
        if refusal.code == "context_length_exceeded" {
            refusal.param = Some(self.shape.prompt_field().into());
        }
        refusal
    }

    /// Whether the client wants events.
    pub fn streams(&self) -> bool {
        self.params.stream
    }

    /// Whether it wants the tokens' chances.
    pub(super) fn has_logprobs(&self) -> bool {
        self.request.logprobs.is_some()
    }

    /// Waits for the end and writes everything as one object.
    pub async fn whole(
        &self,
        mut choices: Choices,
        exchange: &mut Exchange,
    ) -> Result<Bytes, ApiError> {
        let mut written: Vec<Written> = Vec::new();
        written.resize_with(choices.count(), Written::default);
        while let Some((index, event)) = choices.next().await {
            match event {
                GenerationEvent::Prompt(logprobs) => written[index].logprobs = logprobs,
                GenerationEvent::Token(event) => {
                    exchange.saw(Observed::Tokens { choice: index, count: event.token_ids.len() });
                    written[index].text.push_str(&event.text);
                    written[index].logprobs.extend(event.logprobs);
                }
                GenerationEvent::Finished(finish) => written[index].finish = Some(finish),
                GenerationEvent::Failed(error) => {
                    exchange.saw(Observed::Failure);
                    return Err(error.into());
                }
            }
        }
        self.object(&written, exchange)
    }

    fn object(&self, written: &[Written], exchange: &mut Exchange) -> Result<Bytes, ApiError> {
        let finishes: Vec<Finish> =
            written.iter().filter_map(|written| written.finish.clone()).collect();
        if finishes.len() != written.len() {
            return Err(ApiError::internal());
        }
        let finish = together(&finishes, self.params.n);
        exchange.saw(Observed::Finish(&finish));
        let choices = written.iter().zip(&finishes).enumerate();
        let choices = choices.map(|(index, (written, finish))| self.choice(index, written, finish));
        let choices: Vec<Value> = choices.collect();
        let mut answer = self.envelope(self.shape.objects().0, &choices);
        answer["usage"] = usage(&finish);
        Ok(answer.to_string().into())
    }

    fn choice(&self, index: usize, written: &Written, finish: &Finish) -> Value {
        let echo = self.echo(index);
        let logprobs =
            Logprobs { first: echo.map(|echo| &echo.first), tokens: &written.logprobs, offset: 0 };
        let text = match echo {
            Some(echo) => [echo.text.as_str(), &written.text].concat(),
            None => written.text.clone(),
        };
        let logprobs = self.has_logprobs().then_some(&logprobs);
        indexed(index, self.shape.choice(&text, logprobs, finish))
    }

    pub(super) fn envelope(&self, object: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.params.model,
            "system_fingerprint": self.fingerprint,
            "seed": self.params.sampling.seed,
            "choices": choices,
        })
    }
}

/// A choice with its place among the others, which comes first.
pub(super) fn indexed(index: usize, choice: Value) -> Value {
    let mut fields = serde_json::Map::from_iter([("index".to_owned(), index.into())]);
    if let Value::Object(choice) = choice {
        fields.extend(choice);
    }
    Value::Object(fields)
}
