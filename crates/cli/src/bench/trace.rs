//! Files of requests: one JSON object a line, in our own form or in that of the Mooncake traces.
//!
//! `{"at_ms", "prompt" | "messages", "max_tokens"}` says what to send;
//! `{"timestamp", "input_length", "output_length", "hash_ids"}` says how long it was, and by its
//! hash ids which 512-token blocks of it were equal to whose: such a prompt is made up so that equal
//! ids give equal text, and a server's prefix cache finds what it would have found.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// Tokens that one hash id stands for.
pub(super) const BLOCK_TOKENS: u32 = 512;
/// Longest line: the proxy takes no longer body either.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// All lines together; they are held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;
const ENTRIES_MAX: usize = 1_000_000;
/// Longest prompt that is made up: about as much text as the proxy takes in a body.
pub(super) const PROMPT_TOKENS_MAX: u32 = 2_000_000;
/// Latest time.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a file of requests is not one. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LongLine { line: usize },
    #[error("it holds more than {ENTRIES_MAX} requests or {FILE_BYTES_MAX} bytes")]
    TooMuch,
    #[error("there is no request in it")]
    Empty,
}

/// One request of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// When, from the first; `None` if the line does not say.
    pub(super) at: Option<Duration>,
    pub(super) prompt: Prompt,
    pub(super) max_tokens: Option<u32>,
}

/// What an entry asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    /// This text.
    Text(String),
    /// This conversation, as the API takes it.
    Messages(Value),
    /// Text to be made up: so many tokens, in blocks of these ids; without ids, like no other.
    Shape { tokens: u32, hash_ids: Vec<u64> },
}

/// A file's requests in the order of their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trace {
    pub(super) entries: Vec<Entry>,
    /// How many were longer than the context and were cut.
    pub(super) clipped: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(alias = "timestamp")]
    at_ms: Option<f64>,
    prompt: Option<String>,
    messages: Option<Value>,
    input_length: Option<u32>,
    hash_ids: Option<Vec<u64>>,
    #[serde(alias = "output_length")]
    max_tokens: Option<u32>,
}

impl Trace {
    /// Reads all of a file. Prompts given by their lengths are cut so that they and their answers, of
    /// `max_tokens` if the file does not say, fit into `context_max` tokens.
    pub(super) fn read(
        input: impl BufRead,
        max_tokens: u32,
        context_max: Option<u32>,
    ) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut input = input.take(FILE_BYTES_MAX);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            let read = input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
            match read as u64 {
                0 if input.limit() == 0 => return Err(TraceError::TooMuch),
                0 => break,
                LINE_BYTES_MAX => return Err(TraceError::LongLine { line: number }),
                _ if line.trim().is_empty() => continue,
                _ => {}
            }
            if trace.entries.len() == ENTRIES_MAX {
                return Err(TraceError::TooMuch);
            }
            let parsed = parse(&line).map_err(|reason| TraceError::Line { line: number, reason });
            let mut entry = parsed?;
            let is_clipped = context_max.is_some_and(|most| entry.clip(max_tokens, most));
            trace.clipped += u64::from(is_clipped);
            trace.entries.push(entry);
        }
        trace.in_order()
    }

    /// Sorted by time, the first at 0.
    fn in_order(mut self) -> Result<Self, TraceError> {
        self.entries.sort_by_key(|entry| entry.at);
        let first = self.entries.first().ok_or(TraceError::Empty)?.at.unwrap_or_default();
        for at in self.entries.iter_mut().filter_map(|entry| entry.at.as_mut()) {
            *at -= first;
        }
        Ok(self)
    }

    /// The number of entries without a time.
    pub(super) fn untimed(&self) -> usize {
        self.entries.iter().filter(|entry| entry.at.is_none()).count()
    }

    /// Whether some entries are conversations, which only the chat endpoint takes.
    pub(super) fn has_messages(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.prompt, Prompt::Messages(_)))
    }
}

impl Entry {
    /// Cuts a made-up prompt, and its answer to half of the context at most. Says whether it had to.
    fn clip(&mut self, max_tokens: u32, context_max: u32) -> bool {
        let Prompt::Shape { tokens, hash_ids } = &mut self.prompt else { return false };
        let output = self.max_tokens.unwrap_or(max_tokens);
        if tokens.saturating_add(output) <= context_max {
            return false;
        }
        let output = output.min(context_max / 2);
        self.max_tokens = Some(output);
        *tokens = (*tokens).min(context_max - output);
        hash_ids.truncate(blocks(*tokens));
        true
    }
}

/// How many blocks hold so many tokens.
fn blocks(tokens: u32) -> usize {
    tokens.div_ceil(BLOCK_TOKENS) as usize
}

fn parse(line: &str) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let at = line.at_ms.map(time).transpose()?;
    if line.max_tokens == Some(0) {
        return Err("max_tokens (or output_length) must be at least 1".to_owned());
    }
    let prompt = match (line.prompt, line.messages, line.input_length) {
        (Some(text), None, None) => Prompt::Text(text),
        (None, Some(messages @ Value::Array(_)), None) => Prompt::Messages(messages),
        (None, Some(_), None) => return Err("messages must be an array".to_owned()),
        (None, None, Some(tokens)) => shape(tokens, line.hash_ids.unwrap_or_default())?,
        _ => return Err("give one of prompt, messages and input_length".to_owned()),
    };
    Ok(Entry { at, prompt, max_tokens: line.max_tokens })
}

fn time(at_ms: f64) -> Result<Duration, String> {
    let at = Duration::try_from_secs_f64(at_ms / 1000.0).ok().filter(|at| *at <= TIME_MAX);
    at.ok_or_else(|| format!("{at_ms} ms is not a time between 0 and a year"))
}

fn shape(tokens: u32, hash_ids: Vec<u64>) -> Result<Prompt, String> {
    let (found, needed) = (hash_ids.len(), blocks(tokens));
    match found {
        _ if !(1..=PROMPT_TOKENS_MAX).contains(&tokens) => {
            Err(format!("input_length must be between 1 and {PROMPT_TOKENS_MAX}"))
        }
        0 => Ok(Prompt::Shape { tokens, hash_ids }),
        _ if found == needed => Ok(Prompt::Shape { tokens, hash_ids }),
        _ => Err(format!(
            "{tokens} tokens are {needed} blocks of {BLOCK_TOKENS}, but there are {found} hash_ids"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read(text.as_bytes(), 64, None)
    }

    fn shape_of(entry: &Entry) -> (u32, &[u64]) {
        match &entry.prompt {
            Prompt::Shape { tokens, hash_ids } => (*tokens, hash_ids),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_forms_are_read_sorted_and_begin_at_zero() {
        let trace = read(
            r#"{"timestamp": 5000, "input_length": 600, "output_length": 52, "hash_ids": [7, 9]}

               {"at_ms": 2000.5, "prompt": "Hi", "max_tokens": 3}
               {"at_ms": 3000, "messages": [{"role": "user", "content": "Hi"}]}"#,
        )
        .expect("a trace");
        let at: Vec<_> = trace.entries.iter().map(|entry| entry.at.expect("a time")).collect();
        assert_eq!(at, [0.0, 0.9995, 2.9995].map(Duration::from_secs_f64));
        assert_eq!(trace.entries[0].prompt, Prompt::Text("Hi".into()));
        assert_eq!(trace.entries[0].max_tokens, Some(3));
        assert_eq!(trace.entries[1].max_tokens, None);
        assert!(trace.has_messages());
        assert_eq!(shape_of(&trace.entries[2]), (600, &[7, 9][..]));
        assert_eq!((trace.untimed(), trace.clipped), (0, 0));
    }

    #[test]
    fn what_does_not_fit_the_context_is_cut_and_counted() {
        let lines = r#"{"input_length": 900, "output_length": 100, "hash_ids": [1, 2]}
                       {"input_length": 901, "output_length": 100, "hash_ids": [1, 2]}
                       {"input_length": 2000, "output_length": 800, "hash_ids": [1, 2, 3, 4]}
                       {"input_length": 100, "output_length": 1000, "hash_ids": [1]}
                       {"input_length": 950}"#;
        let trace = Trace::read(lines.as_bytes(), 64, Some(1000)).expect("a trace");
        let found: Vec<_> = trace
            .entries
            .iter()
            .map(|entry| (shape_of(entry).0, shape_of(entry).1.len(), entry.max_tokens))
            .collect();
        let wanted = [
            (900, 2, Some(100)),
            (900, 2, Some(100)),
            (500, 1, Some(500)),
            (100, 1, Some(500)),
            (936, 0, Some(64)),
        ];
        assert_eq!(found, wanted);
        assert_eq!(trace.clipped, 4);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, expected) in [
            ("", "no request"),
            ("\n\n", "no request"),
            ("{\"prompt\": \"a\"}\n{\"promt\": \"b\"}", "line 2: unknown field `promt`"),
            (r#"{"max_tokens": 3}"#, "line 1: give one of"),
            (r#"{"prompt": "a", "input_length": 3}"#, "line 1: give one of"),
            (r#"{"messages": "a"}"#, "must be an array"),
            (r#"{"prompt": "a", "max_tokens": 0}"#, "at least 1"),
            (r#"{"input_length": 0}"#, "between 1 and 2000000"),
            (r#"{"input_length": 2000001}"#, "between 1 and 2000000"),
            (r#"{"prompt": "a", "at_ms": -1}"#, "-1 ms is not a time"),
            (r#"{"prompt": "a", "at_ms": 1e300}"#, "is not a time"),
            (r#"{"input_length": 600, "hash_ids": [1]}"#, "600 tokens are 2 blocks of 512"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = io::BufReader::new(io::repeat(b' '));
        let error = Trace::read(endless, 64, None).expect_err("16 MiB of nothing");
        assert!(matches!(error, TraceError::LongLine { line: 1 }), "{error}");
    }
}
