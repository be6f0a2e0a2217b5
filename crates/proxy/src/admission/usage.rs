//! How many tokens an answer took, read from it as it passes, pure.
//!
//! Engines tell it in `usage`, at or near the end of an answer, and of a stream only where it was asked for. Where
//! nobody tells, an event of a stream counts as a token, and so do four bytes of any other answer.

use crate::route::Route;
use memchr::memmem;
use serde::Deserialize;

/// How much of an answer's end may hold its `usage`: what engines of others put behind it is short.
const TAIL_BYTES: usize = 4 * 1024;
/// The field, as no string of JSON can contain it: there the quotes would be escaped.
const FIELD: &[u8] = b"\"usage\":";
/// Bytes of text that are one token, roughly.
const TOKEN_BYTES: u64 = 4;

/// Watches one answer.
#[derive(Debug, Default)]
pub(crate) struct UsageReader {
    /// The end of an answer that is no stream.
    tail: Vec<u8>,
    bytes: u64,
    events: u64,
    told: Option<u64>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: u64,
}

impl UsageReader {
    /// Events of a stream passed, whole ones.
    pub(crate) fn events(&mut self, events: &[u8]) {
        if !events.is_empty() {
            self.events += 1;
            self.told = total(events).or(self.told);
        }
    }

    /// A piece of another answer passed.
    pub(crate) fn piece(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let last = &piece[piece.len().saturating_sub(TAIL_BYTES)..];
        let over = (self.tail.len() + last.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend_from_slice(last);
    }

    /// Tokens of an answer of `route` and of its prompt, which has about `prompt`.
    pub(crate) fn total(&self, prompt: u64, route: Route) -> u64 {
        let answer = if route.generates() { self.guess() } else { 0 };
        self.told().unwrap_or(prompt + answer)
    }

    /// Tokens of prompt and answer, if the answer told them.
    fn told(&self) -> Option<u64> {
        self.told.or_else(|| total(&self.tail))
    }

    /// Tokens of the answer as far as it passed, roughly, if it is text.
    fn guess(&self) -> u64 {
        self.events + self.bytes / TOKEN_BYTES
    }
}

/// `total_tokens` of the last `usage` in `text`; many a stream has one in each event, which is null until the last.
fn total(text: &[u8]) -> Option<u64> {
    let at = memmem::rfind(text, FIELD)?;
    let mut values =
        serde_json::Deserializer::from_slice(&text[at + FIELD.len()..]).into_iter::<Usage>();
    values.next()?.ok().map(|usage| usage.total_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWER: &str = r#"{"choices":[{"message":{"content":"\"usage\":{\"total_tokens\":1}"}}],"usage": {"prompt_tokens":5,"completion_tokens":2,"total_tokens":7},"timings":{"ms":1}}"#;

    #[test]
    fn a_stream_tells_it_or_its_events_are_counted() {
        let mut reader = UsageReader::default();
        reader.events(b"data: {\"choices\":[],\"usage\":null}\n\n");
        reader.events(b"");
        reader.events(b"data: {\"choices\":[],\"usage\":null}\n\n");
        assert_eq!((reader.told(), reader.guess()), (None, 2));
        reader.events(b"data: {\"usage\":{\"total_tokens\":31,\"x\":{}}}\n\ndata: [DONE]\n\n");
        reader.events(b"data: {\"usage\":null}\n\n");
        assert_eq!(reader.told(), Some(31));
    }

    #[test]
    fn what_an_answer_does_not_tell_is_guessed_by_its_length() {
        let mut reader = UsageReader::default();
        assert_eq!((reader.told(), reader.guess()), (None, 0));
        reader.piece(&[b'x'; 8_000]);
        assert_eq!((reader.told(), reader.guess()), (None, 2_000));
        assert_eq!(reader.total(5, Route::Chat), 2_005);
        assert_eq!(reader.total(5, Route::Embeddings), 5, "vectors are no text");
        let mut reader = UsageReader::default();
        reader.piece(br#"{"usage":{"total_tokens":"many"}}"#);
        assert_eq!((reader.told(), reader.guess()), (None, 8));
    }

    proptest! {
        #[test]
        fn an_answer_tells_it_in_whatever_pieces_it_comes(
            cuts in prop::collection::vec(0..ANSWER.len(), 0..8),
            before in 0usize..10_000,
        ) {
            let answer = [vec![b' '; before], ANSWER.into()].concat();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut + before).collect();
            cuts.sort_unstable();
            let (mut reader, mut from) = (UsageReader::default(), 0);
            for cut in cuts.into_iter().chain([answer.len()]) {
                reader.piece(&answer[from..cut]);
                from = cut;
            }
            prop_assert_eq!(reader.told(), Some(7));
            prop_assert!(reader.tail.len() <= TAIL_BYTES);
        }
    }
}
