//! Byte-level byte-pair encoding (`tokenizer.ggml.model = gpt2`): GPT-2's, and most families' since.

use super::bytes;
use super::merge::Merger;
use super::pre::{self, Rules};
use super::vocabulary::{Kind, Lookup, Vocabulary};
use crate::error::ModelFileError;
use crate::gguf::{GgufError, GgufFile};
use std::borrow::Cow;
use std::collections::HashMap;
use unicode_normalization::{UnicodeNormalization, is_nfc};

const MERGES: &str = "tokenizer.ggml.merges";

/// Rules of one model.
pub(super) struct Bpe {
    rules: Rules,
    /// The token of each byte. A byte without one vanishes, as it does in the references: vocabularies leave
    /// out bytes that UTF-8 never has, and SmolLM 2's also a few control characters.
    byte_tokens: [Option<u32>; 256],
    merges: Merges,
    /// Pieces that are tokens whole, where the model's rules put them before merges.
    whole: Option<Lookup>,
}

impl Bpe {
    /// Reads the merges of a model file; `ids` are its tokens by their spelling.
    ///
    /// # Errors
    /// When the pre-tokenizer is not known, or a merge is not one of known tokens into a known token.
    pub(super) fn load(
        file: &GgufFile,
        vocabulary: &Vocabulary,
        ids: &HashMap<&str, u32>,
    ) -> Result<Self, ModelFileError> {
        let rules = pre::rules(file.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;
        let token = |byte: u8| ids.get(bytes::character_of(byte).encode_utf8(&mut [0; 4]) as &str);
        let byte_tokens = std::array::from_fn(|byte| token(byte as u8).copied());
        let pieces = || vocabulary.of_kind(Kind::Normal);
        let whole = rules.ignore_merges.then(|| Lookup::new(vocabulary, pieces()));
        Ok(Self { rules, byte_tokens, merges: Merges::load(file, ids)?, whole })
    }

    /// Whether a beginning-of-sequence token is added unless the file says otherwise.
    pub(super) fn adds_bos(&self) -> bool {
        self.rules.adds_bos
    }

    /// Appends the tokens of a text without special tokens.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let text = match self.rules.composes && !is_nfc(text) {
            true => Cow::Owned(text.nfc().collect()),
            false => Cow::Borrowed(text),
        };
        let mut merger = Merger::default();
        self.rules.cut(&text, &mut |piece| {
            let whole = self.whole.as_ref().and_then(|l| l.find(vocabulary, piece.as_bytes()));
            match whole {
                Some(id) => ids.push(id),
                None => self.merge(piece, &mut merger, ids),
            }
        });
    }

    fn merge(&self, piece: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        for (byte, end) in piece.bytes().zip(1..) {
            merger.push(end, self.byte_tokens[usize::from(byte)]);
        }
        merger.merge(|left, right| self.merges.find(left.id?, right.id?));
        ids.extend(merger.symbols().filter_map(|symbol| symbol.id));
    }
}

/// What two tokens become, and how early.
struct Merge {
    right: u32,
    rank: u32,
    into: u32,
}

/// All merges, sorted by their left token, then by their right one.
struct Merges {
    merges: Vec<Merge>,
    /// Where the merges of each left token begin (one more entry than tokens).
    starts: Vec<u32>,
}

impl Merges {
    fn load(file: &GgufFile, ids: &HashMap<&str, u32>) -> Result<Self, GgufError> {
        let texts = file.texts(MERGES)?;
        if u32::try_from(texts.len()).is_err() {
            return Err(file.wrong(MERGES, "a list of at most 4294967295 merges"));
        }
        let mut all = Vec::with_capacity(texts.len());
        let mut joined = String::new();
        for (text, rank) in texts.into_iter().zip(0..) {
            let wrong = |reason: String| file.wrong_entry(MERGES, rank as usize, reason);
            let pair = text.split_once(' ').filter(|(l, r)| !l.is_empty() && !r.is_empty());
            let (left, right) = pair.ok_or_else(|| wrong("is no pair of tokens".into()))?;
            joined.clear();
            joined.extend([left, right]);
            let known = |token: &str| {
                let id = ids.get(token).copied();
                id.ok_or_else(|| wrong("names a token that is not in the vocabulary".into()))
            };
            let merge = Merge { right: known(right)?, rank, into: known(&joined)? };
            all.push((known(left)?, merge));
        }
        all.sort_unstable_by_key(|(left, merge)| (*left, merge.right, merge.rank));
        // Of the same merge twice, the first counts.
        all.dedup_by_key(|(left, merge)| (*left, merge.right));
        let tokens = ids.values().max().map_or(0, |most| most + 1);
        let start = |token| all.partition_point(|(left, _)| *left < token) as u32;
        let starts = (0..=tokens).map(start).collect();
        Ok(Self { merges: all.into_iter().map(|(_, merge)| merge).collect(), starts })
    }

    /// Rank and result of merging two tokens.
    fn find(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let range = self.starts[left as usize] as usize..self.starts[left as usize + 1] as usize;
        let merges = &self.merges[range];
        let found = merges.binary_search_by_key(&right, |merge| merge.right).ok()?;
        Some((merges[found].rank, merges[found].into))
    }
}
