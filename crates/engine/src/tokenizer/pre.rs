//! How text is cut before BPE merges within the pieces: GGUF's `tokenizer.ggml.pre` names.
//!
//! The expressions are those of llama.cpp (`src/llama-vocab.cpp`), applied one after the other to what the
//! earlier ones left whole.

use crate::error::ModelFileError;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^\~\|]+";

/// Names that [`rules`] knows.
const SUPPORTED: &str =
    "smollm, llama-bpe, llama3, qwen2, deepseek-r1-qwen, gpt-2, phi-2, starcoder, default";

/// What a name stands for.
pub(super) struct Rules {
    expressions: &'static [&'static str],
    /// A piece that is a token as a whole is not merged from its parts.
    pub(super) ignore_merges: bool,
    /// A beginning-of-sequence token is added unless the file says otherwise.
    pub(super) adds_bos: bool,
}

/// The rules of a pre-tokenizer name.
///
/// # Errors
/// When the name is not known.
pub(super) fn rules(name: &str) -> Result<Rules, ModelFileError> {
    let plain = |expressions| Rules { expressions, ignore_merges: false, adds_bos: false };
    Ok(match name {
        "smollm" | "starcoder" => plain(&[r"\p{N}", GPT2]),
        "gpt-2" | "gpt2" | "phi-2" => plain(&[GPT2]),
        "qwen2" | "deepseek-r1-qwen" => plain(&[QWEN2]),
        "llama-bpe" | "llama3" | "llama-v3" => {
            Rules { expressions: &[LLAMA3], ignore_merges: true, adds_bos: true }
        }
        "default" => plain(&[PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        _ => {
            return Err(ModelFileError::unsupported(
                format!("the pre-tokenizer {name:?}"),
                SUPPORTED,
            ));
        }
    })
}

impl Rules {
    /// The cuts, then the spelling of bytes as characters.
    pub(super) fn pre_tokenizer(&self) -> PreTokenizerWrapper {
        let cuts = self.expressions.iter().map(|expression| cut(expression));
        let spelling = ByteLevel::new(false, false, false).into();
        Sequence::new(cuts.chain([spelling]).collect()).into()
    }
}

/// # Panics
/// When an expression of this file does not compile, which a test excludes.
fn cut(expression: &str) -> PreTokenizerWrapper {
    let pattern = SplitPattern::Regex(expression.to_owned());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .expect("the expressions of this file compile")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_name_has_rules_that_compile() {
        for name in SUPPORTED.split(", ") {
            rules(name).unwrap_or_else(|error| panic!("{name}: {error}")).pre_tokenizer();
        }
        assert!(rules("tekken").is_err());
    }
}
