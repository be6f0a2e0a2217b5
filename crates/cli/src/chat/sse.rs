//! Server-sent events (WHATWG HTML, §9.2.6), as much as the OpenAI API uses: the data of each event.

/// Longest line held while its end has not come.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Turns bytes, however they are cut, into events.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    data: Option<String>,
}

/// A line longer than any event of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a line of more than {LINE_BYTES_MAX} bytes")]
pub(super) struct TooLong;

impl Decoder {
    /// The data of every event that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") {
                events.extend(self.end_of_line());
            }
        }
        Ok(events)
    }

    /// An empty line ends an event; a data line adds to it; fields and comments we do not use pass.
    fn end_of_line(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return self.data.take();
        }
        if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:one\ndata: two\n\ndata: [DONE]\n\ndata: torn";

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut decoder = Decoder::default();
            let events: Vec<_> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| decoder.push(chunk).expect("short lines"))
                .collect();
            assert_eq!(events, ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"], "cut every {size} bytes");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(TooLong));
    }
}
