//! The report for people.

use std::fmt::Write;

use anstream::adapter::strip_str;
use anstyle::Style;

use super::latency::Summary;
use super::plan::{Load, Plan, Prompts};
use super::report::Report;
use super::schedule::Arrivals;
use super::template::Endpoint;
use super::workload::TokenRange;
use crate::console::{BAD, BOLD, DIM, Styled, WARN, harmless};

/// Where values begin.
const LABEL: usize = 14;
/// Width of a column of figures.
const COLUMN: usize = 10;
/// From this width on, a latency's mean and all percentiles are shown; else the three that matter most.
const WIDE: usize = LABEL + 7 * COLUMN;

type Column = (&'static str, fn(&Summary) -> String);

const COLUMNS: [Column; 7] = [
    ("mean", |s| ms(s.mean)),
    ("p50", |s| ms(s.p50)),
    ("p90", |s| ms(s.p90)),
    ("p95", |s| ms(s.p95)),
    ("p99", |s| ms(s.p99)),
    ("max", |s| ms(s.max)),
    ("count", |s| grouped(s.count)),
];
const FEW: [usize; 3] = [1, 4, 5];

/// All of it, for a terminal of `width` columns.
pub(crate) fn table(report: &Report, width: usize) -> String {
    let sections = [
        headline(&report.setup, width),
        totals(report, width),
        latencies(report, width),
        errors(report, width),
    ];
    let mut text = sections.concat();
    for note in report.notes() {
        let note = wrapped(&note, width.saturating_sub(2), 2);
        let _ = writeln!(text, "{} {note}", Styled(WARN, "!"));
    }
    text.trim_end().to_owned()
}

fn headline(plan: &Plan, width: usize) -> String {
    let model = harmless(plan.model.as_deref().unwrap_or_default());
    let endpoint = match plan.endpoint {
        Endpoint::Chat => "chat",
        Endpoint::Completions => "completions",
    };
    let streamed = if plan.stream { "streamed" } else { "not streamed" };
    let what = format!("{} at {}, {endpoint}, {streamed}", Styled(BOLD, model), plan.url);
    let how = format!("{}; {}", load(plan.load), prompts(plan));
    format!(
        "{}\n{}\n\n",
        wrapped(&what, width.saturating_sub(2), 2),
        wrapped(&how, width.saturating_sub(2), 2)
    )
}

fn load(load: Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("closed loop, {concurrency} at a time"),
        Load::Open { rate, arrivals, .. } => {
            let arrivals = match arrivals {
                Arrivals::Poisson => "Poisson",
                Arrivals::Constant => "constant",
            };
            format!("open loop, {rate} requests/s, {arrivals} arrivals")
        }
        Load::Trace { speed: 1.0, .. } => "open loop, at the trace's times".to_owned(),
        Load::Trace { speed, .. } => format!("open loop, at {speed} times the trace's speed"),
    }
}

fn prompts(plan: &Plan) -> String {
    let answers = format!("answers of at most {} tokens", plan.max_tokens);
    match &plan.prompts {
        Prompts::Synthetic { tokens: TokenRange { least, most }, shared_prefix } => {
            let length = if least == most { least.to_string() } else { format!("{least}..{most}") };
            let shared = match shared_prefix {
                0 => String::new(),
                shared => format!(", the first {shared} shared"),
            };
            format!("prompts of {length} tokens{shared}; {answers}")
        }
        Prompts::Text { .. } => format!("one prompt for all; {answers}"),
        Prompts::File { path, .. } => format!("requests from {}", path.display()),
    }
}

fn totals(report: &Report, width: usize) -> String {
    let requests = &report.requests;
    let mut done = format!("{} completed, {} failed", grouped(requests.completed), failed(report));
    if requests.warmup.completed > 0 {
        let _ = write!(done, " (after a warm-up of {}, not counted)", requests.warmup.completed);
    }
    let mut rows = vec![("requests", done), ("duration", format!("{:.2} s", report.elapsed_s))];
    let throughput = &report.throughput;
    rows.push((
        "throughput",
        format!(
            "{} requests/s, {} output tokens/s, {} tokens/s in all",
            rate(throughput.requests_per_s),
            rate(throughput.output_tokens_per_s),
            rate(throughput.total_tokens_per_s)
        ),
    ));
    if let Some(goodput) = report.goodput {
        let percent = 100.0 * goodput.share;
        let rate = rate(goodput.requests_per_s);
        rows.push(("goodput", format!("{rate} requests/s within the objectives, {percent:.1} %")));
    }
    rows.push(("tokens", tokens(report)));
    if !report.finish_reasons.is_empty() {
        let reasons = report.finish_reasons.iter();
        let reasons: Vec<_> =
            reasons.map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
        rows.push(("finished by", reasons.join(", ")));
    }
    rows.push(("client", client(report)));
    rows.into_iter().map(|(label, value)| row(DIM, label, &value, width)).collect::<String>() + "\n"
}

fn failed(report: &Report) -> String {
    match report.requests.failed {
        0 => "0".to_owned(),
        failed => {
            let percent = 100.0 * report.requests.error_rate;
            format!("{}", Styled(BAD, format_args!("{} ({percent:.1} %)", grouped(failed))))
        }
    }
}

fn tokens(report: &Report) -> String {
    let each = |tokens: u64| tokens as f64 / report.requests.completed.max(1) as f64;
    let tokens = &report.tokens;
    format!(
        "{} prompt ({:.1} a request), {} completion ({:.1})",
        grouped(tokens.prompt),
        each(tokens.prompt),
        grouped(tokens.completion),
        each(tokens.completion)
    )
}

fn client(report: &Report) -> String {
    let client = &report.client;
    let threads = match report.setup.threads {
        1 => "one thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    let mut text = format!("{:.0} % of {threads}", client.cpu_percent);
    if let (Some(late), false) =
        (client.lateness_ms, matches!(report.setup.load, Load::Closed { .. }))
    {
        let _ = write!(text, "; sent late by {} ms (p50), {} ms (p99)", ms(late.p50), ms(late.p99));
    }
    text
}

fn latencies(report: &Report, width: usize) -> String {
    let latency = &report.latency_ms;
    let kinds = [
        ("TTFT", latency.ttft),
        ("TPOT", latency.tpot),
        ("inter-token", latency.inter_token),
        ("end-to-end", latency.end_to_end),
    ];
    if kinds.iter().all(|(_, summary)| summary.is_none()) {
        return String::new();
    }
    let chosen: Vec<&Column> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(index, _)| width >= WIDE || FEW.contains(index))
        .map(|(_, column)| column)
        .collect();
    let names: String = chosen.iter().map(|(name, _)| format!("{name:>COLUMN$}")).collect();
    let mut text = format!("{}\n", Styled(DIM, format_args!("{:<LABEL$}{names}", "ms")));
    for (name, summary) in kinds {
        let Some(summary) = summary else { continue };
        let cells: String =
            chosen.iter().map(|(_, cell)| format!("{:>COLUMN$}", cell(&summary))).collect();
        let _ = writeln!(text, "{}{cells}", Styled(BOLD, format_args!("{name:<LABEL$}")));
    }
    text + "\n"
}

fn errors(report: &Report, width: usize) -> String {
    let mut text = String::new();
    for (kind, errors) in &report.errors {
        let value = format!("{}: {}", grouped(errors.count), errors.example);
        text.push_str(&row(BAD, kind.name(), &value, width));
    }
    if text.is_empty() { text } else { text + "\n" }
}

fn row(style: Style, label: &str, value: &str, width: usize) -> String {
    let label = Styled(style, format_args!("{label:<LABEL$}"));
    format!("{label}{}\n", wrapped(value, width.saturating_sub(LABEL), LABEL))
}

/// Milliseconds: no more digits than were measured.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..1000.0 => format!("{ms:.1}"),
        _ => grouped(ms.round() as u64),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        ..10.0 => format!("{rate:.2}"),
        ..1000.0 => format!("{rate:.1}"),
        _ => grouped(rate.round() as u64),
    }
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines of `width` characters at most, broken between words; those after the first are moved right by
/// `indent`.
fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = strip_str(word).to_string().chars().count();
        if used == 0 {
            used = length;
        } else if used + 1 + length <= width {
            wrapped.push(' ');
            used += 1 + length;
        } else {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = length;
        }
        wrapped.push_str(word);
    }
    wrapped
}

#[cfg(test)]
mod tests;
