//! SentencePiece's byte-pair encoding (`tokenizer.ggml.model = llama`): Llama 2, Mistral, Gemma.
//!
//! There are no cuts and no list of merges: neighbours merge where together they are a piece of the
//! vocabulary, those with the highest score first. A character that is no piece falls back to its bytes.
//! The algorithm is that of `bpe_model.cc` in the sentencepiece library.

use super::merge::Merger;
use super::vocabulary::{Kind, Lookup, Spelling, Vocabulary};
use crate::error::ModelFileError;
use crate::gguf::GgufFile;
use std::borrow::Cow;
use std::collections::HashMap;

/// Rules of one model.
pub(super) struct SentencePiece {
    pieces: Lookup,
    /// When a piece is merged into being: the lower, the earlier.
    priorities: Vec<u32>,
    byte_tokens: [Option<u32>; 256],
    unknown: Option<u32>,
    /// A space goes before a text, as if it were in the middle of one.
    space_first: bool,
    has_unused: bool,
    /// Bytes after which some piece has a space. Nothing merges across a space after any other byte, so
    /// that the text up to it can be encoded on its own: less memory, smaller heaps, same tokens.
    joins_space: [bool; 256],
}

impl SentencePiece {
    /// Reads the scores of a model file.
    ///
    /// # Errors
    /// When they are missing or no numbers, or when there is neither a token for each byte nor one for what
    /// is unknown.
    pub(super) fn load(file: &GgufFile, vocabulary: &Vocabulary) -> Result<Self, ModelFileError> {
        if file.flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
            let what = "the setting tokenizer.ggml.remove_extra_whitespaces".into();
            return Err(ModelFileError::unsupported(what, "white space as it stands"));
        }
        let mut byte_tokens = [None; 256];
        for id in vocabulary.of_kind(Kind::Byte) {
            byte_tokens[usize::from(vocabulary.bytes(id)[0])] = Some(id);
        }
        let unknown = file.integer("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
        let unknown = u32::try_from(unknown).ok().filter(|id| vocabulary.kind(*id).is_some());
        if unknown.is_none() && byte_tokens.contains(&None) {
            let what = "a vocabulary without byte tokens and without an unknown token".into();
            return Err(ModelFileError::unsupported(what, "either"));
        }
        let pieces: Vec<u32> = [Kind::Normal, Kind::Unused]
            .iter()
            .flat_map(|kind| vocabulary.of_kind(*kind))
            .collect();
        let mut joins_space = [false; 256];
        for id in &pieces {
            let pairs = vocabulary.bytes(*id).windows(2).filter(|pair| pair[1] == b' ');
            pairs.for_each(|pair| joins_space[usize::from(pair[0])] = true);
        }
        Ok(Self {
            joins_space,
            pieces: Lookup::new(vocabulary, pieces.into_iter()),
            priorities: priorities(file, vocabulary.len())?,
            byte_tokens,
            unknown,
            space_first: file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
            has_unused: vocabulary.of_kind(Kind::Unused).next().is_some(),
        })
    }

    /// Whether a text that follows a special token gets a space before it.
    pub(super) fn space_first(&self) -> bool {
        self.space_first
    }

    /// Appends the tokens of a text without special tokens. `first` says that no text stands before it.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        first: bool,
        ids: &mut Vec<u32>,
    ) {
        // The character that pieces spell the space with is a space in text too.
        let mut text = match text.contains(Spelling::SPACE) {
            true => Cow::Owned(text.replace(Spelling::SPACE, " ")),
            false => Cow::Borrowed(text),
        };
        if first && self.space_first {
            text.to_mut().insert(0, ' ');
        }
        let mut rest: &str = &text;
        let mut merger = Merger::default();
        let mut last_unknown = false;
        while !rest.is_empty() {
            let ends = |pair: &[u8]| pair[1] == b' ' && !self.joins_space[usize::from(pair[0])];
            let end = rest.as_bytes().windows(2).position(ends);
            let (word, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
            self.encode_word(vocabulary, word, &mut merger, &mut last_unknown, ids);
            rest = after;
        }
    }

    /// Appends the tokens of a text that is merged as one. `last_unknown` says that the last token stands for
    /// unknown characters, of which a run is one token.
    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        merger: &mut Merger,
        last_unknown: &mut bool,
        ids: &mut Vec<u32>,
    ) {
        let find = |bytes: &str| self.pieces.find(vocabulary, bytes.as_bytes());
        merger.clear();
        for (at, character) in word.char_indices() {
            let end = at + character.len_utf8();
            merger.push(end as u32, find(&word[at..end]));
        }
        let mut splits = HashMap::new();
        merger.merge(|left, right| {
            let id = find(&word[left.start as usize..right.end as usize])?;
            if self.has_unused && vocabulary.kind(id) == Some(Kind::Unused) {
                splits.insert(id, (left.end - left.start) as usize);
            }
            Some((self.priorities[id as usize], id))
        });
        for symbol in merger.symbols() {
            let piece = &word[symbol.start as usize..symbol.end as usize];
            let known = match symbol.id {
                Some(id) => {
                    self.append(vocabulary, id, piece, &splits, ids);
                    true
                }
                None => self.append_bytes(piece, ids),
            };
            if !known && !*last_unknown {
                ids.extend(self.unknown);
            }
            *last_unknown = !known;
        }
    }

    /// Appends a piece, or the pieces that it was merged from if it is not to be used itself.
    fn append(
        &self,
        vocabulary: &Vocabulary,
        id: u32,
        piece: &str,
        splits: &HashMap<u32, usize>,
        ids: &mut Vec<u32>,
    ) {
        let Some(at) = splits.get(&id) else { return ids.push(id) };
        let (left, right) = piece.split_at(*at);
        for part in [left, right] {
            match self.pieces.find(vocabulary, part.as_bytes()) {
                Some(id) => self.append(vocabulary, id, part, splits, ids),
                None if self.append_bytes(part, ids) => {}
                None => ids.extend(self.unknown),
            }
        }
    }

    /// Appends the byte tokens of a piece, if there is one for each.
    fn append_bytes(&self, piece: &str, ids: &mut Vec<u32>) -> bool {
        let tokens = piece.bytes().map(|byte| self.byte_tokens[usize::from(byte)]);
        match tokens.collect::<Option<Vec<u32>>>() {
            None => false,
            Some(tokens) => {
                ids.extend(tokens);
                true
            }
        }
    }
}

/// Scores as numbers that order the other way round: the highest score has the lowest priority number.
fn priorities(file: &GgufFile, count: usize) -> Result<Vec<u32>, ModelFileError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let finite = |value: crate::gguf::Value<'_>| value.to_f32().ok().filter(|x| x.is_finite());
    match file.entries(KEY, "a finite 32-bit float", finite)? {
        Some(scores) if scores.len() == count => Ok(scores.into_iter().map(priority).collect()),
        _ => Err(file.wrong(KEY, "a list with one entry a token").into()),
    }
}

/// The bits of a float order like it, but for the sign: negative ones count down.
fn priority(score: f32) -> u32 {
    // Minus zero is zero.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_score_goes_first() {
        let scores = [f32::MAX, 1.5, f32::MIN_POSITIVE, 0.0, -1e-30, -1.0, -1000.0, f32::MIN];
        for pair in scores.windows(2) {
            assert!(priority(pair[0]) < priority(pair[1]), "{pair:?}");
        }
        assert_eq!(priority(0.0), priority(-0.0));
    }
}
