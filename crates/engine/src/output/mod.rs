//! From tokens to text that a client may see: whole characters, and nothing of a stop string.

mod characters;
mod stop;

pub use characters::Characters;
pub use stop::StopMatcher;

/// The text side of one generation.
#[derive(Debug)]
pub struct OutputText {
    characters: Characters,
    stops: StopMatcher,
}

impl OutputText {
    /// An empty answer that ends at any of `stops`: before it, or with `include_stop` after it.
    #[must_use]
    pub fn new(stops: Vec<String>, include_stop: bool) -> Self {
        Self { characters: Characters::default(), stops: StopMatcher::new(stops, include_stop) }
    }

    /// Takes a token's bytes; returns the text released by it, and whether a stop string was completed
    /// (then nothing more may come).
    pub fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        let text = self.characters.push(bytes);
        self.stops.push(&text)
    }

    /// The end of the answer: what was held back, and whether a stop string was completed by it.
    pub fn finish(&mut self) -> (String, bool) {
        let text = self.characters.finish();
        let (mut released, stopped) = self.stops.push(&text);
        if !stopped {
            released.push_str(&self.stops.finish());
        }
        (released, stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stop_string_across_tokens_is_never_shown() {
        let mut output = OutputText::new(vec!["END".into()], false);
        assert_eq!(output.push(b"one E"), ("one ".into(), false));
        assert_eq!(output.push(b"N"), (String::new(), false));
        assert_eq!(output.push(b"D two"), (String::new(), true));
    }

    proptest! {
        /// However bytes are cut into tokens, the same text comes out, and it ends before the first stop.
        #[test]
        fn cuts_do_not_matter(
            text in "[aé日🦀 ]{0,20}",
            stop in "[aé日🦀 ]{1,3}",
            cuts in prop::collection::vec(1..5usize, 100),
        ) {
            let mut output = OutputText::new(vec![stop.clone()], false);
            let (mut shown, mut stopped, mut rest) = (String::new(), false, text.as_bytes());
            for cut in cuts {
                if stopped || rest.is_empty() { break; }
                let (token, after) = rest.split_at(cut.min(rest.len()));
                let (released, stop_found) = output.push(token);
                let broken = released.contains(char::REPLACEMENT_CHARACTER);
                prop_assert!(!broken);
                shown += &released;
                (stopped, rest) = (stop_found, after);
            }
            if !stopped {
                let (released, stop_found) = output.finish();
                shown += &released;
                prop_assert!(!stop_found);
            }
            let want = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            prop_assert_eq!(shown, want);
        }
    }
}
