//! Texts to token ids, by Hugging Face's tokenizers and the model's `tokenizer.json`.

use super::error::EncoderError;
use super::folder::Folder;
use crate::error::panic_message;
use std::panic::catch_unwind;

const NAME: &str = "tokenizer.json";
/// Largest `tokenizer.json`; that of a vocabulary of 250,000 has 17 MB.
const BYTES_MAX: u64 = 64 << 20;

/// The tokenizer of an encoder.
pub(super) struct TextTokenizer(tokenizers::Tokenizer);

impl TextTokenizer {
    /// Reads the tokenizer of a model with `vocab` token ids.
    ///
    /// # Errors
    /// When the file is none, or knows ids that the model does not have.
    pub(super) fn load(folder: &Folder<'_>, vocab: usize) -> Result<Self, EncoderError> {
        let content = folder.read(NAME, BYTES_MAX)?;
        let wrong = |reason: String| EncoderError::Json { path: folder.path(NAME), reason };
        // A lie in it can make the library panic.
        let parsed = catch_unwind(|| tokenizers::Tokenizer::from_bytes(&content));
        let mut tokenizer = parsed
            .map_err(|panic| wrong(panic_message(panic.as_ref())))?
            .map_err(|error| wrong(error.to_string()))?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= vocab {
            return Err(wrong(format!(
                "it has the token id {largest}; the model's are below {vocab}"
            )));
        }
        // Files carry the settings of their training. We refuse what is too long, and batches have no padding.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(tokenizer))
    }

    /// Ids of a text, with the special tokens around it that the model wants; `None` when it cannot be had.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        Some(self.0.encode_fast(text, true).ok()?.get_ids().to_vec())
    }
}
