//! What a grammar's source may cost, judged before anything reads it: the library's own limits count effort too
//! coarsely to end in time on what was written to be slow.

use super::{GrammarError, GrammarSource};
use serde_json::Value;
use std::collections::HashMap;

/// Longest JSON schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Longest Lark grammar, in bytes. What regular expressions cost grows with the square of their length.
pub const LARK_BYTES_MAX: usize = 8 << 10;
/// Longest regular expression, and all patterns of a schema together, in bytes.
pub const REGEX_BYTES_MAX: usize = 4 << 10;
/// How deep brackets may nest in a regular expression or a Lark grammar: what reads them calls itself at each.
pub const GRAMMAR_DEPTH_MAX: usize = 64;
/// Most strings to choose from.
pub const CHOICES_MAX: usize = 1024;
/// Largest number that `multipleOf` may have in a schema, without its decimal point: the automaton that counts
/// remainders has as many states.
pub(super) const MULTIPLE_MAX: f64 = 1_000.0;

/// Refuses what is too long, too deep or known to be slow.
pub(super) fn check(source: &GrammarSource) -> Result<(), GrammarError> {
    match source {
        GrammarSource::JsonObject => Ok(()),
        GrammarSource::JsonSchema(value) => {
            sized("the schema", value.to_string().len(), SCHEMA_BYTES_MAX)?;
            countable(value)?;
            sized("all patterns together", pattern_bytes(value), REGEX_BYTES_MAX)
        }
        GrammarSource::Regex(regex) => {
            sized("the regular expression", regex.len(), REGEX_BYTES_MAX)?;
            shallow(regex)
        }
        GrammarSource::Choice(choices) => {
            let bytes = choices.iter().map(String::len).sum();
            sized("the list of choices", bytes, SCHEMA_BYTES_MAX)?;
            let fine = (1..=CHOICES_MAX).contains(&choices.len());
            if fine && choices.iter().all(|choice| !choice.is_empty()) {
                Ok(())
            } else {
                Err(GrammarError::Choices)
            }
        }
        GrammarSource::Lark(lark) => {
            sized("the grammar", lark.len(), LARK_BYTES_MAX)?;
            shallow(lark)?;
            sized("a terminal, written out,", largest_terminal(lark), LARK_BYTES_MAX)
        }
    }
}

fn sized(what: &'static str, bytes: usize, limit: usize) -> Result<(), GrammarError> {
    if bytes > limit { Err(GrammarError::TooLong { what, bytes, limit }) } else { Ok(()) }
}

/// Bytes of the regular expressions in a schema: each `pattern`, and the names in `patternProperties`.
fn pattern_bytes(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(pattern_bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let own = match (name.as_str(), value) {
                    ("pattern", Value::String(pattern)) => pattern.len(),
                    ("patternProperties", Value::Object(patterns)) => {
                        patterns.keys().map(String::len).sum()
                    }
                    _ => 0,
                };
                own + pattern_bytes(value)
            })
            .sum(),
        _ => 0,
    }
}

/// Counts brackets wherever they stand, in strings too: a grammar that needs 64 of those is not written by hand.
fn shallow(text: &str) -> Result<(), GrammarError> {
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > GRAMMAR_DEPTH_MAX {
            return Err(GrammarError::TooDeep);
        }
    }
    Ok(())
}

/// Whether each `multipleOf`, wherever it stands, is small enough.
fn countable(value: &Value) -> Result<(), GrammarError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(countable),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let number = value.as_f64().filter(|_| name == "multipleOf");
            match number.map(without_point) {
                Some(number) if number > MULTIPLE_MAX => Err(GrammarError::Multiple),
                _ => countable(value),
            }
        }),
        _ => Ok(()),
    }
}

/// A number's digits without the point: 25 for 0.25.
fn without_point(number: f64) -> f64 {
    let mut digits = number.abs();
    for _ in 0..16 {
        if digits.fract() == 0.0 {
            break;
        }
        digits *= 10.0;
    }
    digits
}

/// Bytes of the largest terminal of a Lark grammar once those that it names stand in their places: a terminal becomes
/// one regular expression, and twenty that each name the next one twice become one of a million parts.
fn largest_terminal(lark: &str) -> usize {
    let mut terminals: HashMap<&str, String> = HashMap::new();
    let mut current = None;
    for line in lark.lines() {
        let head = line.split_once(':').map(|(head, _)| head.trim());
        let name = head.and_then(|head| words(head).next());
        if let (Some(name), false) = (name, line.trim_start().starts_with(['|', '"', '/'])) {
            current = Some(name);
        }
        if let Some(name) = current.filter(|name| is_terminal(name)) {
            terminals.entry(name).or_default().push_str(line);
        }
    }
    let mut sizes = HashMap::new();
    let names: Vec<&str> = terminals.keys().copied().collect();
    names.into_iter().map(|name| written_out(name, &terminals, &mut sizes)).max().unwrap_or(0)
}

/// Bytes of a terminal with all that it names; a cycle, which the library refuses, counts once.
fn written_out<'l>(
    name: &'l str,
    terminals: &'l HashMap<&str, String>,
    sizes: &mut HashMap<&'l str, usize>,
) -> usize {
    if let Some(size) = sizes.get(name) {
        return *size;
    }
    let Some(body) = terminals.get(name) else { return 0 };
    sizes.insert(name, body.len());
    let named = words(body).skip(1).filter(|word| is_terminal(word));
    let size = named
        .fold(body.len(), |size, word| size.saturating_add(written_out(word, terminals, sizes)));
    sizes.insert(name, size);
    size
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let apart = |character: char| !character.is_alphanumeric() && character != '_';
    text.split(apart).filter(|word| !word.is_empty())
}

fn is_terminal(word: &str) -> bool {
    word.trim_start_matches('_').starts_with(|first: char| first.is_uppercase())
}
