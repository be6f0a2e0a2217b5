//! Writing an answer as server-sent events (HTML Living Standard, section 9.2): one for each token that
//! releases text, of whichever choice it is.

use super::{
    answer::{Answer, Delta, Logprobs, indexed},
    choices::{Choices, together},
    errors::ApiError,
    usage,
};
use crate::{exchange::Exchange, metrics::Observed};
use bytes::Bytes;
use inferno_engine::{Finish, GenerationEvent, TokenEvent, TokenLogprob};
use serde_json::Value;
use std::collections::VecDeque;

/// An answer being written as events. Dropping it cancels its generations.
#[derive(Debug)]
pub struct Stream {
    answer: Answer,
    choices: Choices,
    exchange: Exchange,
    /// Characters sent of each choice.
    characters: Vec<usize>,
    finishes: Vec<Option<Finish>>,
    /// Events that can be sent before the engine says anything.
    openings: VecDeque<Bytes>,
    ended: bool,
}

impl Stream {
    /// Begins to write what `choices` bring.
    pub fn new(answer: Answer, choices: Choices, exchange: Exchange) -> Self {
        let count = choices.count();
        let mut stream = Self {
            answer,
            choices,
            exchange,
            characters: vec![0; count],
            finishes: vec![None; count],
            openings: VecDeque::new(),
            ended: false,
        };
        stream.open(count);
        stream
    }

    /// What each choice begins with: an event of its own, or the echo of its prompt, which waits for its
    /// log-probabilities if they are asked for.
    fn open(&mut self, count: usize) {
        for index in 0..count {
            if self.answer.shape.has_opening() {
                self.openings.push_back(self.answer.event(index, &Delta::Opening));
            }
            if !self.answer.has_logprobs() && self.answer.echo(index).is_some() {
                let echo = self.echo(index, &[]);
                self.openings.extend(echo);
            }
        }
    }

    /// The next bytes to send; `None` after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.write_next().await?;
        self.exchange.sent(bytes.len());
        Some(bytes)
    }

    async fn write_next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(opening) = self.openings.pop_front() {
            return Some(opening);
        }
        loop {
            let written = match self.choices.next().await {
                Some((index, GenerationEvent::Prompt(logprobs))) if self.answer.has_logprobs() => {
                    self.echo(index, &logprobs)
                }
                Some((_, GenerationEvent::Prompt(_))) => None,
                Some((index, GenerationEvent::Token(event))) => {
                    let count = event.token_ids.len();
                    self.exchange.saw(Observed::Tokens { choice: index, count });
                    self.text(index, &event)
                }
                Some((index, GenerationEvent::Finished(finish))) => Some(self.end(index, finish)),
                Some((_, GenerationEvent::Failed(error))) => Some(self.fail(&error.into())),
                None => Some(self.fail(&ApiError::internal())),
            };
            if written.is_some() {
                return written;
            }
        }
    }

    /// The prompt of a choice, as its first text.
    fn echo(&mut self, index: usize, tokens: &[TokenLogprob]) -> Option<Bytes> {
        let echo = self.answer.echo(index)?;
        let logprobs = Logprobs { first: Some(&echo.first), tokens, offset: 0 };
        let logprobs = self.answer.has_logprobs().then_some(logprobs);
        let bytes = self.answer.event(index, &Delta::Text { text: &echo.text, logprobs });
        self.characters[index] += echo.text.chars().count();
        Some(bytes)
    }

    /// An event, if the tokens released text or their chances were asked for.
    fn text(&mut self, index: usize, event: &TokenEvent) -> Option<Bytes> {
        let logprobs =
            Logprobs { first: None, tokens: &event.logprobs, offset: self.characters[index] };
        let logprobs = self.answer.has_logprobs().then_some(logprobs);
        if event.text.is_empty() && event.logprobs.is_empty() {
            return None;
        }
        let bytes = self.answer.event(index, &Delta::Text { text: &event.text, logprobs });
        self.characters[index] += event.text.chars().count();
        Some(bytes)
    }

    /// The end of a choice; with the last one, that of the answer.
    fn end(&mut self, index: usize, finish: Finish) -> Bytes {
        let mut last = self.answer.event(index, &Delta::End(&finish)).to_vec();
        self.finishes[index] = Some(finish);
        let Some(finishes) = self.finishes.iter().cloned().collect::<Option<Vec<_>>>() else {
            return last.into();
        };
        self.ended = true;
        let finish = together(&finishes, self.answer.params.n);
        self.exchange.saw(Observed::Finish(&finish));
        if self.answer.params.include_usage {
            last.extend_from_slice(&self.answer.usage_event(&finish));
        }
        last.extend_from_slice(b"data: [DONE]\n\n");
        last.into()
    }

    /// An error after the first byte: an event of its own, and no `[DONE]`. What the other choices still do is
    /// cancelled.
    fn fail(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        self.exchange.failed(error);
        event(&String::from_utf8_lossy(&error.body()))
    }
}

impl Answer {
    /// One event with one choice.
    fn event(&self, index: usize, delta: &Delta<'_>) -> Bytes {
        let choice = indexed(index, self.shape.delta(delta));
        let mut chunk = self.envelope(self.shape.objects().1, vec![choice]);
        if self.params.include_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk.to_string())
    }

    /// The event that carries the usage and no choice.
    fn usage_event(&self, finish: &Finish) -> Bytes {
        let mut chunk = self.envelope(self.shape.objects().1, Vec::new());
        chunk["usage"] = usage(finish);
        event(&chunk.to_string())
    }
}

fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}
