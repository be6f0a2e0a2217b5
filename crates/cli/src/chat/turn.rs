//! One answer, from the first event to the last or to Ctrl-C.

use std::io;
use std::time::Instant;

use crate::api::{ApiClient, ApiError};

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    /// There is no answer, or only a part of one.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The terminal or file we write to.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The model was done.
    Complete,
    /// The user was.
    Interrupted,
}

/// An answer that has been shown.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) text: String,
    pub(crate) end: End,
    /// As the server counts; until it does, the number of events.
    tokens: u64,
    asked: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Turn {
    fn begun(asked: Instant) -> Self {
        Self { text: String::new(), end: End::Complete, tokens: 0, asked, first: None, last: asked }
    }

    fn heard(&mut self, text: &str) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        self.tokens += 1;
        self.text.push_str(text);
    }

    /// `42 tokens, 81.3 tokens/s, first after 120 ms`; the speed is that of decoding, without the
    /// wait for the first token.
    pub(crate) fn summary(&self) -> String {
        let stopped = if self.end == End::Interrupted { ", stopped" } else { "" };
        let Some(first) = self.first else { return format!("no tokens{stopped}") };
        let ttft_ms = (first - self.asked).as_millis();
        let seconds = (self.last - first).as_secs_f64();
        let speed = match self.tokens {
            2.. if seconds > 0.0 => format!(", {:.1} tokens/s", (self.tokens - 1) as f64 / seconds),
            _ => String::new(),
        };
        format!("{} tokens{speed}, first after {ttft_ms} ms{stopped}", self.tokens)
    }
}

/// Asks, and hands each piece of text to `show` as it comes. Ctrl-C ends the answer, not the
/// program: the connection is dropped, which is how the server learns of it.
pub(super) async fn take(
    client: &ApiClient,
    request: &serde_json::Value,
    show: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Turn, ChatError> {
    let mut turn = Turn::begun(Instant::now());
    let heard = tokio::select! {
        heard = listen(client, request, &mut turn, show) => Some(heard),
        _ = tokio::signal::ctrl_c() => None,
    };
    match heard {
        Some(outcome) => outcome?,
        None => turn.end = End::Interrupted,
    }
    Ok(turn)
}

async fn listen(
    client: &ApiClient,
    request: &serde_json::Value,
    turn: &mut Turn,
    show: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), ChatError> {
    let mut answer = client.chat(request).await?;
    while let Some(chunk) = answer.next().await? {
        let texts = chunk.choices.into_iter().filter_map(|choice| choice.delta.content);
        for text in texts.filter(|text| !text.is_empty()) {
            turn.heard(&text);
            show(&text)?;
        }
        if let Some(usage) = chunk.usage {
            turn.tokens = usage.completion_tokens;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_speed_leaves_the_first_token_out() {
        let asked = Instant::now();
        let first = asked + Duration::from_millis(120);
        let mut turn = Turn::begun(asked);
        assert_eq!(turn.summary(), "no tokens");
        (turn.tokens, turn.first, turn.last) = (11, Some(first), first + Duration::from_secs(2));
        assert_eq!(turn.summary(), "11 tokens, 5.0 tokens/s, first after 120 ms");
        (turn.tokens, turn.last, turn.end) = (1, first, End::Interrupted);
        assert_eq!(turn.summary(), "1 tokens, first after 120 ms, stopped");
    }
}
