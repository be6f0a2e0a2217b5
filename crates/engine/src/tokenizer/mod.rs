//! Text to token ids and back, from what the model file says.
//!
//! Byte-level BPE (`tokenizer.ggml.model = gpt2`) by Hugging Face's `tokenizers`. Special tokens are found
//! by us before BPE sees the text, as llama.cpp does, because a chat needs both readings: in the template's
//! own text `<|im_end|>` is a token, in a user's message it is ten ordinary characters.

mod bytes;
#[cfg(any(test, feature = "testing"))]
pub(crate) use bytes::character_of;
mod pre;
mod specials;
#[cfg(test)]
mod tests;

pub use specials::Specials;

use crate::error::{ModelFileError, PromptError};
use crate::gguf::{GgufError, GgufFile, Value};
use tokenizers::models::bpe::{BPE, Vocab};

/// What a token is, by GGUF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A piece of text.
    Normal,
    /// A mark for the model, not part of any text (3, and 2, the unknown token).
    Control,
    /// Found whole in text before BPE, and part of it (4).
    UserDefined,
}

impl Kind {
    fn from_gguf(kind: i64) -> Self {
        match kind {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            _ => Self::Normal,
        }
    }
}

/// A model's tokenizer.
pub struct Tokenizer {
    bpe: tokenizers::Tokenizer,
    specials: Specials,
    /// Bytes of each token, concatenated, and where each begins.
    pieces: Vec<u8>,
    starts: Vec<u32>,
    control: Vec<bool>,
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
        let model = file.text("tokenizer.ggml.model")?.unwrap_or_default();
        if model != "gpt2" {
            return Err(ModelFileError::unsupported(
                format!("the tokenizer model {model:?}"),
                "gpt2 (byte-level BPE)",
            ));
        }
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let kinds = kinds(file, tokens.len())?;
        let rules = pre::rules(file.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;
        let bpe = build_bpe(file, &tokens, &rules)?;
        let (pieces, starts) = pieces(&tokens, &kinds);
        let bos = token_id(file, "tokenizer.ggml.bos_token_id", tokens.len())?;
        Ok(Self {
            bpe,
            specials: Specials::new(found_whole(&tokens, &kinds)),
            pieces,
            starts,
            control: kinds.iter().map(|kind| *kind == Kind::Control).collect(),
            bos,
            eos: end_tokens(file, &tokens, &kinds)?,
            add_bos: bos.is_some()
                && file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(rules.adds_bos),
        })
    }

    /// Ids of a text in which special tokens count, with a beginning-of-sequence token where the file asks
    /// for one and the text does not begin with it.
    ///
    /// # Errors
    /// When the tokenizer cannot take the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.encode_pieces(text, |text, ids| self.encode_ordinary(text, ids))
    }

    /// Ids of a rendered chat: as [`Tokenizer::encode`], but `mask` characters, which kept special strings
    /// inside messages apart, vanish from the ordinary text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_masked(&self, text: &str, mask: char) -> Result<Vec<u32>, PromptError> {
        self.encode_pieces(text, |text, ids| self.encode_ordinary(&text.replace(mask, ""), ids))
    }

    fn encode_pieces(
        &self,
        text: &str,
        ordinary: impl Fn(&str, &mut Vec<u32>) -> Result<(), PromptError>,
    ) -> Result<Vec<u32>, PromptError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        for piece in self.specials.split(text) {
            match piece {
                specials::Piece::Special(id) => ids.push(id),
                specials::Piece::Text(text) => ordinary(text, &mut ids)?,
            }
        }
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    fn encode_ordinary(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), PromptError> {
        let failed = |error: tokenizers::Error| PromptError::Tokenizer(error.to_string());
        ids.extend_from_slice(self.bpe.encode_fast(text, false).map_err(failed)?.get_ids());
        Ok(())
    }

    /// The text of `ids`, special tokens spelled out; broken characters become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of a token; none for an id that does not exist.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.pieces[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Bytes that a token adds to an answer: none for control tokens.
    #[must_use]
    pub fn visible_bytes(&self, id: u32) -> &[u8] {
        if self.control.get(id as usize).copied().unwrap_or(true) { &[] } else { self.bytes(id) }
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
        self.control.len()
    }
}

fn kinds(file: &GgufFile, count: usize) -> Result<Vec<Kind>, GgufError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let kind = |value: Value<'_>| value.to_i64().ok().map(Kind::from_gguf);
    match file.entries(KEY, "an integer", kind)? {
        None => Ok(vec![Kind::Normal; count]),
        Some(kinds) if kinds.len() == count => Ok(kinds),
        Some(_) => Err(file.wrong(KEY, "a list with one entry a token")),
    }
}

fn build_bpe(
    file: &GgufFile,
    tokens: &[&str],
    rules: &pre::Rules,
) -> Result<tokenizers::Tokenizer, ModelFileError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let vocab: Vocab =
        tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    let split = |merge: &str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let merges = file.texts(KEY)?.into_iter().map(split).collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| file.wrong(KEY, "a list of pairs"))?;
    let bpe =
        BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(rules.ignore_merges).build();
    let bpe =
        bpe.map_err(|_| file.wrong(KEY, "a list of merges of known tokens into known tokens"))?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(rules.pre_tokenizer()));
    Ok(tokenizer)
}

/// Bytes of every token, and where each begins (one more entry than tokens).
fn pieces(tokens: &[&str], kinds: &[Kind]) -> (Vec<u8>, Vec<u32>) {
    let (mut pieces, mut starts) = (Vec::new(), vec![0]);
    for (token, kind) in tokens.iter().zip(kinds) {
        match kind {
            Kind::Normal => bytes::append_piece(token, &mut pieces),
            Kind::Control | Kind::UserDefined => pieces.extend_from_slice(token.as_bytes()),
        }
        starts.push(pieces.len() as u32);
    }
    (pieces, starts)
}

/// Tokens that are found in text before BPE, and whether each is a control token.
fn found_whole(tokens: &[&str], kinds: &[Kind]) -> Vec<(String, u32, bool)> {
    let entries = tokens.iter().zip(kinds).zip(0..);
    entries
        .filter(|((token, kind), _)| **kind != Kind::Normal && !token.is_empty())
        .map(|((token, kind), id)| ((*token).to_owned(), id, *kind == Kind::Control))
        .collect()
}

fn token_id(file: &GgufFile, key: &str, count: usize) -> Result<Option<u32>, GgufError> {
    match file.integer(key)? {
        Some(id) if id >= count => Err(file.wrong(key, "the id of a token")),
        id => Ok(id.map(|id| id as u32)),
    }
}

/// The file's end tokens, and the control tokens by which chat models of the field end a turn.
fn end_tokens(file: &GgufFile, tokens: &[&str], kinds: &[Kind]) -> Result<Vec<u32>, GgufError> {
    const TURN_ENDS: [&str; 5] =
        ["<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>"];
    let mut ends = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ends.extend(token_id(file, key, tokens.len())?);
    }
    let named = tokens.iter().zip(kinds).zip(0..);
    let named =
        named.filter(|((token, kind), _)| **kind == Kind::Control && TURN_ENDS.contains(token));
    ends.extend(named.map(|(_, id)| id));
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    Ok(ends)
}
