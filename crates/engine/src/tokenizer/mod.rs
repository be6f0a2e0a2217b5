//! Text to token ids and back, from what the model file says.
//!
//! Special tokens are found first, as llama.cpp does, because a chat needs both readings: in the template's
//! own text `<|im_end|>` is a token, in a user's message it is ten ordinary characters. The text between
//! them goes to one of two algorithms: byte-level byte-pair encoding, or SentencePiece.
//!
//! Time is `n log n` in the length of the text, whatever the text and the vocabulary; memory is at most
//! about 50 bytes for each byte of the longest piece that the model's rules do not cut.

mod bpe;
mod bytes;
#[cfg(any(test, feature = "testing"))]
pub(crate) use bytes::character_of;
mod merge;
mod pre;
mod sentencepiece;
mod specials;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use specials::Specials;
pub use vocabulary::{TOKEN_BYTES_MAX, TOKENS_MAX};

use crate::error::{ModelFileError, PromptError};
use crate::gguf::{GgufError, GgufFile};
use bpe::Bpe;
use sentencepiece::SentencePiece;
use std::borrow::Cow;
use std::collections::HashMap;
use vocabulary::{Kind, Spelling, Vocabulary};

/// Bytes of a text that is encoded at once.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// How text between special tokens is encoded.
enum Model {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
}

/// A model's tokenizer.
pub struct Tokenizer {
    model: Model,
    vocabulary: Vocabulary,
    specials: Specials,
    bos: Option<u32>,
    eos: Vec<u32>,
    add_bos: bool,
}

impl Tokenizer {
    /// Reads the tokenizer of a model file.
    ///
    /// # Errors
    /// When keys are missing or wrong, or the kind of tokenizer is not supported.
    pub fn load(file: &GgufFile) -> Result<Self, ModelFileError> {
        let spelling = match file.text("tokenizer.ggml.model")?.unwrap_or_default() {
            "gpt2" => Spelling::ByteLevel,
            "llama" => Spelling::SentencePiece,
            other => {
                return Err(ModelFileError::unsupported(
                    format!("the tokenizer model {other:?}"),
                    "gpt2 (byte-level BPE), llama (SentencePiece)",
                ));
            }
        };
        let (vocabulary, ids) = Vocabulary::load(file, spelling)?;
        // What llama.cpp takes where the file says nothing.
        let (model, adds_bos, default_bos) = match spelling {
            Spelling::ByteLevel => {
                let bpe = Bpe::load(file, &vocabulary, &ids)?;
                let adds_bos = bpe.adds_bos();
                (Model::Bpe(bpe), adds_bos, None)
            }
            Spelling::SentencePiece => {
                let model = SentencePiece::load(file, &vocabulary)?;
                (Model::SentencePiece(model), true, Some(1))
            }
        };
        let count = vocabulary.len();
        let bos = token_id(file, "tokenizer.ggml.bos_token_id", count)?;
        let bos = bos.or(default_bos.filter(|id| (*id as usize) < count));
        Ok(Self {
            specials: Specials::new(&found_whole(&vocabulary)),
            eos: end_tokens(file, &vocabulary, &ids)?,
            add_bos: bos.is_some()
                && file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos),
            model,
            vocabulary,
            bos,
        })
    }

    /// Ids of a text in which special tokens count, with a beginning-of-sequence token where the file asks
    /// for one and the text does not begin with it.
    ///
    /// # Errors
    /// When the text is longer than [`TEXT_BYTES_MAX`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.encode_pieces(text, Cow::Borrowed)
    }

    /// Ids of a rendered chat: as [`Tokenizer::encode`], but `mask` characters, which kept special strings
    /// inside messages apart, vanish from the ordinary text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_masked(&self, text: &str, mask: char) -> Result<Vec<u32>, PromptError> {
        self.encode_pieces(text, |text| Cow::Owned(text.replace(mask, "")))
    }

    fn encode_pieces<'t>(
        &self,
        text: &'t str,
        unmask: impl Fn(&'t str) -> Cow<'t, str>,
    ) -> Result<Vec<u32>, PromptError> {
        if text.len() > TEXT_BYTES_MAX {
            let len = text.len();
            let reason = format!("{len} bytes; at most {TEXT_BYTES_MAX} are taken at once");
            return Err(PromptError::Tokenizer(reason));
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        // As in llama.cpp, the text after a special token is a first one too.
        let mut first = true;
        for piece in self.specials.split(text) {
            match piece {
                specials::Piece::Special(id) => ids.push(id),
                specials::Piece::Text(text) => self.encode_ordinary(&unmask(text), first, &mut ids),
            }
            first = matches!(piece, specials::Piece::Special(_));
        }
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    fn encode_ordinary(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        match &self.model {
            Model::Bpe(model) => model.encode(&self.vocabulary, text, ids),
            Model::SentencePiece(model) => model.encode(&self.vocabulary, text, first, ids),
        }
    }

    /// The text of `ids`, special tokens spelled out, without the spaces that encoding puts before texts;
    /// broken characters become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let (mut bytes, mut first) = (Vec::new(), self.puts_space_first());
        for id in ids {
            let piece = self.bytes(*id);
            bytes.extend_from_slice(match piece {
                [b' ', rest @ ..] if first => rest,
                whole => whole,
            });
            let kind = self.vocabulary.kind(*id);
            let special = matches!(kind, Some(Kind::Control | Kind::UserDefined));
            first = special && self.puts_space_first();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn puts_space_first(&self) -> bool {
        matches!(&self.model, Model::SentencePiece(model) if model.space_first())
    }

    /// Bytes of a token; none for an id that does not exist.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// Bytes that a token adds to an answer: none for control tokens.
    #[must_use]
    pub fn visible_bytes(&self, id: u32) -> &[u8] {
        match self.vocabulary.kind(id) {
            None | Some(Kind::Control) => &[],
            Some(_) => self.bytes(id),
        }
    }

    /// Tokens found whole in text.
    #[must_use]
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// The beginning-of-sequence token.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end a generation, the file's own first.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Number of token ids.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }
}

/// Tokens that are found in text before it is cut, and whether each is a control token. Those whose bytes are
/// no text on their own cannot be found.
fn found_whole(vocabulary: &Vocabulary) -> Vec<(String, u32, bool)> {
    let entry = |id, control| {
        let text = std::str::from_utf8(vocabulary.bytes(id)).ok()?;
        (!text.is_empty()).then(|| (text.to_owned(), id, control))
    };
    let control = vocabulary.of_kind(Kind::Control).filter_map(|id| entry(id, true));
    let user = vocabulary.of_kind(Kind::UserDefined).filter_map(|id| entry(id, false));
    control.chain(user).collect()
}

fn token_id(file: &GgufFile, key: &str, count: usize) -> Result<Option<u32>, GgufError> {
    match file.integer(key)? {
        Some(id) if id >= count => Err(file.wrong(key, "the id of a token")),
        id => Ok(id.map(|id| id as u32)),
    }
}

/// The file's end tokens, and the control tokens by which chat models of the field end a turn.
fn end_tokens(
    file: &GgufFile,
    vocabulary: &Vocabulary,
    ids: &HashMap<&str, u32>,
) -> Result<Vec<u32>, GgufError> {
    const TURN_ENDS: [&str; 5] =
        ["<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>"];
    let mut ends = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ends.extend(token_id(file, key, vocabulary.len())?);
    }
    let named = TURN_ENDS.iter().filter_map(|text| ids.get(text).copied());
    let mut named: Vec<u32> =
        named.filter(|id| vocabulary.kind(*id) == Some(Kind::Control)).collect();
    named.sort_unstable();
    ends.extend(named);
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    Ok(ends)
}
