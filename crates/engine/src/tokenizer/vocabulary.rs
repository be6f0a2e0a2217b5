//! The tokens of a model file: their bytes and what each is for.

use super::bytes;
use crate::error::ModelFileError;
use crate::gguf::{GgufError, GgufFile, Value};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Tokens of a vocabulary. The largest known have 262,144.
pub const TOKENS_MAX: usize = 1 << 20;
/// Bytes of a token as the file spells it. The longest known has 256.
pub const TOKEN_BYTES_MAX: usize = 1_024;

const TOKENS: &str = "tokenizer.ggml.tokens";

/// What a token is, by GGUF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text (1).
    Normal,
    /// A mark for the model, not part of any text (3, and 2, the unknown token).
    Control,
    /// Found whole in text before it is cut, and part of it (4).
    UserDefined,
    /// A piece that encoding does not give (5).
    Unused,
    /// One byte, spelled `<0xNN>` (6).
    Byte,
}

impl Kind {
    fn from_gguf(kind: i64) -> Self {
        match kind {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// How the file spells the bytes of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's printable characters.
    ByteLevel,
    /// Plain text with `▁` for the space.
    SentencePiece,
}

impl Spelling {
    /// The character that stands for a space.
    pub(super) const SPACE: &'static str = "▁";

    /// The bytes of a token; `None` for a byte token that is not spelled like one.
    fn bytes(self, text: &str, kind: Kind, out: &mut Vec<u8>) -> Option<()> {
        match (self, kind) {
            (_, Kind::Byte) => {
                let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
                let exact = digits.len() == 2 && !digits.starts_with('+');
                out.push(u8::from_str_radix(digits, 16).ok().filter(|_| exact)?);
            }
            (_, Kind::Control) | (Self::ByteLevel, Kind::UserDefined) => {
                out.extend_from_slice(text.as_bytes());
            }
            (Self::ByteLevel, _) => bytes::append_piece(text, out),
            (Self::SentencePiece, _) => {
                out.extend_from_slice(text.replace(Self::SPACE, " ").as_bytes());
            }
        }
        Some(())
    }
}

/// All tokens of a model.
pub(super) struct Vocabulary {
    /// Bytes of each token, concatenated, and where each begins (one more entry than tokens).
    pieces: Vec<u8>,
    starts: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    /// Reads the tokens, and gives their texts as the file spells them.
    ///
    /// # Errors
    /// When there are none or too many, when one is too long, occurs twice, or is a byte token that names no
    /// byte.
    pub(super) fn load(
        file: &GgufFile,
        spelling: Spelling,
    ) -> Result<(Self, HashMap<&str, u32>), ModelFileError> {
        let texts = file.texts(TOKENS)?;
        if texts.is_empty() || texts.len() > TOKENS_MAX {
            let what = format!("a vocabulary of {} tokens", texts.len());
            return Err(ModelFileError::unsupported(what, "1 to 1048576 tokens"));
        }
        let kinds = kinds(file, texts.len())?;
        let mut ids = HashMap::with_capacity(texts.len());
        let (mut pieces, mut starts) = (Vec::new(), vec![0]);
        for (index, (text, kind)) in texts.iter().zip(&kinds).enumerate() {
            let wrong = |reason: String| file.wrong_entry(TOKENS, index, reason);
            if text.len() > TOKEN_BYTES_MAX {
                let reason = format!("is {} bytes long; at most {TOKEN_BYTES_MAX}", text.len());
                return Err(wrong(reason).into());
            }
            spelling
                .bytes(text, *kind, &mut pieces)
                .ok_or_else(|| wrong(format!("is no byte: {text:?}")))?;
            starts.push(pieces.len() as u32);
            // Empty tokens are gaps in the numbering: they can neither be found nor merged.
            if text.is_empty() {
                continue;
            }
            if let Some(first) = ids.insert(*text, index as u32) {
                return Err(wrong(format!("is the same as entry {first}: {text:?}")).into());
            }
        }
        Ok((Self { pieces, starts, kinds }, ids))
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of a token; none for an id that does not exist.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.pieces[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// What a token is, if it exists.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// The tokens of a kind.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = u32> {
        let ids = self.kinds.iter().zip(0..);
        ids.filter(move |(other, _)| **other == kind).map(|(_, id)| id)
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

/// Pieces of text to tokens: a hash table of ids, whose keys are the bytes in the vocabulary. The hash is
/// keyed by chance, because the tokens come from a file and the texts from anybody.
pub(super) struct Lookup {
    /// A power of two of them, at most half taken.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Lookup {
    const FREE: u32 = u32::MAX;

    /// A table of `ids`. Of tokens with the same bytes the first counts.
    pub(super) fn new(vocabulary: &Vocabulary, ids: impl Iterator<Item = u32>) -> Self {
        let room = (2 * vocabulary.len()).next_power_of_two();
        let mut lookup = Self { slots: vec![Self::FREE; room], hasher: RandomState::new() };
        for id in ids {
            let slot = lookup.slot(vocabulary, vocabulary.bytes(id));
            if lookup.slots[slot] == Self::FREE {
                lookup.slots[slot] = id;
            }
        }
        lookup
    }

    /// Where `piece` is or would be.
    fn slot(&self, vocabulary: &Vocabulary, piece: &[u8]) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(piece) as usize & last;
        while self.slots[slot] != Self::FREE && vocabulary.bytes(self.slots[slot]) != piece {
            slot = (slot + 1) & last;
        }
        slot
    }

    /// The token with these bytes.
    pub(super) fn find(&self, vocabulary: &Vocabulary, piece: &[u8]) -> Option<u32> {
        if piece.len() > TOKEN_BYTES_MAX {
            return None;
        }
        Some(self.slots[self.slot(vocabulary, piece)]).filter(|id| *id != Self::FREE)
    }
}
