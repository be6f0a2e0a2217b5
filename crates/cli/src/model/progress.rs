//! How far a transfer has come, told to a person or to a log.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::console::colours_on_stderr;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Hears how a pull goes on: stages one after the other, then the end, good or bad.
pub trait Progress {
    /// A stage begins, and the one before it is over: `what` is a verb such as `downloading`; `total_bytes` is `None` if nobody
    /// knows.
    fn begin(&mut self, what: &str, total_bytes: Option<u64>);
    /// So many bytes of the stage are done. Falls back when a server makes us start again.
    fn advance_to(&mut self, bytes: u64);
    /// Nothing more is transferred.
    fn finish(&mut self);
    /// Something worth a line: where the model comes from, a retry, a wait.
    fn note(&mut self, text: &str);
}

/// Which tenths of a transfer have been passed: a line each 10 % where a bar would be noise.
#[derive(Debug, Default)]
pub struct Milestones {
    total_bytes: Option<u64>,
    told_percent: u64,
}

impl Milestones {
    /// A transfer of `total_bytes`, of which nothing has been told.
    pub fn of(total_bytes: Option<u64>) -> Self {
        Self { total_bytes, told_percent: 0 }
    }

    /// The percentage to tell now, if a new tenth was reached.
    pub fn passed(&mut self, bytes: u64) -> Option<u64> {
        let total = self.total_bytes.filter(|total| *total > 0)?;
        let percent = (u128::from(bytes) * 10 / u128::from(total)) as u64 * 10;
        let is_new = percent > self.told_percent;
        self.told_percent = self.told_percent.max(percent);
        is_new.then_some(percent)
    }
}

/// On standard error: a bar on a terminal, a line at each 10 % elsewhere.
#[derive(Debug, Default)]
pub struct TerminalProgress {
    bar: Option<ProgressBar>,
    milestones: Milestones,
    what: String,
}

impl Progress for TerminalProgress {
    fn begin(&mut self, what: &str, total_bytes: Option<u64>) {
        self.finish();
        self.what = what.to_owned();
        self.milestones = Milestones::of(total_bytes);
        if stderr().is_terminal() {
            self.bar = Some(bar(what, total_bytes));
        }
    }

    fn advance_to(&mut self, bytes: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(bytes),
            None => {
                if let Some(percent) = self.milestones.passed(bytes) {
                    line(&format!("{}: {percent} %", self.what));
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => line(text),
        }
    }
}

/// A line on standard error; nobody to read it is no reason to fail.
fn line(text: &str) {
    writeln!(stderr(), "{text}").ok();
}

fn bar(what: &str, total_bytes: Option<u64>) -> ProgressBar {
    const KNOWN: &str =
        "{msg:>12} [{bar:32.green}] {bytes:>10} of {total_bytes}, {bytes_per_sec}, {eta} left";
    const UNKNOWN: &str = "{msg:>12} {spinner} {bytes:>10}, {bytes_per_sec}";
    let template = if total_bytes.is_some() { KNOWN } else { UNKNOWN };
    let template = match colours_on_stderr() {
        true => template.to_owned(),
        false => template.replace(".green", ""),
    };
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::Milestones;

    #[test]
    fn each_tenth_is_told_once() {
        let mut milestones = Milestones::of(Some(1000));
        let told: Vec<_> = (0..=1000).step_by(7).filter_map(|n| milestones.passed(n)).collect();
        assert_eq!(told, [10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert_eq!(milestones.passed(1000), Some(100));
        assert_eq!(milestones.passed(500), None);
        assert_eq!(milestones.passed(1000), None);
    }

    #[test]
    fn a_transfer_of_unknown_length_tells_nothing() {
        assert_eq!(Milestones::of(None).passed(1 << 40), None);
        assert_eq!(Milestones::of(Some(0)).passed(1), None);
    }
}
