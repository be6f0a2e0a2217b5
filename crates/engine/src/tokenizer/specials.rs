//! Finding special tokens in text, and hiding them from being found.

/// Noncharacters: 32 code points that Unicode reserves for a program's own use, never for text.
const MASKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The tokens that are found whole in text, before anything else cuts it.
pub struct Specials {
    all: Prefixes,
    /// Those among them that are control tokens.
    control: Prefixes,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

impl Specials {
    /// `entries` are text, id, and whether it is a control token; no text is empty or occurs twice.
    pub(super) fn new(entries: &[(String, u32, bool)]) -> Self {
        let chosen = |control_only: bool| {
            let chosen = entries.iter().filter(|(.., control)| *control || !control_only);
            Prefixes::new(chosen.map(|(text, id, _)| (text.clone(), *id)).collect())
        };
        Self { all: chosen(false), control: chosen(true) }
    }

    /// Cuts `text` at its special tokens; of those that begin at one place, the longest counts.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            if let Some((len, id)) = self.all.longest(&text.as_bytes()[at..]) {
                if start < at {
                    pieces.push(Piece::Text(&text[start..at]));
                }
                pieces.push(Piece::Special(id));
                at += len;
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
            if self.control.may_begin(&text.as_bytes()[at..]) {
                out.push(mask);
            }
        }
        out
    }
}

/// Texts to be found at the beginning of others. Sorted, so that those with a common beginning lie together:
/// each byte compared narrows the range, in time logarithmic in their number.
struct Prefixes {
    entries: Vec<(String, u32)>,
    /// Where in `entries` the texts that begin with each byte begin, and where the last ones end.
    firsts: [u32; 257],
}

impl Prefixes {
    fn new(mut entries: Vec<(String, u32)>) -> Self {
        entries.sort_unstable();
        let begins_below = |byte: usize| {
            entries.partition_point(|(text, _)| usize::from(text.as_bytes()[0]) < byte) as u32
        };
        let firsts = std::array::from_fn(begins_below);
        Self { entries, firsts }
    }

    /// The texts that begin with the first bytes of `rest`, for ever more of them: how many bytes, and which
    /// texts. Ends when no text is left.
    fn narrowing<'p>(
        &'p self,
        rest: &'p [u8],
    ) -> impl Iterator<Item = (usize, &'p [(String, u32)])> {
        let mut range: &[(String, u32)] = &[];
        rest.iter().enumerate().map_while(move |(depth, byte)| {
            range = if depth == 0 {
                let first = usize::from(*byte);
                &self.entries[self.firsts[first] as usize..self.firsts[first + 1] as usize]
            } else {
                let at = |entry: &(String, u32)| entry.0.as_bytes().get(depth).copied();
                let from = range.partition_point(|entry| at(entry) < Some(*byte));
                let to = range.partition_point(|entry| at(entry) <= Some(*byte));
                &range[from..to]
            };
            (!range.is_empty()).then_some((depth + 1, range))
        })
    }

    /// Length and id of the longest text that `rest` begins with.
    fn longest(&self, rest: &[u8]) -> Option<(usize, u32)> {
        let whole = |(len, range): (usize, &[(String, u32)])| {
            range.first().filter(|(text, _)| text.len() == len).map(|(_, id)| (len, *id))
        };
        self.narrowing(rest).filter_map(whole).last()
    }

    /// Whether `rest` begins with a text, or is the beginning of one.
    fn may_begin(&self, rest: &[u8]) -> bool {
        let begins = |(len, range): (usize, &[(String, u32)])| {
            len == rest.len() || range.first().is_some_and(|(text, _)| text.len() == len)
        };
        self.narrowing(rest).any(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn specials() -> Specials {
        let entry = |text: &str, id, control| (text.to_owned(), id, control);
        Specials::new(&[
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

        /// Against trying every token.
        #[test]
        fn the_longest_is_found_among_many(
            texts in prop::collection::btree_set("[abé]{1,5}", 1..20),
            rest in "[abé]{0,8}",
        ) {
            let entries: Vec<_> = texts.iter().cloned().zip(0..).collect();
            let longest = entries.iter().filter(|(text, _)| rest.starts_with(text.as_str()));
            let longest = longest.max_by_key(|(text, _)| text.len()).map(|(text, id)| (text.len(), *id));
            let begins = longest.is_some() || (!rest.is_empty() && texts.iter().any(|text| text.starts_with(&rest)));
            let prefixes = Prefixes::new(entries);
            prop_assert_eq!(prefixes.longest(rest.as_bytes()), longest);
            prop_assert_eq!(prefixes.may_begin(rest.as_bytes()), begins);
        }
    }
}
