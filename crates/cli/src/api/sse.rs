//! Server-sent events (WHATWG HTML, §9.2.6), as much as the OpenAI API uses: the data of each event.

use super::ApiError;

/// Longest line or event held while its end has not come.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Turns bytes, however they are cut, into events.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// What came and was not looked at yet, from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    /// The data lines of the event under way.
    data: Option<String>,
}

impl Decoder {
    /// Takes bytes in. They are looked at by [`Self::next_event`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The data of the next event that is complete. To be asked until it is `None` before the next
    /// [`Self::push`]: what is held then is part of one event, and bounded.
    pub(super) fn next_event(&mut self) -> Result<Option<String>, ApiError> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else if let Some(value) = line.strip_prefix("data:") {
                self.add(value.strip_prefix(' ').unwrap_or(value))?;
            }
        }
        let rest = self.buffer.len() - self.taken;
        if rest > EVENT_BYTES_MAX { Err(too_large("a line")) } else { Ok(None) }
    }

    /// The next whole line, without its end. Fields and comments that we do not use pass.
    fn next_line(&mut self) -> Option<String> {
        let rest = &self.buffer[self.taken..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&rest[..end]).trim_end_matches('\r').to_owned();
        self.taken += end + 1;
        Some(line)
    }

    fn add(&mut self, value: &str) -> Result<(), ApiError> {
        let data = match &mut self.data {
            Some(data) => {
                data.push('\n');
                data
            }
            None => self.data.insert(String::new()),
        };
        data.push_str(value);
        if data.len() > EVENT_BYTES_MAX { Err(too_large("an event")) } else { Ok(()) }
    }
}

fn too_large(what: &'static str) -> ApiError {
    ApiError::TooLarge { what, limit_bytes: EVENT_BYTES_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:one\ndata: two\n\ndata: [DONE]\n\ndata: torn";

    fn events(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<String>, ApiError> {
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next_event().transpose()).collect()
    }

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut decoder = Decoder::default();
            let heard: Vec<_> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| events(&mut decoder, chunk).expect("short lines"))
                .collect();
            assert_eq!(heard, ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"], "cut every {size} bytes");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut decoder = Decoder::default();
        let mut outcome = Ok(Vec::new());
        for _ in 0..=EVENT_BYTES_MAX / 1024 {
            outcome = events(&mut decoder, &[b'x'; 1024]);
        }
        assert!(matches!(outcome, Err(ApiError::TooLarge { what: "a line", .. })), "{outcome:?}");
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = Decoder::default();
        let line = format!("data: {}\n", "x".repeat(1023));
        let mut pushed = 0;
        let outcome = loop {
            pushed += 1;
            assert!(pushed < 2 * EVENT_BYTES_MAX / 1024, "it is held for ever");
            let outcome = events(&mut decoder, line.as_bytes());
            if outcome.is_err() {
                break outcome;
            }
        };
        assert!(matches!(outcome, Err(ApiError::TooLarge { what: "an event", .. })), "{outcome:?}");
    }
}
