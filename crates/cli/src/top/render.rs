//! Paints lines into cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::view::View;
use crate::nodes::{Spans, Tone};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Theme {
    /// The sixteen colours that every terminal has; without them the words say it all.
    pub(super) colours: bool,
    /// More than ASCII.
    pub(super) unicode: bool,
}

impl Theme {
    fn style(self, tone: Tone) -> Style {
        let coloured = |colour| if self.colours { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Bold => Style::new().add_modifier(Modifier::BOLD),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red),
        }
    }

    fn text(self, text: &str) -> String {
        if self.unicode { text.to_owned() } else { text.chars().map(ascii).collect() }
    }

    fn line(self, line: &Spans) -> Line<'static> {
        let span = |(tone, text): &(Tone, String)| Span::styled(self.text(text), self.style(*tone));
        line.0.iter().map(span).collect()
    }
}

/// What stands for a character where only ASCII can be shown.
fn ascii(c: char) -> char {
    match c {
        '…' => '~',
        '▲' => '^',
        '▼' => 'v',
        '▁' | '▂' => '.',
        '▃' | '▄' => ':',
        '▅' | '▆' => '|',
        '▇' | '█' => '#',
        c if c.is_ascii() => c,
        _ => '?',
    }
}

/// Paints `view` over the whole of `area`.
pub(super) fn paint(view: &View, theme: Theme, area: Rect, buffer: &mut Buffer) {
    for (index, line) in view.lines.iter().take(usize::from(area.height)).enumerate() {
        let y = area.y + index as u16;
        buffer.set_line(area.x, y, &theme.line(line), area.width);
        if view.selected == Some(index) {
            let row = Rect { y, height: 1, ..area };
            buffer.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}
