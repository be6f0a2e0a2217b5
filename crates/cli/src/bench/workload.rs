//! What to send: request by number, a pure function of the seed.

use super::draws::{Draws, Purpose};
use super::trace::{BLOCK_TOKENS, Entry, PROMPT_TOKENS_MAX, Prompt};
use super::words::Words;

/// How long made-up prompts are, in tokens; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct TokenRange {
    pub(crate) least: u32,
    pub(crate) most: u32,
}

/// Where prompts come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Made up; the first `shared_prefix` tokens of each are those of all.
    Synthetic { tokens: TokenRange, shared_prefix: u32 },
    /// Always the same.
    Text(String),
    /// A file's, in turn, and over again.
    Entries(Vec<Entry>),
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) source: Source,
    /// For requests that do not say themselves.
    pub(super) max_tokens: u32,
    draws: Draws,
}

/// What one request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) content: Content,
    pub(super) max_tokens: u32,
    /// Length of a made-up prompt, in tokens.
    pub(super) prompt_tokens: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Text(String),
    Messages(serde_json::Value),
}

/// The item whose words are the shared beginning.
const ALL: u64 = 0;

impl Workload {
    pub(super) fn new(source: Source, max_tokens: u32, seed: u64) -> Self {
        Self { source, max_tokens, draws: Draws::of(seed) }
    }

    /// Request `index`, from 0.
    pub(super) fn ask(&self, index: u64) -> Ask {
        match &self.source {
            Source::Text(text) => self.given(Content::Text(text.clone()), None),
            Source::Synthetic { tokens, shared_prefix } => {
                self.synthetic(Purpose::Words, index, *tokens, *shared_prefix)
            }
            Source::Entries(entries) => {
                self.entry(&entries[(index % entries.len() as u64) as usize], index)
            }
        }
    }

    /// Request `index` of those that warm up. Made up whatever the source is, so that no cache knows
    /// beforehand what will be measured; only a shared beginning is warm, as it would be in service.
    pub(super) fn warm_up(&self, index: u64) -> Ask {
        match &self.source {
            Source::Synthetic { tokens, shared_prefix } => {
                self.synthetic(Purpose::WarmUp, index, *tokens, *shared_prefix)
            }
            _ => self.synthetic(Purpose::WarmUp, index, TokenRange::default(), 0),
        }
    }

    fn entry(&self, entry: &Entry, index: u64) -> Ask {
        match &entry.prompt {
            Prompt::Text(text) => self.given(Content::Text(text.clone()), entry.max_tokens),
            Prompt::Messages(messages) => {
                self.given(Content::Messages(messages.clone()), entry.max_tokens)
            }
            Prompt::Shape { tokens, hash_ids } => {
                self.made_up(self.blocks(*tokens, hash_ids, index), *tokens, entry.max_tokens)
            }
        }
    }

    fn synthetic(&self, purpose: Purpose, index: u64, range: TokenRange, shared: u32) -> Ask {
        let choices = (range.most - range.least) as usize + 1;
        let longer = self.draws.below(choices, Purpose::Lengths, index, 0) as u32;
        let tokens = range.least + longer;
        let words = Words::of(self.draws);
        let mut text = String::new();
        words.append(&mut text, Purpose::SharedPrefix, ALL, shared.min(tokens));
        words.append(&mut text, purpose, index, tokens.saturating_sub(shared));
        self.made_up(text, tokens, None)
    }

    /// Equal ids give equal text. Without ids the text is the request's own.
    fn blocks(&self, tokens: u32, hash_ids: &[u64], index: u64) -> String {
        let words = Words::of(self.draws);
        let mut text = String::new();
        if hash_ids.is_empty() {
            words.append(&mut text, Purpose::Words, index, tokens);
        }
        let mut left = tokens;
        for id in hash_ids {
            words.append(&mut text, Purpose::Blocks, *id, left.min(BLOCK_TOKENS));
            left = left.saturating_sub(BLOCK_TOKENS);
        }
        text
    }

    fn made_up(&self, text: String, tokens: u32, max_tokens: Option<u32>) -> Ask {
        Ask { prompt_tokens: Some(tokens), ..self.given(Content::Text(text), max_tokens) }
    }

    fn given(&self, content: Content, max_tokens: Option<u32>) -> Ask {
        let max_tokens = max_tokens.unwrap_or(self.max_tokens);
        Ask { content, max_tokens, prompt_tokens: None }
    }
}

impl Default for TokenRange {
    fn default() -> Self {
        Self { least: 128, most: 128 }
    }
}

impl std::str::FromStr for TokenRange {
    type Err = String;

    /// `128` or `16..256`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
        let (least, most) = match text.split_once("..") {
            Some((least, most)) => (number(least)?, number(most)?),
            None => (number(text)?, number(text)?),
        };
        match least {
            0 => Err("at least 1 token".to_owned()),
            _ if most > PROMPT_TOKENS_MAX => Err(format!("at most {PROMPT_TOKENS_MAX} tokens")),
            _ if least > most => Err(format!("{least} is more than {most}")),
            _ => Ok(Self { least, most }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn synthetic(least: u32, most: u32, shared_prefix: u32, seed: u64) -> Workload {
        let source = Source::Synthetic { tokens: TokenRange { least, most }, shared_prefix };
        Workload::new(source, 64, seed)
    }

    fn text(ask: &Ask) -> &str {
        match &ask.content {
            Content::Text(text) => text,
            Content::Messages(_) => panic!("text expected"),
        }
    }

    fn words(ask: &Ask) -> Vec<&str> {
        text(ask).split(' ').collect()
    }

    fn of_shapes(shapes: &[(u32, &[u64])]) -> Workload {
        let entry = |(tokens, hash_ids): &(u32, &[u64])| Entry {
            at: None,
            prompt: Prompt::Shape { tokens: *tokens, hash_ids: hash_ids.to_vec() },
            max_tokens: Some(9),
        };
        Workload::new(Source::Entries(shapes.iter().map(entry).collect()), 64, 1)
    }

    proptest! {
        #[test]
        fn made_up_prompts_are_as_long_as_asked_and_share_what_they_should(
            seed: u64, index in 0_u64..1_000_000, least in 1_u32..40, more in 0_u32..40, shared in 0_u32..80,
        ) {
            let workload = synthetic(least, least + more, shared, seed);
            let (one, other) = (workload.ask(index), workload.ask(index + 1));
            prop_assert_eq!(&one, &workload.ask(index));
            let tokens = one.prompt_tokens.unwrap_or(0);
            prop_assert!((least..=least + more).contains(&tokens));
            prop_assert_eq!(words(&one).len(), tokens as usize);
            let common = shared.min(tokens).min(other.prompt_tokens.unwrap_or(0)) as usize;
            prop_assert_eq!(&words(&one)[..common], &words(&other)[..common]);
        }

        /// Two prompts of a trace begin alike exactly as far as their ids do.
        #[test]
        fn equal_ids_are_equal_blocks(common in 0_usize..4, one in 1_u32..1500, other in 1_u32..1500) {
            let ids = |own: u64, tokens: u32| -> Vec<u64> {
                let count = tokens.div_ceil(BLOCK_TOKENS);
                (0..u64::from(count)).map(|n| if (n as usize) < common { n } else { own + n }).collect()
            };
            let (one_ids, other_ids) = (ids(1000, one), ids(2000, other));
            let workload = of_shapes(&[(one, &one_ids), (other, &other_ids)]);
            let (first, second) = (workload.ask(0), workload.ask(1));
            prop_assert_eq!((words(&first).len(), words(&second).len()), (one as usize, other as usize));
            let alike = words(&first).iter().zip(words(&second)).take_while(|(a, b)| *a == b).count();
            let wanted = (common * BLOCK_TOKENS as usize).min(one.min(other) as usize);
            prop_assert!(alike >= wanted);
            // Two different blocks can begin with a few equal words by chance, 1 in 256 each.
            prop_assert!(alike <= wanted + 4, "{alike} words are alike, {wanted} should be");
        }
    }

    #[test]
    fn a_files_requests_come_in_turn_and_over_again() {
        let workload = of_shapes(&[(3, &[]), (4, &[])]);
        let lengths: Vec<_> = (0..5).map(|index| words(&workload.ask(index)).len()).collect();
        assert_eq!(lengths, [3, 4, 3, 4, 3]);
        assert_ne!(text(&workload.ask(0)), text(&workload.ask(2)), "without ids, like no other");
        assert_eq!(workload.ask(0).max_tokens, 9);
    }

    #[test]
    fn warming_up_warms_nothing_that_is_measured() {
        let workload = synthetic(20, 20, 5, 3);
        let (warm, measured) = (workload.warm_up(0), workload.ask(0));
        assert_eq!(words(&warm)[..5], words(&measured)[..5]);
        assert_ne!(words(&warm)[5..], words(&measured)[5..]);
        let given = Workload::new(Source::Text("Hi".into()), 64, 3);
        assert_eq!((text(&given.ask(7)), given.ask(7).max_tokens), ("Hi", 64));
        assert_eq!(words(&given.warm_up(0)).len(), 128);
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!("128".parse(), Ok(TokenRange { least: 128, most: 128 }));
        assert_eq!("16..256".parse(), Ok(TokenRange { least: 16, most: 256 }));
        for wrong in ["0", "", "5..4", "a", "1..", "..3", "-1", "1..2000001"] {
            assert!(wrong.parse::<TokenRange>().is_err(), "{wrong}");
        }
    }
}
