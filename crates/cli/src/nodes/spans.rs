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
