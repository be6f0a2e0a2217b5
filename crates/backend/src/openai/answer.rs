//! Writing an answer: one JSON object, or a stream of server-sent events.

use super::{errors::ApiError, params::Params, usage};
use crate::{exchange::Exchange, metrics::Observed};
use bytes::Bytes;
use inferno_engine::{
    Finish, Generation, GenerationEvent, GenerationRequest, SubmitError, TokenEvent, TokenLogprob,
};
use inferno_shared::identity::random_hex;
use serde_json::{Value, json};

/// What tells one kind of completion from the other on the wire.
pub trait Shape: Sync + std::fmt::Debug {
    /// What ids begin with.
    fn id_prefix(&self) -> &'static str;
    /// `object` of a whole answer and of an event.
    fn objects(&self) -> (&'static str, &'static str);
    /// The request's field that holds the prompt.
    fn prompt_field(&self) -> &'static str;
    /// Whether a stream begins with an event of its own.
    fn has_opening(&self) -> bool;
    /// One choice of a whole answer.
    fn choice(&self, text: &str, logprobs: Option<&[TokenLogprob]>, finish: &Finish) -> Value;
    /// One choice of an event.
    fn delta(&self, delta: &Delta<'_>) -> Value;
}

/// What one event tells.
#[derive(Debug)]
pub enum Delta<'a> {
    /// The answer begins.
    Opening,
    /// Text was released.
    Text {
        /// The text.
        text: &'a str,
        /// Its tokens' chances, when asked for.
        logprobs: Option<&'a [TokenLogprob]>,
        /// Characters sent before it.
        offset: usize,
    },
    /// The answer ends.
    End(&'a Finish),
}

/// A request that was understood: what to generate, and how to write it.
#[derive(Debug)]
pub struct Answer {
    shape: &'static dyn Shape,
    params: Params,
    id: String,
    created: u64,
    fingerprint: Option<String>,
    /// What to generate.
    pub request: GenerationRequest,
}

impl Answer {
    /// An answer of that shape, named and dated.
    pub fn new(
        shape: &'static dyn Shape,
        params: Params,
        request: GenerationRequest,
        created: u64,
    ) -> Self {
        let id = format!("{}-{}", shape.id_prefix(), random_hex(12));
        Self { shape, params, id, created, fingerprint: None, request }
    }

    /// Signs the answer with the engine's fingerprint.
    #[must_use]
    pub fn signed(mut self, fingerprint: Option<String>) -> Self {
        self.fingerprint = fingerprint;
        self
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

    /// Waits for the end and writes everything as one object.
    pub async fn whole(
        &self,
        mut generation: Generation,
        exchange: &mut Exchange,
    ) -> Result<Bytes, ApiError> {
        let mut text = String::new();
        let mut logprobs = Vec::new();
        loop {
            match generation.next().await {
                Some(GenerationEvent::Token(event)) => {
                    exchange.saw(Observed::Tokens(event.token_ids.len()));
                    text.push_str(&event.text);
                    logprobs.extend(event.logprobs);
                }
                Some(GenerationEvent::Finished(finish)) => {
                    exchange.saw(Observed::Finish(&finish));
                    return Ok(self.object(&text, &logprobs, &finish));
                }
                Some(GenerationEvent::Failed(error)) => {
                    exchange.saw(Observed::Failure);
                    return Err(error.into());
                }
                None => return Err(ApiError::internal()),
            }
        }
    }

    fn object(&self, text: &str, logprobs: &[TokenLogprob], finish: &Finish) -> Bytes {
        let logprobs = self.request.logprobs.map(|_| logprobs);
        let choice = self.shape.choice(text, logprobs, finish);
        let mut answer = self.envelope(self.shape.objects().0, &[choice]);
        answer["usage"] = usage(finish);
        answer.to_string().into()
    }

    fn envelope(&self, object: &str, choices: &[Value]) -> Value {
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

    /// One event with one choice.
    fn event(&self, delta: &Delta<'_>) -> Bytes {
        let mut chunk = self.envelope(self.shape.objects().1, &[self.shape.delta(delta)]);
        if self.params.include_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk.to_string())
    }

    /// The event that carries the usage and no choice.
    fn usage_event(&self, finish: &Finish) -> Bytes {
        let mut chunk = self.envelope(self.shape.objects().1, &[]);
        chunk["usage"] = usage(finish);
        event(&chunk.to_string())
    }
}

fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// An answer being written as events. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Stream {
    answer: Answer,
    generation: Generation,
    exchange: Exchange,
    characters: usize,
    opened: bool,
    ended: bool,
}

impl Stream {
    /// Begins to write `generation`.
    pub fn new(answer: Answer, generation: Generation, exchange: Exchange) -> Self {
        Self { answer, generation, exchange, characters: 0, opened: false, ended: false }
    }

    /// The next bytes to send: one event for each token that releases text; `None` after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.write_next().await?;
        self.exchange.sent(bytes.len());
        Some(bytes)
    }

    async fn write_next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.opened && self.answer.shape.has_opening() {
            self.opened = true;
            return Some(self.answer.event(&Delta::Opening));
        }
        loop {
            match self.generation.next().await {
                Some(GenerationEvent::Token(event)) => {
                    self.exchange.saw(Observed::Tokens(event.token_ids.len()));
                    if let Some(bytes) = self.text(&event) {
                        return Some(bytes);
                    }
                }
                Some(GenerationEvent::Finished(finish)) => return Some(self.end(&finish)),
                Some(GenerationEvent::Failed(error)) => return Some(self.fail(&error.into())),
                None => return Some(self.fail(&ApiError::internal())),
            }
        }
    }

    /// An event, if the tokens released text or their chances were asked for.
    fn text(&mut self, event: &TokenEvent) -> Option<Bytes> {
        let logprobs = self.answer.request.logprobs.map(|_| event.logprobs.as_slice());
        if event.text.is_empty() && logprobs.is_none_or(<[_]>::is_empty) {
            return None;
        }
        let delta = Delta::Text { text: &event.text, logprobs, offset: self.characters };
        let bytes = self.answer.event(&delta);
        self.characters += event.text.chars().count();
        Some(bytes)
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        self.ended = true;
        self.exchange.saw(Observed::Finish(finish));
        let mut last = self.answer.event(&Delta::End(finish)).to_vec();
        if self.answer.params.include_usage {
            last.extend_from_slice(&self.answer.usage_event(finish));
        }
        last.extend_from_slice(b"data: [DONE]\n\n");
        last.into()
    }

    /// An error after the first byte: an event of its own, and no `[DONE]`.
    fn fail(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        self.exchange.failed(error);
        event(&String::from_utf8_lossy(&error.body()))
    }
}
