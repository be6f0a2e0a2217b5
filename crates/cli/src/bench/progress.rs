//! What a person sees while a run goes on: on a terminal one line that changes, elsewhere a line every
//! few seconds, all on standard error.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use terminal_size::{Width, terminal_size_of};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::figures::Figures;
use super::table::{grouped, ms};
use super::watch::Recorder;
use crate::console::note;

const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// The speed shown is that of about the last so many seconds.
const SPEED_WINDOW_S: f64 = 2.0;
/// Terminals narrower than this have room for words or for a bar, not for both.
const WIDE: u16 = 110;

/// How far a phase has come is measured by what will end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Requests(u64),
    Time(Duration),
}

/// The display of one phase; gone when dropped.
pub(super) struct Progress {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

/// Tokens a second, smoothed, from a count that only grows.
#[derive(Debug, Default)]
struct Speed {
    tokens: u64,
    per_second: Option<f64>,
}

impl Progress {
    /// Nothing is shown.
    pub(super) fn quiet() -> Self {
        Self { task: None, bar: None }
    }

    /// Shows what `recorder` has, until dropped.
    pub(super) fn show(phase: &'static str, goal: Goal, recorder: Recorder) -> Self {
        let bar = stderr().is_terminal().then(|| bar(goal));
        let every = if bar.is_some() { TERMINAL_INTERVAL } else { LINE_INTERVAL };
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut speed = Speed::default();
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let elapsed = started.elapsed();
                let figures = recorder.figures();
                let tokens_per_second = speed.after(every, tokens(&figures));
                let line = line(phase, elapsed, &figures, tokens_per_second);
                let position = goal.position(elapsed, figures.completed + figures.failed);
                // Not while we write.
                drop(figures);
                match &shown {
                    Some(bar) => {
                        bar.set_position(position);
                        bar.set_message(line);
                    }
                    None => note(line),
                }
            }
        });
        Self { task: Some(task), bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Goal {
    fn length(self) -> u64 {
        match self {
            Self::Requests(requests) => requests,
            Self::Time(time) => time.as_millis() as u64,
        }
    }

    fn position(self, elapsed: Duration, ended: u64) -> u64 {
        match self {
            Self::Requests(requests) => ended.min(requests),
            Self::Time(time) => elapsed.min(time).as_millis() as u64,
        }
    }
}

impl Speed {
    /// An exponential average over the window.
    fn after(&mut self, passed: Duration, tokens: u64) -> f64 {
        let now = (tokens - self.tokens) as f64 / passed.as_secs_f64();
        self.tokens = tokens;
        let weight = 1.0 - (-passed.as_secs_f64() / SPEED_WINDOW_S).exp();
        let before = self.per_second.unwrap_or(now);
        *self.per_second.insert(before + weight * (now - before))
    }
}

/// Tokens so far: a stream's as they come, other answers' when they are whole.
fn tokens(figures: &Figures) -> u64 {
    figures.tokens.events.max(figures.tokens.completion)
}

fn line(phase: &str, elapsed: Duration, figures: &Figures, tokens_per_second: f64) -> String {
    let mut line = format!(
        "{phase}{} s  {} done  {} failed  {} in flight  {tokens_per_second:.1} tokens/s",
        elapsed.as_secs(),
        grouped(figures.completed),
        grouped(figures.failed),
        figures.in_flight(),
    );
    let (name, latencies) = match figures.ttft.count() {
        0 => ("end-to-end", &figures.end_to_end),
        _ => ("TTFT", &figures.ttft),
    };
    if latencies.count() > 0 {
        let [p50, p99] = [0.5, 0.99].map(|quantile| ms(latencies.quantile_ms(quantile)));
        line.push_str(&format!("  {name} p50 {p50} p99 {p99} ms"));
    }
    line
}

fn bar(goal: Goal) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(goal.length()), target);
    let width = terminal_size_of(stderr()).map_or(0, |(Width(width), _)| width);
    let template = if width < WIDE { "{wide_msg}" } else { "[{bar:20.green}] {wide_msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.tick();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_there_is() {
        let mut figures = Figures::default();
        assert_eq!(
            line("", Duration::from_secs(3), &figures, 0.0),
            "3 s  0 done  0 failed  0 in flight  0.0 tokens/s"
        );
        figures.sent(Duration::ZERO);
        figures.first_content(Duration::from_millis(20));
        assert_eq!(
            line("warm-up: ", Duration::from_secs(4), &figures, 51.25),
            "warm-up: 4 s  0 done  0 failed  1 in flight  51.2 tokens/s  TTFT p50 20.0 p99 20.0 ms"
        );
    }

    #[test]
    fn the_speed_follows_and_is_smooth() {
        let mut speed = Speed::default();
        let second = Duration::from_secs(1);
        assert!((speed.after(second, 100) - 100.0).abs() < 1e-9);
        let slower = speed.after(second, 100);
        assert!(slower > 0.0 && slower < 100.0, "{slower}");
        let at_rest = (0..30).fold(0.0, |_, _| speed.after(second, 100));
        assert!(at_rest < 0.1, "{at_rest}");
    }

    #[test]
    fn a_phase_ends_by_requests_or_by_time() {
        let second = Duration::from_secs(1);
        assert_eq!(Goal::Requests(10).position(second, 4), 4);
        assert_eq!(
            (Goal::Time(4 * second).length(), Goal::Time(4 * second).position(second, 9)),
            (4000, 1000)
        );
        assert_eq!(Goal::Time(second).position(4 * second, 9), 1000);
    }
}
