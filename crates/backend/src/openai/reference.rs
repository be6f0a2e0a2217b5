//! The page `docs/api.md`: its prose is in `reference.md`, its tables of fields are made from the limits in
//! the code. A test holds the tables against the names that each route reads.

use super::{
    chat::{MESSAGES_MAX, TOP_LOGPROBS_MAX},
    completions::{LOGPROBS_MAX, MAX_TOKENS_DEFAULT},
    fields::WITHOUT_EFFECT,
    params::{CHOICES_MAX, STOPS_MAX, TEMPERATURE_MAX},
    tokenize::TOKENS_MAX,
};
use inferno_engine::{
    CHOICES_MAX as STRINGS_MAX, GRAMMAR_DEPTH_MAX, LARK_BYTES_MAX, LOGIT_BIAS_MAX, REGEX_BYTES_MAX,
    SCHEMA_BYTES_MAX, STOP_BYTES_MAX, STOP_TOKENS_MAX,
};
use std::fmt::Write as _;

/// One field of one route: its name, what it may hold, its default, and what it does.
type Row = (&'static str, String, &'static str, String);

/// The page.
#[must_use]
pub fn page() -> String {
    let grammar = format!(
        "a schema of {SCHEMA_BYTES_MAX} bytes, a grammar of {LARK_BYTES_MAX}, a regular expression or all patterns of a \
         schema of {REGEX_BYTES_MAX}; brackets nested {GRAMMAR_DEPTH_MAX} deep; `multipleOf` up to 1000, not counting \
         decimal places"
    );
    include_str!("reference.md")
        .replace("{{common}}", &table(&common()))
        .replace("{{chat}}", &table(&chat()))
        .replace("{{completions}}", &table(&completions()))
        .replace("{{tokenize}}", &table(&tokenize()))
        .replace("{{detokenize}}", &table(&detokenize()))
        .replace("{{without effect}}", &names(WITHOUT_EFFECT))
        .replace("{{unsupported}}", &names(&unsupported()))
        .replace("{{grammar limits}}", &grammar)
}

fn row(name: &'static str, holds: impl Into<String>, default: &'static str, does: &str) -> Row {
    (name, holds.into(), default, does.into())
}

/// What chat and text completions have in common.
fn common() -> Vec<Row> {
    let mut rows = vec![
        row(
            "model",
            "a name of `GET /v1/models`",
            "required",
            "404 `model_not_found` if nobody serves it",
        ),
        row(
            "n",
            format!("1–{CHOICES_MAX}, over all prompts together"),
            "1",
            "choices for each prompt; `index` counts those of the first prompt, then of the next",
        ),
        row(
            "stream",
            "boolean",
            "false",
            "server-sent events, one for each token that releases text, then `[DONE]`; choices come interleaved",
        ),
        row(
            "stream_options",
            "`{\"include_usage\": boolean}`",
            "none",
            "a last event with the usage; only with `stream`",
        ),
        row(
            "seed",
            "a 64-bit integer",
            "minted",
            "the random key; the answer's `seed` tells the one in use",
        ),
    ];
    rows.extend(sampling());
    rows.extend(ends());
    rows.extend(structure());
    rows
}

fn sampling() -> Vec<Row> {
    vec![
        row(
            "temperature",
            format!("0–{TEMPERATURE_MAX}"),
            "1",
            "0 takes the likeliest token, the lowest id of equals",
        ),
        row(
            "top_p",
            "0–1",
            "1",
            "draw among the likeliest tokens that hold this share of what `top_k` leaves",
        ),
        row("top_k", "-1, 0 or more", "0", "draw among so many likeliest tokens; 0 and -1: all"),
        row(
            "min_p",
            "0–1",
            "0",
            "draw among tokens at least so likely, as a share of the likeliest",
        ),
        row(
            "presence_penalty",
            "-2–2",
            "0",
            "subtracted from the logit of each token generated before",
        ),
        row("frequency_penalty", "-2–2", "0", "subtracted once for each time it was generated"),
        row(
            "repetition_penalty",
            "0.01–100",
            "1",
            "divides positive and multiplies negative logits of tokens in prompt and answer",
        ),
        row(
            "logit_bias",
            format!("`{{\"TOKEN_ID\": -100…100}}`, at most {LOGIT_BIAS_MAX}"),
            "none",
            "added to the logits of these tokens",
        ),
    ]
}

fn ends() -> Vec<Row> {
    vec![
        row(
            "stop",
            format!("a string or up to {STOPS_MAX}, each of 1–{STOP_BYTES_MAX} bytes"),
            "none",
            "ends the answer, before it; of several the one completed first",
        ),
        row(
            "include_stop_str_in_output",
            "boolean",
            "false",
            "the stop string is part of the answer",
        ),
        row(
            "stop_token_ids",
            format!("up to {STOP_TOKENS_MAX} token ids"),
            "none",
            "end the answer as the end of the sequence does",
        ),
        row(
            "ignore_eos",
            "boolean",
            "false",
            "go on after the end of the sequence; not with a grammar",
        ),
        row(
            "min_tokens",
            "0 to the most that may come",
            "0",
            "no end of the sequence before so many tokens; not with a grammar",
        ),
    ]
}

fn structure() -> Vec<Row> {
    vec![
        row(
            "response_format",
            "`{\"type\": \"text\"}`, `{\"type\": \"json_object\"}` or `{\"type\": \"json_schema\", \"json_schema\": {\"name\", \"schema\", \"description\", \"strict\"}}`",
            "text",
            "see below; strict whatever `strict` says",
        ),
        row("guided_json", "a JSON schema, or one in a string", "none", "as `response_format`"),
        row("guided_regex", "a regular expression", "none", "the whole answer matches it"),
        row(
            "guided_choice",
            format!("1–{STRINGS_MAX} strings"),
            "none",
            "the answer is one of them",
        ),
        row("guided_grammar", "a Lark grammar", "none", "the answer is a sentence of it"),
        row(
            "structured_outputs",
            "`{\"json\"`, `\"regex\"`, `\"choice\"`, `\"grammar\"` or `\"json_object\": …}`",
            "none",
            "the same four, as newer clients of vLLM write them",
        ),
    ]
}

fn chat() -> Vec<Row> {
    vec![
        row(
            "messages",
            format!("1–{MESSAGES_MAX} of `{{\"role\", \"content\", \"name\"}}`"),
            "required",
            "`role` system, developer, user or assistant; `content` a string or an array of text parts",
        ),
        row(
            "max_completion_tokens",
            "1 to what the context leaves",
            "all that it leaves",
            "over the context: 400 `context_length_exceeded`",
        ),
        row("max_tokens", "the same", "the same", "the older name; both must agree"),
        row("logprobs", "boolean", "false", "each token's log-probability"),
        row(
            "top_logprobs",
            format!("0–{TOP_LOGPROBS_MAX}"),
            "0",
            "with so many likeliest alternatives; only with `logprobs`",
        ),
    ]
}

fn completions() -> Vec<Row> {
    vec![
        row(
            "prompt",
            format!("a string, an array of token ids, or an array of up to {CHOICES_MAX} of these"),
            "required",
            "special tokens in a string count as such",
        ),
        row(
            "max_tokens",
            "1 to what the context leaves, 0 with `echo`",
            const_default(),
            "over the context: 400 `context_length_exceeded`",
        ),
        row(
            "logprobs",
            format!("0–{LOGPROBS_MAX}"),
            "none",
            "each token's log-probability, with so many likeliest alternatives",
        ),
        row(
            "echo",
            "boolean",
            "false",
            "each choice begins with its prompt, and `logprobs` with the prompt's, the first of which is null",
        ),
        row(
            "best_of",
            "the same as `n`",
            "`n`",
            "anything else is refused: nothing is generated that is not returned",
        ),
    ]
}

/// In the page as a number; a test holds it against the code.
const fn const_default() -> &'static str {
    assert!(MAX_TOKENS_DEFAULT == 16, "the page says 16");
    "16"
}

fn tokenize() -> Vec<Row> {
    vec![
        row("model", "a name of `GET /v1/models`", "required", ""),
        row("prompt", "a string", "this or `messages`", "as `/v1/completions` reads it"),
        row("messages", "as in chat", "this or `prompt`", "in the model's chat template"),
        row(
            "add_special_tokens",
            "boolean",
            "true",
            "with `prompt`: the token that the tokenizer puts in front, where it does",
        ),
        row(
            "add_generation_prompt",
            "boolean",
            "true",
            "with `messages`: end with the beginning of the assistant's turn",
        ),
        row("return_token_strs", "boolean", "false", "the text of each token in `token_strs`"),
    ]
}

fn detokenize() -> Vec<Row> {
    vec![
        row("model", "a name of `GET /v1/models`", "required", ""),
        row(
            "tokens",
            format!("up to {TOKENS_MAX} token ids"),
            "required",
            "special tokens are spelled out, broken characters become U+FFFD",
        ),
    ]
}

/// What is understood and refused when it asks for something.
fn unsupported() -> Vec<&'static str> {
    vec![
        "tools",
        "tool_choice",
        "functions",
        "parallel_tool_calls",
        "modalities",
        "store",
        "bad_words",
        "suffix",
    ]
}

fn names(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from("| field | holds | default | what |\n|---|---|---|---|\n");
    for (name, holds, default, does) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{name}` | {holds} | {default} | {does} |");
    }
    table.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{chat as chat_route, completions as text_route, fields::Fields, tokenize};
    use std::collections::BTreeSet;

    fn names_of(tables: &[Vec<Row>]) -> BTreeSet<&'static str> {
        tables.iter().flatten().map(|(name, ..)| *name).collect()
    }

    fn known(body: &str, read: impl Fn(&mut Fields)) -> BTreeSet<&'static str> {
        let mut fields = Fields::parse(body.as_bytes()).expect("an object");
        read(&mut fields);
        fields.known().iter().copied().collect()
    }

    #[test]
    fn the_page_lists_every_field_that_is_read_and_no_other() {
        let refused: BTreeSet<&str> = unsupported().into_iter().collect();
        let chat_fields = known(r#"{"model":"m","messages":[]}"#, |fields| {
            assert!(chat_route::read(fields).is_ok());
        });
        let listed = &names_of(&[common(), chat()]) | &refused;
        assert_eq!(&chat_fields | &refused, listed);
        let text_fields = known(r#"{"model":"m","prompt":""}"#, |fields| {
            assert!(text_route::read(fields).is_ok());
        });
        assert_eq!(text_fields, &names_of(&[common(), completions()]) | &refused);
        let tokenize_fields = known(r#"{"model":"m"}"#, |fields| {
            assert!(tokenize::read(fields).is_ok());
        });
        assert_eq!(tokenize_fields, names_of(&[super::tokenize()]));
        let detokenize_fields = known(r#"{"model":"m","tokens":[]}"#, |fields| {
            assert!(tokenize::read_tokens(fields).is_ok());
        });
        assert_eq!(detokenize_fields, names_of(&[detokenize()]));
    }

    #[test]
    fn the_page_in_docs_is_this_one() {
        let written = include_str!("../../../../docs/api.md");
        assert!(written == page(), "run: inferno docs api > docs/api.md");
        assert!(!written.contains("{{"), "a table is missing");
    }
}
