//! The engine's side of one generation: draws its tokens, releases its text, reports to its client.

use crate::error::GenerationError;
use crate::events::Sender;
use crate::output::OutputText;
use crate::request::{
    Finish, FinishReason, GenerationEvent, GenerationRequest, Timings, TokenEvent, TokenLogprob,
};
use crate::sampling::{History, Key, Sampler, SamplingError, logprobs};
use crate::tokenizer::Tokenizer;
use inferno_kernels::Level;
use std::time::Instant;
use tracing::Span;

/// A request under way.
pub(crate) struct Active {
    events: Sender,
    sampler: Sampler,
    history: History,
    output: OutputText,
    logprobs: Option<usize>,
    ignore_eos: bool,
    prompt_tokens: usize,
    /// Tokens of the prompt that a cache held.
    pub(crate) cached_tokens: usize,
    /// Most tokens to generate.
    limit: usize,
    generated: usize,
    /// Tokens that released no text yet.
    unreported: TokenEvent,
    clock: Clock,
    level: Level,
    /// What is logged about it is logged in here.
    span: Span,
}

/// When what happened.
struct Clock {
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

/// What a generation wants after a token.
pub(crate) enum Next {
    /// Another one, after this.
    Continue(u32),
    /// Nothing more.
    End,
}

impl Active {
    /// The state of a fresh request, of at most `limit` tokens; returns the prompt too.
    pub(crate) fn new(
        request: GenerationRequest,
        limit: usize,
        events: Sender,
        submitted: Instant,
        level: Level,
    ) -> (Self, Vec<u32>) {
        let GenerationRequest { prompt, sampling, stop, choice, prompt_index, .. } = request;
        let key = Key { seed: sampling.seed, prompt_index, choice };
        let active = Self {
            events,
            sampler: Sampler::new(sampling, key, level),
            history: History::new(&prompt),
            output: OutputText::new(stop),
            logprobs: request.logprobs,
            ignore_eos: request.ignore_eos,
            prompt_tokens: prompt.len(),
            cached_tokens: 0,
            limit,
            generated: 0,
            unreported: TokenEvent::default(),
            clock: Clock { submitted, started: None, first_token: None },
            level,
            span: Span::current(),
        };
        (active, prompt)
    }

    /// The span of whoever submitted it.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whether the client went away.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the events of another token can be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.events.has_room()
    }

    /// Asks for a [`Command::Wake`](crate::worker::Command::Wake) once there is room again; false when there is.
    pub(crate) fn park(&self) -> bool {
        self.events.park()
    }

    /// Whether it may go on after [`Active::park`].
    pub(crate) fn is_ready(&self) -> bool {
        self.events.is_ready()
    }

    /// Whether no token was generated yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.generated == 0
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Notes that a step computes it; only the first counts.
    pub(crate) fn start(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Draws the next token from `logits` (`[vocab]`) and does all that follows from it. `adjusted` is scratch.
    ///
    /// # Errors
    /// When the logits cannot be drawn from.
    pub(crate) fn advance(
        &mut self,
        logits: &[f32],
        adjusted: &mut Vec<f32>,
        tokenizer: &Tokenizer,
        now: Instant,
    ) -> Result<Next, SamplingError> {
        let position = self.prompt_tokens + self.generated;
        let token = self.sampler.sample(logits, &self.history, position, adjusted)?;
        self.clock.first_token.get_or_insert(now);
        self.history.push(token);
        self.generated += 1;
        let chance = self.logprobs.map(|top| logprobs(logits, token, top, tokenizer, self.level));
        let ends = !self.ignore_eos && tokenizer.eos().contains(&token);
        let bytes = if ends { &[] } else { tokenizer.visible_bytes(token) };
        let (text, stopped) = self.output.push(bytes);
        self.report(token, chance, &text);
        if ends || stopped {
            self.finish(FinishReason::Stop, stopped, now);
        } else if self.generated >= self.limit {
            self.finish(FinishReason::Length, false, now);
        } else {
            return Ok(Next::Continue(token));
        }
        Ok(Next::End)
    }

    /// Adds a token to those to report, and reports them if text came with it.
    fn report(&mut self, token: u32, chance: Option<TokenLogprob>, text: &str) {
        self.unreported.token_ids.push(token);
        self.unreported.logprobs.extend(chance);
        self.unreported.text.push_str(text);
        if !text.is_empty() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let event = std::mem::take(&mut self.unreported);
        self.send(GenerationEvent::Token(event));
    }

    /// Reports what is left and the end. After a stop string nothing held back is shown.
    fn finish(&mut self, reason: FinishReason, stopped: bool, now: Instant) {
        let mut reason = reason;
        if !stopped {
            let (text, completed) = self.output.finish();
            self.unreported.text.push_str(&text);
            if completed {
                reason = FinishReason::Stop;
            }
        }
        if !self.unreported.token_ids.is_empty() || !self.unreported.text.is_empty() {
            self.flush();
        }
        self.send(GenerationEvent::Finished(Finish {
            reason,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.generated,
            cached_tokens: self.cached_tokens,
            timings: self.clock.timings(now),
        }));
    }

    /// Reports an early end.
    pub(crate) fn fail(&self, error: GenerationError) {
        self.send(GenerationEvent::Failed(error));
    }

    /// A sequence is in a step only while its client's channel has room for what the step can bring, so that
    /// this neither waits nor fails, except when the client is gone, which the next step notices.
    fn send(&self, event: GenerationEvent) {
        self.events.send(event);
    }
}

impl Clock {
    fn timings(&self, now: Instant) -> Timings {
        let started = self.started.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Timings {
            queue: started.saturating_duration_since(self.submitted),
            prefill: first_token.saturating_duration_since(started),
            decode: now.saturating_duration_since(first_token),
        }
    }
}
