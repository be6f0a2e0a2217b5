//! What a reader must know to read the figures right.

use super::report::Report;

/// Above this share of its threads' time the client may have been the bottleneck.
const BUSY_PERCENT: f64 = 80.0;
/// Sending later than this is worth a word.
const LATE_MS: f64 = 10.0;
/// More tokens than this in an event, and inter-token latency is not what it seems.
const MERGED: f64 = 1.05;
/// Prompts further from the length asked for than this.
const LENGTH_TOLERANCE: f64 = 0.1;

impl Report {
    /// A sentence for each.
    pub(super) fn notes(&self) -> Vec<String> {
        let notes = [
            self.interrupted(),
            self.held(),
            self.late(),
            self.busy(),
            self.merged(),
            self.uncounted(),
            self.other_lengths(),
            self.clipped(),
            self.cold(),
        ];
        notes.into_iter().flatten().collect()
    }

    fn interrupted(&self) -> Option<String> {
        let cut = self.requests.in_flight;
        self.interrupted.then(|| {
            format!("interrupted; {cut} requests were under way and count neither as completed nor as failed")
        })
    }

    fn held(&self) -> Option<String> {
        let held = self.requests.held;
        (held > 0).then(|| {
            format!(
                "{held} requests were sent late because {} were in flight already (--max-in-flight); their latencies count from their scheduled times",
                self.setup.load.in_flight_max()
            )
        })
    }

    fn late(&self) -> Option<String> {
        let late = self.client.lateness_ms.filter(|late| late.p99 > LATE_MS)?;
        (self.requests.held == 0).then(|| {
            format!(
                "the client sent 1 % of the requests {:.0} ms late or more: it, or its machine, was too busy, and latencies include that",
                late.p99
            )
        })
    }

    fn busy(&self) -> Option<String> {
        let percent = self.client.cpu_percent;
        (percent > BUSY_PERCENT).then(|| {
            format!(
                "the client used {percent:.0} % of its threads' time: it may have been the bottleneck; try --threads {}",
                self.setup.threads * 2
            )
        })
    }

    fn merged(&self) -> Option<String> {
        let events = self.tokens.stream_events.max(1) as f64;
        let tokens_per_event = self.tokens.completion as f64 / events;
        (self.setup.stream && tokens_per_event > MERGED).then(|| {
            format!(
                "the server put {tokens_per_event:.1} tokens into an event: inter-token latency is per event, TPOT per token"
            )
        })
    }

    fn uncounted(&self) -> Option<String> {
        let uncounted = self.tokens.answers_without_usage;
        (uncounted > 0).then(|| {
            format!(
                "{uncounted} answers came without `usage`: their events were counted as tokens, their prompts not at all"
            )
        })
    }

    fn other_lengths(&self) -> Option<String> {
        let asked = self.tokens.prompt_asked as f64;
        let ratio = self.tokens.prompt as f64 / asked;
        let is_known = asked > 0.0 && self.tokens.answers_without_usage == 0;
        (is_known && (ratio - 1.0).abs() > LENGTH_TOLERANCE).then(|| {
            let why = if ratio > 1.0 { " (its chat template adds some)" } else { "" };
            format!("prompts had {ratio:.2} times the tokens asked for, by the server's count{why}")
        })
    }

    fn clipped(&self) -> Option<String> {
        let file = self.file.filter(|file| file.clipped > 0)?;
        Some(format!(
            "{} of the file's {} requests were cut to fit --max-context",
            file.clipped, file.entries
        ))
    }

    fn cold(&self) -> Option<String> {
        let failed = self.requests.warmup.failed;
        (failed > 0).then(|| format!("{failed} requests of the warm-up failed"))
    }
}
