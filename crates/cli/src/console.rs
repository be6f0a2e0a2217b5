//! Words on the terminal: colours only where one reads them, no control characters from outside.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write, stderr, stdout};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// What is not the point of a line.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What is.
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();

/// Text in a style. Where colours are unwanted, `anstream` takes them out.
pub(crate) struct Styled<T>(pub(crate) Style, pub(crate) T);

impl<T: Display> Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, text) = self;
        write!(f, "{style}{text}{style:#}")
    }
}

/// The terminal's width in cells, if standard output is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let (width, _) = ratatui::crossterm::terminal::size().ok()?;
    stdout().is_terminal().then_some(usize::from(width)).filter(|width| *width > 0)
}

/// Whether standard output gets colours: a terminal that was not told otherwise, or `--color always`.
pub(crate) fn colours_on_stdout() -> bool {
    AutoStream::choice(&stdout()) != ColorChoice::Never
}

/// The same for standard error.
pub(crate) fn colours_on_stderr() -> bool {
    AutoStream::choice(&stderr()) != ColorChoice::Never
}

/// Whether the terminal shows more than ASCII, as far as the locale says (POSIX: the first of these
/// variables that is set decides).
pub(crate) fn speaks_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| is_utf8(&locale))
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.ends_with("utf-8") || locale.ends_with("utf8")
}

/// One line on standard output.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    writeln!(anstream::stdout(), "{text}")
}

/// One line on standard error. There is nobody left to tell if that fails.
pub(crate) fn note(text: impl Display) {
    writeln!(anstream::stderr(), "{text}").ok();
}

/// The one sentence of a failure.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("{} {}", Styled(BAD.bold(), "error:"), sentence(error)));
}

/// An error with its causes, less those that its text already tells.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

/// Whether a failure is only that nobody reads what we print.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(of_io)
}

/// Text from a model or a server without what could steer the terminal: control characters other
/// than line feed and tab (C0, DEL and C1, among them the beginning of every escape sequence).
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// A size for people: `93.8 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_their_teeth() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{9b}31mc\r\nd\te\u{7f}"), "a[2Jb31mc\nd\te");
    }

    #[test]
    fn a_locale_says_whether_it_is_utf8() {
        for (locale, expected) in
            [("C", false), ("C.UTF-8", true), ("de_DE.utf8", true), ("de_DE@euro", false)]
        {
            assert_eq!(is_utf8(locale), expected, "{locale}");
        }
    }

    #[test]
    fn no_cause_is_told_twice() {
        let error = anyhow::anyhow!("in use").context("cannot bind: in use").context("no port");
        assert_eq!(sentence(&error), "no port: cannot bind: in use");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(98_362_432), "93.8 MiB");
        assert_eq!(size(512), "0.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}
