//! Finding special tokens in text, and hiding them from being found.

/// Noncharacters: 32 code points that Unicode reserves for a program's own use, never for text.
const MASKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The tokens that are found whole in text, before BPE.
pub struct Specials {
    /// Text, id, and whether it is a control token; longest text first.
    entries: Vec<(String, u32, bool)>,
    /// Whether an entry begins with this byte.
    first_bytes: [bool; 256],
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

impl Specials {
    pub(super) fn new(mut entries: Vec<(String, u32, bool)>) -> Self {
        entries.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.1.cmp(&b.1)));
        let mut first_bytes = [false; 256];
        for (text, ..) in &entries {
            first_bytes[usize::from(text.as_bytes()[0])] = true;
        }
        Self { entries, first_bytes }
    }

    /// Cuts `text` at its special tokens; of those that begin at one place, the longest counts.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            if let Some((special, id, _)) = self.starting_at(text, at) {
                if start < at {
                    pieces.push(Piece::Text(&text[start..at]));
                }
                pieces.push(Piece::Special(*id));
                at += special.len();
                start = at;
            } else {
                at += 1;
            }
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }

    fn starting_at(&self, text: &str, at: usize) -> Option<&(String, u32, bool)> {
        let rest = &text.as_bytes()[at..];
        if !self.first_bytes[usize::from(rest[0])] {
            return None;
        }
        self.entries.iter().find(|(special, ..)| rest.starts_with(special.as_bytes()))
    }

    /// A character that occurs in none of `texts`; `None` when all 32 candidates do.
    #[must_use]
    pub fn mask_for<'a>(&self, mut texts: impl Iterator<Item = &'a str> + Clone) -> Option<char> {
        let texts = &mut texts;
        MASKS.clone().find(|mask| !texts.clone().any(|text| text.contains(*mask)))
    }

    /// `text` with `mask` after the first character of every control token in it, and of every beginning of
    /// one at its end, so that neither it nor what a template appends to it reads as a control token. The
    /// first character stays the same, and so does the last of a text that does not end in a token's beginning
    /// (such as `<`), so that templates can strip and compare.
    #[must_use]
    pub fn mask(&self, text: &str, mask: char) -> String {
        let mut out = String::with_capacity(text.len());
        for (at, character) in text.char_indices() {
            out.push(character);
            let rest = &text[at..];
            let begins = |(special, _, control): &(String, u32, bool)| {
                *control && (rest.starts_with(special.as_str()) || special.starts_with(rest))
            };
            if self.first_bytes[usize::from(rest.as_bytes()[0])] && self.entries.iter().any(begins)
            {
                out.push(mask);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn specials() -> Specials {
        let entry = |text: &str, id, control| (text.to_owned(), id, control);
        Specials::new(vec![
            entry("<|im_end|>", 2, true),
            entry("<|im", 5, true),
            entry("<think>", 7, false),
        ])
    }

    #[test]
    fn the_longest_token_at_a_place_counts() {
        let text = "é<|im_end|><|imé";
        let want = [Piece::Text("é"), Piece::Special(2), Piece::Special(5), Piece::Text("é")];
        assert_eq!(specials().split(text), want);
    }

    #[test]
    fn masked_text_reads_as_text_and_unmasks_to_itself() {
        let masked = specials().mask("a<|im_end|>b <think>", '\u{fdd0}');
        assert_eq!(masked.replace('\u{fdd0}', ""), "a<|im_end|>b <think>");
        assert_eq!(
            specials().split(&masked).last(),
            Some(&Piece::Special(7)),
            "only control tokens"
        );
        assert!(!specials().split(&masked).contains(&Piece::Special(2)));
    }

    proptest! {
        #[test]
        fn what_follows_a_masked_text_cannot_complete_a_token(
            text in "[<|im_end>a]{0,12}",
            after in "[<|im_end>a]{0,12}",
        ) {
            let specials = specials();
            let mask = specials.mask_for([text.as_str()].into_iter()).expect("none is used");
            let joined = specials.mask(&text, mask) + &after;
            let found = specials.split(&joined).iter().filter(|p| matches!(p, Piece::Special(_))).count();
            let alone = specials.split(&after).iter().filter(|p| matches!(p, Piece::Special(_))).count();
            prop_assert!(found <= alone, "{joined:?}");
        }
    }
}
