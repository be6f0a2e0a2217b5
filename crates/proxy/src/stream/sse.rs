//! Finding event boundaries (WHATWG HTML §9.2.6), pure.
//!
//! Events go on whole: when a backend dies in the middle of one, the client is told in an event of
//! its own, and the torn one never reached it.

use crate::upstream::CodecError;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

/// Longest event held back for its end, bytes: a thousand times a token with its alternatives.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// An event stream's no-op: parsers skip lines that begin with a colon.
pub(crate) const COMMENT: &[u8] = b":\n\n";

/// The answer is an event stream.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().split(|&byte| byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Cuts a stream after blank lines. Lines end in LF, CR LF or CR.
#[derive(Debug)]
pub(crate) struct EventSplitter {
    /// The begun event.
    held: BytesMut,
    at_line_start: bool,
    after_cr: bool,
}

impl Default for EventSplitter {
    fn default() -> Self {
        Self { held: BytesMut::new(), at_line_start: true, after_cr: false }
    }
}

impl EventSplitter {
    /// The events that `piece` completes, as one run of bytes that may be empty; the rest is held
    /// back.
    pub(crate) fn push(&mut self, mut piece: Bytes) -> Result<Bytes, CodecError> {
        let mut complete = piece.split_to(self.last_boundary(&piece).unwrap_or(0));
        if !self.held.is_empty() && !complete.is_empty() {
            self.held.extend_from_slice(&complete);
            complete = self.held.split().freeze();
        }
        self.hold(&piece)?;
        Ok(complete)
    }

    /// What is left where the stream ends in good order: an event without its blank line.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }

    fn hold(&mut self, begun: &[u8]) -> Result<(), CodecError> {
        if self.held.len() + begun.len() > EVENT_BYTES_MAX {
            return Err(CodecError::EventTooLong { limit: EVENT_BYTES_MAX });
        }
        self.held.extend_from_slice(begun);
        Ok(())
    }

    /// Just behind the last blank line in `piece`.
    fn last_boundary(&mut self, piece: &[u8]) -> Option<usize> {
        let mut boundary = None;
        for (index, &byte) in piece.iter().enumerate() {
            match byte {
                // The second half of a line break: it belongs to what the first half ended.
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    if boundary == Some(index) {
                        boundary = Some(index + 1);
                    }
                }
                b'\n' | b'\r' => {
                    if self.at_line_start {
                        boundary = Some(index + 1);
                    }
                    self.at_line_start = true;
                    self.after_cr = byte == b'\r';
                }
                _ => (self.at_line_start, self.after_cr) = (false, false),
            }
        }
        boundary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn push(splitter: &mut EventSplitter, piece: &'static str) -> Bytes {
        splitter.push(Bytes::from_static(piece.as_bytes())).expect("short")
    }

    #[test]
    fn whole_events_pass_and_begun_ones_wait() {
        let mut splitter = EventSplitter::default();
        assert_eq!(push(&mut splitter, "data: 1\n\ndata: 2\n\nda"), "data: 1\n\ndata: 2\n\n");
        assert_eq!(push(&mut splitter, "ta: 3\n"), "");
        assert_eq!(push(&mut splitter, "\n"), "data: 3\n\n");
        assert_eq!(push(&mut splitter, "data: [DONE]"), "");
        assert_eq!(splitter.finish(), "data: [DONE]");
    }

    #[test]
    fn every_line_ending_makes_a_blank_line() {
        for stream in ["a\r\n\r\n", "a\r\r", "a\n\n", "a\n\r\n", "a\r\n\n"] {
            let mut splitter = EventSplitter::default();
            assert_eq!(push(&mut splitter, stream), stream);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = EventSplitter::default();
        assert!(splitter.push(vec![b'x'; EVENT_BYTES_MAX].into()).is_ok());
        assert!(splitter.push(Bytes::from_static(b"x")).is_err());
    }

    #[test]
    fn the_media_type_decides() {
        let mut headers = HeaderMap::new();
        for (value, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; charset=utf-8", true),
            ("text/event-streams", false),
            ("application/json", false),
        ] {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_event_stream(&headers), expected, "{value}");
        }
    }

    /// With every line ending as LF.
    fn normal(stream: &str) -> String {
        stream.replace("\r\n", "\n").replace('\r', "\n")
    }

    proptest! {
        #[test]
        fn whole_events_and_nothing_else_pass_at_once(
            pieces in proptest::collection::vec("[ab\r\n]{1,6}", 1..40),
        ) {
            let mut splitter = EventSplitter::default();
            let (mut seen, mut out) = (String::new(), String::new());
            for piece in &pieces {
                seen.push_str(piece);
                let events = splitter.push(Bytes::from(piece.clone())).expect("short");
                out.push_str(std::str::from_utf8(&events).expect("ASCII"));
                prop_assert!(["", "\n"].contains(&normal(&out).as_str()) || normal(&out).ends_with("\n\n"));
                let held = seen.strip_prefix(out.as_str()).expect("nothing lost, nothing moved");
                // A line break may have been cut in two.
                let held = held.strip_prefix('\n').filter(|_| out.ends_with('\r')).unwrap_or(held);
                prop_assert!(!normal(held).starts_with('\n') && !normal(held).contains("\n\n"));
            }
            prop_assert_eq!(out + std::str::from_utf8(&splitter.finish()).expect("ASCII"), seen);
        }
    }
}
