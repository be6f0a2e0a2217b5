//! Words on the terminal: colours only where one reads them, no control characters from outside.

use std::fmt::{self, Display};
use std::io::{self, Write};

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
