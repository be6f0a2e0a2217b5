//! A line of text whose parts have a tone, whoever shows it.

use std::fmt::{self, Display};

use anstyle::Style;

use super::words::{clip, width};
use crate::console::{BAD, BOLD, DIM, GOOD, Styled, WARN};

/// What a piece of text means; how that looks is the medium's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// What is not the point.
    Dim,
    /// What is.
    Bold,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// As escape sequences, which `anstream` takes out where colours are unwanted.
    pub(crate) fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Dim => DIM,
            Self::Bold => BOLD,
            Self::Good => GOOD,
            Self::Warn => WARN,
            Self::Bad => BAD,
        }
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(pub(crate) Vec<(Tone, String)>);

impl Spans {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A line of one tone.
    pub(crate) fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self(vec![(tone, text.into())])
    }

    /// The line with more at its end.
    #[must_use]
    pub(crate) fn and(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// Its width in terminal cells.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width(text)).sum()
    }

    /// The line in one tone throughout.
    #[must_use]
    pub(crate) fn all(mut self, tone: Tone) -> Self {
        self.0.iter_mut().for_each(|(own, _)| *own = tone);
        self
    }

    /// The line without blanks at its end.
    #[must_use]
    pub(crate) fn trimmed(mut self) -> Self {
        while let Some((_, text)) = self.0.last_mut() {
            text.truncate(text.trim_end_matches(' ').len());
            if !text.is_empty() {
                break;
            }
            self.0.pop();
        }
        self
    }

    /// The line in lines of at most `cells`, broken between words; all but the first are indented.
    /// A word that is longer than that stays whole.
    pub(crate) fn wrapped(self, cells: usize, indent: usize) -> Vec<Self> {
        let mut lines = vec![Self::new()];
        let (mut used, mut may_break) = (0, false);
        let words = self
            .0
            .iter()
            .flat_map(|(tone, text)| text.split_inclusive(' ').map(|word| (*tone, word)));
        for (tone, word) in words {
            if may_break && used > indent && used + width(word.trim_end()) > cells {
                lines.push(Self::of(Tone::Plain, " ".repeat(indent)));
                used = indent;
            }
            used += width(word);
            // A part that begins without a blank goes on with the word before it.
            may_break = word.ends_with(' ');
            if let Some(line) = lines.last_mut() {
                line.0.push((tone, word.to_owned()));
            }
        }
        lines.into_iter().map(Self::trimmed).collect()
    }

    /// The line cut at `cells`, with `…` where something is missing.
    #[must_use]
    pub(crate) fn clipped(mut self, cells: usize) -> Self {
        let mut left = cells;
        if self.width() <= cells {
            return self;
        }
        for (_, text) in &mut self.0 {
            // Not even one cell is kept of what does not fit at all.
            *text = clip(text, left);
            left -= width(text);
        }
        self.0.retain(|(_, text)| !text.is_empty());
        self
    }
}

impl Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(tone, text)| Styled(tone.style(), text).fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words() {
        let line = Spans::of(Tone::Bold, "ok  ")
            .and(Tone::Plain, "one two three")
            .and(Tone::Dim, "; four");
        let texts = |lines: Vec<Spans>| {
            let text =
                |line: &Spans| line.0.iter().map(|(_, text)| text.as_str()).collect::<String>();
            lines.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(texts(line.clone().wrapped(80, 4)), ["ok  one two three; four"]);
        assert_eq!(texts(line.clone().wrapped(11, 4)), ["ok  one two", "    three;", "    four"]);
        assert_eq!(texts(line.wrapped(3, 4)), ["ok  one", "    two", "    three;", "    four"]);
    }

    #[test]
    fn a_line_is_clipped_where_it_ends_whatever_its_parts() {
        let line = Spans::of(Tone::Bold, "abc").and(Tone::Dim, "def").and(Tone::Bad, "ghi");
        let text = |line: &Spans| line.0.iter().map(|(_, text)| text.as_str()).collect::<String>();
        assert_eq!(text(&line.clone().clipped(9)), "abcdefghi");
        assert_eq!(text(&line.clone().clipped(5)), "abcd…");
        assert_eq!(text(&line.clone().clipped(4)), "abc…");
        assert_eq!(text(&line.clone().clipped(0)), "");
        assert_eq!(line.clipped(5).width(), 5);
    }
}
