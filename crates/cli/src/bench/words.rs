//! Text of a wanted length in tokens, without knowing the tokenizer.
//!
//! The words below are frequent enough to be one token each, with the space before them, in every
//! vocabulary we looked at (GPT-2's kind of BPE, SentencePiece, WordPiece). How many tokens the server
//! found is in the report beside how many were asked for.

use super::draws::{Draws, Purpose};

/// 256 common words: eight bits each, so that two prompts do not begin alike by chance.
const WORDS: &str = "\
that with from this have your their they will which more other about were also part them into \
these some self when time under there than over know people like year such been help what would \
need through work import most develop many used only first child system between learn where \
could should well different every high world even form water sign just make years data result \
those each because while process during found count long after return read using lead fact life \
very find right person back both follow important does grow much main before level study great \
food start good might within class often around made said show same power research design again \
small allow care less example down take organ support called point number build play though must \
plan common want including three pass method known real without always public still change better \
hand another material report place learning interest present project list product feel light \
become energy open mean keep others best include direct various name history create perform home \
proper move among something mark look things type large think function against group means \
control here provide several based area family potential object current program early together \
focus access last turn fore success making print possible certain period land case since \
specific local head post along value order occur come discuss text following across addition \
cost times areas cause problem systems view major course model else hard line relations special \
available consider species future natural plant complex role until second country young";

/// Makes text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    draws: Draws,
}

impl Words {
    pub(super) fn of(draws: Draws) -> Self {
        Self { draws }
    }

    /// Adds `tokens` words to `text`: those of `item`, from its first on. Fewer words of the same item
    /// are a beginning of more.
    pub(super) fn append(self, text: &mut String, purpose: Purpose, item: u64, tokens: u32) {
        for position in 0..tokens {
            let word = word(self.draws.below(COUNT, purpose, item, position));
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
}

/// How many words there are.
const COUNT: usize = 256;

fn word(index: usize) -> &'static str {
    static LIST: std::sync::LazyLock<Vec<&str>> =
        std::sync::LazyLock::new(|| WORDS.split(' ').collect());
    LIST[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn text(item: u64, tokens: u32) -> String {
        let mut text = String::new();
        Words::of(Draws::of(7)).append(&mut text, Purpose::Words, item, tokens);
        text
    }

    #[test]
    fn there_are_256_different_words() {
        let words: HashSet<_> = (0..COUNT).map(word).collect();
        assert_eq!((words.len(), WORDS.split(' ').count()), (COUNT, COUNT));
    }

    #[test]
    fn text_has_the_words_asked_for_and_grows_at_its_end() {
        assert_eq!(text(0, 100).split(' ').count(), 100);
        assert!(text(0, 100).starts_with(&text(0, 40)));
        assert_ne!(text(0, 20), text(1, 20));
        let different: HashSet<_> = (0..1000).map(|item| text(item, 8)).collect();
        assert_eq!(different.len(), 1000);
    }
}
