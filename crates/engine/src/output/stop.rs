//! Stop strings across token borders.

/// Looks for stop strings in a growing text and holds back what may become one.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Whether the stop string itself is released.
    include: bool,
    /// Text not yet released: a proper beginning of some stop string.
    held: String,
}

impl StopMatcher {
    /// A matcher of `stops`, none of them empty, that releases the one it finds if `include` says so.
    #[must_use]
    pub fn new(stops: Vec<String>, include: bool) -> Self {
        Self { stops, include, held: String::new() }
    }

    /// Takes text; returns what can be released, and whether a stop string was completed. The one completed
    /// first counts, and of those completed by the same character the longest, so that it does not matter how
    /// the text is cut into tokens; what follows is dropped, and it too unless it is to be included.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = |stop: &String| self.held.find(stop).map(|at| (at + stop.len(), at));
        let found = self.stops.iter().filter_map(found).min();
        let mut released = std::mem::take(&mut self.held);
        if let Some((end, at)) = found {
            released.truncate(if self.include { end } else { at });
            return (released, true);
        }
        self.held = released.split_off(self.safe_length(&released));
        (released, false)
    }

    /// What was held back, now that nothing can follow.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of `text` without the longest ending that begins a stop string.
    fn safe_length(&self, text: &str) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = text.len().saturating_sub(longest);
        let begins_a_stop = |at: &usize| {
            text.is_char_boundary(*at)
                && self.stops.iter().any(|stop| stop.starts_with(&text[*at..]))
        };
        (from..text.len()).find(begins_a_stop).unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect(), false)
    }

    #[test]
    fn only_what_may_become_a_stop_is_held() {
        let mut stops = matcher(&["\n\n", "###"]);
        assert_eq!(stops.push("a\n"), ("a".into(), false));
        assert_eq!(stops.push("b"), ("\nb".into(), false));
        assert_eq!(stops.push("##"), (String::new(), false));
        assert_eq!(stops.finish(), "##");
    }

    #[test]
    fn a_false_start_inside_a_false_start_is_not_lost() {
        let mut stops = matcher(&["aab"]);
        assert_eq!(stops.push("aa"), (String::new(), false));
        assert_eq!(stops.push("a"), ("a".into(), false));
        assert_eq!(stops.push("b!"), (String::new(), true));
    }

    #[test]
    fn the_stop_completed_first_counts_and_of_those_the_longest() {
        assert_eq!(matcher(&["two", "one"]).push("zero one two"), ("zero ".into(), true));
        assert_eq!(matcher(&["abcd", "bc"]).push("abcd"), ("a".into(), true));
        assert_eq!(matcher(&["c", "bc"]).push("abcd"), ("a".into(), true));
    }

    proptest! {
        /// Against the definition, tried at every place of the whole text.
        #[test]
        fn with_several_stops_cuts_do_not_matter(
            text in "[abcé]{0,24}",
            stops in prop::collection::vec("[abcé]{1,4}", 0..4),
            cuts in prop::collection::vec(1..6usize, 24),
        ) {
            let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
            let completed = |end: usize| {
                let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
                ending.map(|stop| end - stop.len()).min()
            };
            let first = ends.filter_map(completed).next();
            let mut matcher = StopMatcher::new(stops.clone(), false);
            let (mut shown, mut stopped) = (String::new(), false);
            let mut characters = text.chars();
            for cut in cuts {
                let token: String = characters.by_ref().take(cut).collect();
                if !stopped {
                    let (released, completed) = matcher.push(&token);
                    shown += &released;
                    stopped = completed;
                }
            }
            if !stopped {
                shown += &matcher.finish();
            }
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(shown, &text[..first.unwrap_or(text.len())]);
        }
    }

    #[test]
    fn a_stop_string_can_be_part_of_the_answer() {
        let mut matcher = StopMatcher::new(vec!["END".into()], true);
        assert_eq!(matcher.push("one E"), ("one ".into(), false));
        assert_eq!(matcher.push("ND two"), ("END".into(), true));
    }

    #[test]
    fn without_stops_everything_passes() {
        assert_eq!(matcher(&[]).push("text"), ("text".into(), false));
    }
}
