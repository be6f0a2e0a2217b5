//! The engine's side of one generation: draws its tokens, releases its text, reports to its client.

use crate::error::GenerationError;
use crate::events::Sender;
use crate::grammar::{Grammar, GrammarFailure};
use crate::output::OutputText;
use crate::request::{
    Finish, FinishReason, GenerationEvent, GenerationRequest, Timings, TokenEvent, TokenLogprob,
};
use crate::sampling::{History, Key, Restrictions, Sampler, SamplingError, Scratch, logprobs};
use crate::tokenizer::Tokenizer;
use inferno_kernels::Level;
use std::ops::Range;
use std::time::Instant;
use tracing::Span;

/// A request under way.
pub(crate) struct Active {
    events: Sender,
    sampler: Sampler,
    history: History,
    output: OutputText,
    logprobs: Option<usize>,
    prompt_score: Option<PromptScore>,
    grammar: Option<Grammar>,
    ignore_eos: bool,
    stop_token_ids: Vec<u32>,
    /// As many tokens come before one that ends the sequence is drawn.
    min_tokens: usize,
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

/// The prompt's log-probabilities, as far as they are computed.
struct PromptScore {
    prompt: Vec<u32>,
    /// Alternatives per token.
    top: usize,
    /// Of `prompt[1..]`.
    scores: Vec<TokenLogprob>,
}

/// Why a generation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdvanceError {
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error(transparent)]
    Grammar(#[from] GrammarFailure),
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
        let prompt_score = request.prompt_logprobs.map(|top| PromptScore {
            prompt: prompt.clone(),
            top,
            scores: Vec::new(),
        });
        let active = Self {
            events,
            sampler: Sampler::new(sampling, key, level),
            history: History::new(&prompt),
            output: OutputText::new(stop, request.include_stop),
            logprobs: request.logprobs,
            prompt_score,
            grammar: request.grammar,
            ignore_eos: request.ignore_eos,
            stop_token_ids: request.stop_token_ids,
            min_tokens: request.min_tokens,
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

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> usize {
        self.generated
    }

    /// Which of the positions `computed` give log-probabilities of the prompt that are asked for and not yet known:
    /// position p those of token p + 1. After a preemption positions are computed again.
    pub(crate) fn unscored(&self, computed: &Range<usize>) -> Range<usize> {
        let Some(score) = &self.prompt_score else { return 0..0 };
        let wanted = score.scores.len()..self.prompt_tokens - 1;
        computed.start.max(wanted.start)..computed.end.min(wanted.end)
    }

    /// Takes the `logits` (`[vocab]`) of the next unscored position, and reports all when they are complete.
    pub(crate) fn score(&mut self, logits: &[f32], tokenizer: &Tokenizer) {
        let Some(score) = &mut self.prompt_score else { return };
        let token = score.prompt[score.scores.len() + 1];
        let mut scored = logprobs(logits, token, score.top, tokenizer, self.level);
        // A mark in a prompt stands there as its name.
        scored.token.hidden = false;
        score.scores.push(scored);
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

    /// Draws the next token from `logits` (`[vocab]`) and does all that follows from it.
    ///
    /// # Errors
    /// When the logits cannot be drawn from, or the grammar fails.
    pub(crate) fn advance(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
        tokenizer: &Tokenizer,
        now: Instant,
    ) -> Result<Next, AdvanceError> {
        self.clock.first_token.get_or_insert(now);
        if let Some(score) = self.prompt_score.take() {
            self.send(GenerationEvent::Prompt(score.scores));
        }
        if self.limit == 0 {
            self.finish(FinishReason::Length, false, now);
            return Ok(Next::End);
        }
        let token = self.draw(logits, scratch, tokenizer)?;
        self.history.push(token);
        self.generated += 1;
        let chance = self.logprobs.map(|top| logprobs(logits, token, top, tokenizer, self.level));
        let ends = self.is_end(token, tokenizer);
        let complete = match &mut self.grammar {
            Some(grammar) if !ends => grammar.consume(token)?,
            _ => false,
        };
        let bytes = if ends { &[] } else { tokenizer.visible_bytes(token) };
        let (text, stopped) = self.output.push(bytes);
        self.report(token, chance, &text);
        if ends || stopped || complete {
            self.finish(FinishReason::Stop, stopped, now);
        } else if self.generated >= self.limit {
            self.finish(FinishReason::Length, false, now);
        } else {
            return Ok(Next::Continue(token));
        }
        Ok(Next::End)
    }

    fn draw(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
        tokenizer: &Tokenizer,
    ) -> Result<u32, AdvanceError> {
        let mask = self.grammar.as_mut().map(Grammar::mask).transpose()?;
        let early = self.generated < self.min_tokens;
        let banned: Vec<u32> = match early {
            true => self.stop_token_ids.iter().chain(tokenizer.eos()).copied().collect(),
            false => Vec::new(),
        };
        let allowed = mask.as_ref().map(|mask| mask.as_slice());
        let restrictions = Restrictions { allowed, banned: &banned };
        let position = self.prompt_tokens + self.generated;
        Ok(self.sampler.sample(logits, &self.history, restrictions, position, scratch)?)
    }

    fn is_end(&self, token: u32, tokenizer: &Tokenizer) -> bool {
        (!self.ignore_eos && tokenizer.eos().contains(&token))
            || self.stop_token_ids.contains(&token)
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
