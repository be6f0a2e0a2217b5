//! Structured output: answers that are sentences of a grammar, by llguidance.
//!
//! A [`GrammarSource`] (JSON schema, regular expression, list of choices, Lark grammar) is compiled on the thread
//! that submits the request, within limits of size and effort. On the engine's thread a [`Grammar`] then says before
//! each draw which tokens may come next. No token is put in unasked: what a grammar forces is drawn as the only one
//! allowed, so that a draw stays a function of logits, parameters, key and position.
//!
//! The tokenizer's tokens as a tree, which all grammars of a model share, are made when the first one is compiled:
//! some 25 bytes a byte of vocabulary, 9 MB for 49,152 tokens.

mod limits;

use crate::error::panic_message;
use crate::tokenizer::Tokenizer;
use limits::check;
pub use limits::{
    CHOICES_MAX, GRAMMAR_DEPTH_MAX, LARK_BYTES_MAX, REGEX_BYTES_MAX, SCHEMA_BYTES_MAX,
};
use llguidance::api::{GrammarInit, ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

/// White space between two parts of a JSON text: room to indent, and an end, for a model can go on for ever.
const JSON_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,40}";
/// Longest reason that is told of a refused grammar, in characters.
const REASON_MAX: usize = 400;
/// The stack of a compilation: a grammar of as many rules as fit its limit, each within another, needs a
/// quarter of it. Only what is used takes memory.
const COMPILE_STACK_BYTES: usize = 256 << 20;
/// Longest token that can be part of structured output, in bytes: the tree of tokens counts depths in one.
const TOKEN_BYTES_MAX: usize = 200;

/// What an answer is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// A JSON text of this schema.
    JsonSchema(Value),
    /// A text that this regular expression (Rust's syntax) matches as a whole.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// A sentence of this grammar, in llguidance's variant of Lark.
    Lark(String),
}

/// Why a grammar was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum GrammarError {
    /// It is longer than may be.
    #[error("{what} has {bytes} bytes; at most {limit} are read")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Its brackets nest too deep.
    #[error("brackets nest more than {GRAMMAR_DEPTH_MAX} deep")]
    TooDeep,
    /// A `multipleOf` that would need too many states.
    #[error("`multipleOf` may be at most {}, not counting decimal places", limits::MULTIPLE_MAX)]
    Multiple,
    /// No choices, too many, or an empty one.
    #[error("a choice is among 1 to {CHOICES_MAX} strings, none of them empty")]
    Choices,
    /// It is wrong, unsupported, or costs more effort than is spent on one. For the client alone: the reason may
    /// quote the grammar.
    #[error("{0}")]
    Invalid(String),
}

/// Why a running grammar came to no end of its own. The words are ours: they go to the log.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("structured output failed: {0}")]
pub(crate) struct GrammarFailure(&'static str);

/// What compiles the grammars of one model, one at a time: whatever a source costs, it costs one thread.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
    compiling: Mutex<()>,
}

impl Grammars {
    /// Compiles a source. Takes its time: not on the engine's thread.
    pub(crate) fn compile(
        &self,
        source: &GrammarSource,
        tokenizer: &Tokenizer,
    ) -> Result<Grammar, GrammarError> {
        let text = source.text()?;
        let _one = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || {
            let factory = self.factory.get_or_init(|| factory(tokenizer));
            compile(factory.as_ref().map_err(Clone::clone)?, text)
        };
        // What reads a grammar calls itself for each rule within a rule.
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("grammar".into());
            let compiling = builder.stack_size(COMPILE_STACK_BYTES).spawn_scoped(scope, compile);
            let compiling = compiling.map_err(|error| invalid(&error.to_string()))?;
            compiling.join().unwrap_or_else(|panic| Err(invalid(&panic_message(panic.as_ref()))))
        })
    }
}

fn compile(factory: &ParserFactory, text: TopLevelGrammar) -> Result<Grammar, GrammarError> {
    let parser = factory.create_parser_from_init(GrammarInit::Serialized(text), 0, 0);
    let matcher = Matcher::new(Ok(parser.map_err(|error| invalid(&format!("{error:#}")))?));
    if let Some(error) = matcher.get_error() {
        return Err(invalid(&error));
    }
    let mut grammar = Grammar { matcher };
    // The first mask shows what only a mask can: a grammar without any sentence, or one too complex.
    grammar.mask().map_err(|failure| invalid(failure.0))?;
    Ok(grammar)
}

impl GrammarSource {
    /// In llguidance's own form, after the checks that it does not make.
    fn text(&self) -> Result<TopLevelGrammar, GrammarError> {
        check(self)?;
        Ok(match self {
            Self::JsonObject => schema(json!({ "type": "object" })),
            Self::JsonSchema(value) => schema(value.clone()),
            Self::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Self::Choice(choices) => {
                let quoted: Vec<String> =
                    choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
                // As one terminal, for the parser follows each alternative of a rule.
                TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")))
            }
            Self::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        })
    }
}

/// A schema, with our limit of white space unless it has options of its own.
fn schema(mut schema: Value) -> TopLevelGrammar {
    if let Value::Object(fields) = &mut schema {
        let options = fields.entry("x-guidance").or_insert_with(|| json!({}));
        if let Value::Object(options) = options
            && !options.contains_key("whitespace_flexible")
        {
            options.entry("whitespace_pattern").or_insert_with(|| JSON_SPACE.into());
        }
    }
    TopLevelGrammar::from_json_schema(schema)
}

fn invalid(reason: &str) -> GrammarError {
    GrammarError::Invalid(reason.chars().take(REASON_MAX).collect())
}

fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, GrammarError> {
    let tokens: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32)
        .map(|id| match tokenizer.visible_bytes(id) {
            // A token without text: known by its name behind a byte that no text has.
            [] => [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.bytes(id)].concat(),
            bytes => bytes.to_vec(),
        })
        .map(|bytes| if bytes.len() > TOKEN_BYTES_MAX { Vec::new() } else { bytes })
        .collect();
    let ends = tokenizer.eos();
    let first = *ends.first().ok_or_else(|| invalid("this model has no end-of-sequence token"))?;
    let trie = TokTrie::from(&TokRxInfo::new(tokens.len() as u32, first), &tokens);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(ends)));
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let capabilities = InferenceCapabilities::default();
    let mut factory = ParserFactory::new(&environment, capabilities, &slices)
        .map_err(|error| invalid(&error.to_string()))?;
    factory.quiet();
    // At the library's own rates the states of one grammar take at most 32 MB. Its effort is bounded by the
    // lengths above: what was found to be worst compiles in a second and takes some 20 ms for a mask.
    *factory.limits_mut() = ParserLimits {
        // An ambiguous grammar costs the cube of this.
        max_items_in_row: 500,
        max_lexer_states: 16_384,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

/// A grammar and how far an answer has come in it. Clones begin where the original is and share what it has
/// worked out.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// The tokens that may come next: at least one.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, GrammarFailure> {
        self.matcher.compute_mask().map_err(|_| self.failure())
    }

    /// Takes the token that came. True when the answer is a whole sentence that nothing can lengthen.
    pub(crate) fn consume(&mut self, token: u32) -> Result<bool, GrammarFailure> {
        self.matcher.consume_token(token).map_err(|_| self.failure())?;
        match self.matcher.stop_reason() {
            StopReason::NotStopped => Ok(false),
            reason if reason.is_ok() => Ok(true),
            _ => Err(self.failure()),
        }
    }

    /// Why it does not go on. The library's own reason may quote the answer.
    fn failure(&self) -> GrammarFailure {
        GrammarFailure(match self.matcher.stop_reason() {
            StopReason::LexerTooComplex => "the lexer needs more states or effort than its limits",
            StopReason::ParserTooComplex => "the parser needs more effort than its limits",
            // Also where no token of the model can come next.
            _ => "no sentence can be made of it, or it is too complex",
        })
    }
}

#[cfg(test)]
mod tests;
