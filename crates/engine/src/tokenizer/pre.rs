//! How text is cut before BPE merges within the pieces: GGUF's `tokenizer.ggml.pre` names.
//!
//! The expressions are those of the models' own `tokenizer.json`, by the names that llama.cpp's converter
//! gives them (`src/llama-vocab.cpp`), applied one after the other to what the earlier ones cut. All end in
//! `\s+(?!\S)|\s+` there: white space leaves its last character to the word that follows. Linear-time
//! expressions cannot look ahead, so they end in `\s+` here and [`Cut::len`] gives the character back.

use crate::error::ModelFileError;
use regex::Regex;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^\~\|]+";

/// Names that [`rules`] knows, in families.
const SUPPORTED: &str = "smollm, starcoder, refact, command-r, gpt-2, phi-2, olmo, exaone4, \
    qwen2, deepseek-r1-qwen, stablelm2, megrez, llama3, llama-v3, llama-bpe, falcon3, pixtral, \
    dbrx, smaug-bpe, gpt-4o, llama4, tekken, default";

/// What a name stands for.
pub(super) struct Rules {
    cuts: Vec<Cut>,
    /// A piece that is a token as a whole is not merged from its parts.
    pub(super) ignore_merges: bool,
    /// A beginning-of-sequence token is added unless the file says otherwise.
    pub(super) adds_bos: bool,
    /// Text is put in Unicode's normal form C first. The file does not say so and llama.cpp does not do it,
    /// but these models were trained with it (`normalizer` in their `tokenizer.json`).
    pub(super) composes: bool,
}

/// The rules of a pre-tokenizer name.
///
/// # Errors
/// When the name is not known.
pub(super) fn rules(name: &str) -> Result<Rules, ModelFileError> {
    let plain = |expressions: &[&str]| Rules {
        cuts: expressions.iter().map(|expression| Cut::new(expression)).collect(),
        ignore_merges: false,
        adds_bos: false,
        composes: false,
    };
    Ok(match name {
        "smollm" | "starcoder" | "refact" | "command-r" => plain(&[r"\p{N}", GPT2]),
        "gpt-2" | "phi-2" | "olmo" | "exaone4" => plain(&[GPT2]),
        "qwen2" | "deepseek-r1-qwen" => Rules { composes: true, ..plain(&[QWEN2]) },
        "stablelm2" | "megrez" => plain(&[QWEN2]),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "pixtral" => {
            Rules { ignore_merges: true, adds_bos: true, ..plain(&[LLAMA3]) }
        }
        "dbrx" | "smaug-bpe" => plain(&[LLAMA3]),
        "gpt-4o" | "llama4" => plain(&[GPT4O]),
        "tekken" => Rules { ignore_merges: true, adds_bos: true, ..plain(&[TEKKEN]) },
        "default" => plain(&[PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        _ => {
            let what = format!("the pre-tokenizer {name:?}");
            return Err(ModelFileError::unsupported(what, SUPPORTED));
        }
    })
}

impl Rules {
    /// Calls `each` with the pieces of `text` in order; together they are all of it.
    pub(super) fn cut(&self, text: &str, each: &mut dyn FnMut(&str)) {
        cut(&self.cuts, text, each);
    }
}

fn cut(cuts: &[Cut], text: &str, each: &mut dyn FnMut(&str)) {
    match cuts.split_first() {
        None if text.is_empty() => {}
        None => each(text),
        Some((first, rest)) => first.apply(text, &mut |piece| cut(rest, piece, each)),
    }
}

/// One expression.
struct Cut {
    expression: Regex,
    /// It has `\s*[\r\n]+` before `\s+`, so what ends in a line break was not matched by the latter.
    knows_lines: bool,
}

impl Cut {
    /// # Panics
    /// When the expression does not compile; those of this file do, which a test sees to.
    fn new(expression: &str) -> Self {
        let knows_lines = expression.contains(r"\s*[\r\n]+");
        let expression = Regex::new(expression).expect("the expressions of this file compile");
        Self { expression, knows_lines }
    }

    /// Calls `each` with every match, and with what lies between.
    fn apply(&self, text: &str, each: &mut dyn FnMut(&str)) {
        let (mut done, mut at) = (0, 0);
        while let Some(found) = self.expression.find_at(text, at) {
            let end = found.start() + self.len(found.as_str(), &text[found.end()..]);
            if done < found.start() {
                each(&text[done..found.start()]);
            }
            each(&text[found.start()..end]);
            (done, at) = (end, end);
        }
        if done < text.len() {
            each(&text[done..]);
        }
    }

    /// How much of a match counts, given what follows it: white space before a word leaves its last character
    /// to the word, unless that is all there is.
    fn len(&self, found: &str, rest: &str) -> usize {
        let last = found.chars().next_back().map_or(0, char::len_utf8);
        let by_space = !(self.knows_lines && found.ends_with(['\r', '\n']));
        let gives_back = last < found.len()
            && !rest.is_empty()
            && by_space
            && found.chars().all(char::is_whitespace);
        if gives_back { found.len() - last } else { found.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_name_has_rules_that_compile() {
        for name in SUPPORTED.split(", ") {
            rules(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let error = rules("no-such").err().expect("refused").to_string();
        assert!(error.contains("the pre-tokenizer \"no-such\" is not supported"), "{error}");
    }

    fn pieces(name: &str, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let rules = rules(name).unwrap_or_else(|error| panic!("{error}"));
        rules.cut(text, &mut |piece| pieces.push(piece.to_owned()));
        assert_eq!(pieces.concat(), text, "{name}");
        pieces
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(pieces("gpt-2", "a   b \n"), ["a", "  ", " b", " \n"]);
        assert_eq!(pieces("gpt-2", "\n\nb\tc"), ["\n", "\n", "b", "\t", "c"]);
        assert_eq!(pieces("qwen2", " \n\n  b\n"), [" \n\n", " ", " b", "\n"]);
        assert_eq!(pieces("smollm", "a  12"), ["a", "  ", "1", "2"]);
        assert_eq!(pieces("llama-bpe", "1234 \u{a0}x"), ["123", "4", " ", "\u{a0}x"]);
    }

    /// Hugging Face's cuts of a hard corpus (`tests/data/make_tokenizer_references.py`).
    #[test]
    fn cuts_are_hugging_faces() {
        const REFERENCE: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/data/pre_tokenizers.json"
        ));
        let reference: serde_json::Value = serde_json::from_str(REFERENCE).expect("JSON");
        let texts = reference["texts"].as_array().expect("texts");
        let names = reference["characters"].as_object().expect("names");
        assert_eq!((names.len(), texts.len() > 200), (7, true));
        for (name, cuts) in names {
            for (text, lengths) in texts.iter().zip(cuts.as_array().expect("cuts")) {
                let pieces = pieces(name, text.as_str().expect("text"));
                let found: Vec<usize> = pieces.iter().map(|piece| piece.chars().count()).collect();
                assert_eq!(serde_json::json!(found), *lengths, "{name}: {text} as {pieces:?}");
            }
        }
    }
}
