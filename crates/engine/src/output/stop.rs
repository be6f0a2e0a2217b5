//! Stop strings across token borders.

/// Looks for stop strings in a growing text and holds back what may become one.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text not yet released: a proper beginning of some stop string.
    held: String,
}

impl StopMatcher {
    /// A matcher of `stops`, none of them empty.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes text; returns what can be released, and whether a stop string was completed. Of several, the
    /// one that begins first counts; it and what follows are dropped.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let mut released = std::mem::take(&mut self.held);
        if let Some(at) = found {
            released.truncate(at);
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

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
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
    fn the_earliest_stop_counts() {
        assert_eq!(matcher(&["two", "one"]).push("zero one two"), ("zero ".into(), true));
    }

    #[test]
    fn without_stops_everything_passes() {
        assert_eq!(matcher(&[]).push("text"), ("text".into(), false));
    }
}
