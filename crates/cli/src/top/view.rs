//! The lines of a screen, composed for its size. Pure; what there is no room for is left out, the
//! least important first.

use super::graph::{graph, peak};
use super::input::KEYS;
use super::state::{Source, Top};
use crate::nodes::{Fleet, Node, Spans, Tone, duration, figure, headline, table::Layout};

/// A screen's content.
#[derive(Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) lines: Vec<Spans>,
    /// The line of the selected node.
    pub(super) selected: Option<usize>,
}

/// From this height on there is …
mod least {
    pub(super) const FOOTER: usize = 5;
    pub(super) const SUMMARY: usize = 7;
    pub(super) const TOTAL: usize = 10;
    pub(super) const GRAPHS: usize = 14;
    pub(super) const DETAILS: usize = 16;
    pub(super) const TALL_GRAPHS: usize = 22;
    /// In this many columns.
    pub(super) const TALL_GRAPHS_WIDTH: usize = 60;
}

/// Lines for the selected node, in a narrow terminal.
const DETAILS_MAX: usize = 4;

/// Lines of a tall graph, its title apart.
const TALL: usize = 3;

/// Composes the screen, and scrolls so that the selected row is on it.
pub(super) fn compose(top: &mut Top, width: usize, height: usize) -> View {
    if top.help {
        return View { lines: help(width, height), selected: None };
    }
    let mut lines = header(top, height);
    if height >= least::GRAPHS {
        lines.extend(graphs(top, width, height));
        lines.push(Spans::new());
    }
    let below = below(top, width, height);
    let footers = usize::from(height >= least::FOOTER);
    let last = height.saturating_sub(below.len() + footers);
    let selected = table(top, width, last.saturating_sub(lines.len()), &mut lines);
    // What is below keeps to the bottom.
    lines.resize(last, Spans::new());
    lines.extend(below);
    // After the table, which has scrolled by now.
    lines.extend((footers > 0).then(|| footer(top, width)));
    View { lines: lines.into_iter().map(|line| line.clipped(width)).collect(), selected }
}

/// The proxies, and what they do together.
fn header(top: &Top, height: usize) -> Vec<Spans> {
    if top.sources.is_empty() {
        return vec![Spans::of(Tone::Dim, "asking…")];
    }
    let most = (height / 6).max(1);
    let mut lines: Vec<_> = top.sources.iter().map(|source| proxy(source, top)).collect();
    if lines.len() > most {
        let silent = top.sources.iter().filter(|source| !source.is_live()).count();
        let hidden = lines.len() - (most - 1);
        lines.truncate(most - 1);
        let more = format!(
            "{hidden} {}proxies, {silent} of all silent",
            if most > 1 { "more " } else { "" }
        );
        lines.push(Spans::of(if silent > 0 { Tone::Bad } else { Tone::Dim }, more));
    }
    if height >= least::SUMMARY {
        lines.push(summary(top));
    }
    lines
}

/// One proxy; a silent one with its last known identity dimmed, and why.
fn proxy(source: &Source, top: &Top) -> Spans {
    let identity =
        source.last.as_ref().map(|(answer, _)| headline::identity(&source.asked, &answer.vitals));
    let Some(silence) = &source.silence else {
        return identity.unwrap_or_default();
    };
    let since = source.silent_since.map_or(0, |since| (top.now - since).as_secs());
    let silent = format!("no answer for {}: {}", duration(since), silence.brief());
    let silent = Spans::of(Tone::Bad, silent).and(Tone::Plain, "  ");
    match identity {
        Some(identity) => Spans(silent.0.into_iter().chain(identity.all(Tone::Dim).0).collect()),
        None => silent.and(Tone::Dim, format!("at {}", source.asked)),
    }
}

fn summary(top: &Top) -> Spans {
    let live = || top.sources.iter().filter(|source| source.is_live());
    let vitals =
        || live().filter_map(|source| source.last.as_ref().map(|(answer, _)| &answer.vitals));
    let (all, answering) = (top.sources.len(), live().count());
    let in_progress: u64 = vitals().map(|proxy| proxy.requests_in_progress).sum();
    let failed: u64 = vitals().map(|proxy| proxy.failed_responses).sum();
    let rate: f64 = live().map(|source| source.requests_per_second).sum();
    let mut line = match all {
        1 => Spans::new(),
        all => {
            let tone = if answering < all { Tone::Bad } else { Tone::Plain };
            Spans::of(tone, format!("{answering} of {all} proxies answer: "))
        }
    };
    if answering > 0 {
        line = line
            .and(Tone::Bold, in_progress.to_string())
            .and(Tone::Plain, " requests in progress, ")
            .and(Tone::Bold, figure(rate))
            .and(Tone::Plain, "/s, ")
            .and(if failed > 0 { Tone::Warn } else { Tone::Plain }, format!("{failed} failed"));
    }
    match headline::other_proxies(&top.fleet) {
        Some(others) => Spans(line.and(Tone::Dim, "; ").0.into_iter().chain(others.0).collect()),
        None => line,
    }
}

/// Tokens and requests a second: two lines, or side by side where there is room.
fn graphs(top: &Top, width: usize, height: usize) -> Vec<Spans> {
    let series = [("tokens/s", &top.tokens_per_second), ("requests/s", &top.requests_per_second)];
    let newest = |values: &std::collections::VecDeque<f64>| values.back().copied().unwrap_or(0.0);
    if height < least::TALL_GRAPHS || width < least::TALL_GRAPHS_WIDTH {
        let line = |(name, values): (&str, _)| {
            let label = format!("{name:<10} {:>7} ", figure(newest(values)));
            let cells = width.saturating_sub(label.len());
            Spans::of(Tone::Dim, label).and(Tone::Good, graph(values, cells, 1).concat())
        };
        return series.map(line).to_vec();
    }
    let half = (width - 2) / 2;
    let column = |(name, values): (&str, &std::collections::VecDeque<f64>)| {
        let shown: Vec<f64> =
            values.iter().copied().skip(values.len().saturating_sub(half)).collect();
        let title = format!("{name} {}, peak {}", figure(newest(values)), figure(peak(&shown)));
        let lines = graph(values, half, TALL).into_iter().map(|line| (Tone::Good, line));
        std::iter::once((Tone::Dim, format!("{title:<half$}"))).chain(lines).collect::<Vec<_>>()
    };
    let [left, right] = series.map(column);
    let joined = left.into_iter().zip(right);
    joined.map(|(left, right)| Spans(vec![left, (Tone::Plain, "  ".into()), right])).collect()
}

/// What stands below the table: the sum, and the selected node.
fn below(top: &Top, width: usize, height: usize) -> Vec<Spans> {
    let mut lines = Vec::new();
    if height >= least::TOTAL && top.fleet.backends.len() > 1 {
        lines.push(Layout::of(&top.fleet, Some(width)).total(&top.fleet));
    }
    if height >= least::DETAILS
        && let Some(node) = top.selected_node()
    {
        let details = details(node).into_iter().flat_map(|line| line.wrapped(width, 2));
        lines.extend(details.take(DETAILS_MAX));
    }
    lines
}

/// What the table has no room for.
fn details(node: &Node) -> [Spans; 2] {
    let fingerprint = node.fingerprint.as_deref().unwrap_or("not known yet");
    [
        Spans::of(Tone::Bold, node.id.clone()).and(
            Tone::Plain,
            format!(
                "  traffic {}, operations {}, generation {}",
                node.address, node.operations, node.generation
            ),
        ),
        Spans::of(
            Tone::Plain,
            format!("models {}, fingerprint {fingerprint}", node.models.join(", ")),
        ),
    ]
}

fn footer(top: &Top, width: usize) -> Spans {
    let keys = Spans::of(Tone::Dim, "q quit  ? help  <> sort  r reverse  p pause");
    let keys = if top.paused { paused().and(Tone::Dim, "  p goes on  q quit") } else { keys };
    let nodes = top.fleet.backends.len();
    if nodes == 0 {
        return keys;
    }
    let first = top.first_row + 1;
    let position = format!("{first}-{} of {nodes}", (top.first_row + top.page()).min(nodes));
    let keys = keys.clipped(width.saturating_sub(position.len() + 1));
    let gap = width.saturating_sub(keys.width() + position.len());
    keys.and(Tone::Plain, " ".repeat(gap)).and(Tone::Dim, position)
}

fn paused() -> Spans {
    Spans::of(Tone::Warn, "PAUSED")
}

/// The table in `room` lines, after `lines`; returns the line of the selected node.
fn table(top: &mut Top, width: usize, room: usize, lines: &mut Vec<Spans>) -> Option<usize> {
    let rows = room.checked_sub(1)?;
    if top.fleet.backends.is_empty() {
        lines.extend(empty(top));
        return None;
    }
    let layout = Layout::of(&top.fleet, Some(width));
    top.fit(rows, layout.columns().collect());
    lines.push(layout.head(Some((top.sort, if top.descending { "▼" } else { "▲" }))));
    let shown = top.fleet.backends.iter().skip(top.first_row).take(rows);
    let start = lines.len();
    lines.extend(shown.map(|node| layout.row(node)));
    let selected = top.selected_row()?.checked_sub(top.first_row)?;
    (selected < rows).then_some(start + selected)
}

fn empty(top: &Top) -> Option<Spans> {
    let Fleet { backends, .. } = &top.fleet;
    let heard = top.sources.iter().any(|source| source.last.is_some());
    (backends.is_empty() && heard).then(|| Spans::of(Tone::Dim, "no backend has registered yet"))
}

/// What the words of the table mean.
const NOTES: [&str; 6] = [
    "",
    "joining   heard, but it has not proved itself or is not ready",
    "suspect   missed a check, or says that it cannot serve",
    "draining  finishes what it has; gone: out",
    "1/2       so many of the proxies see it so; the others do otherwise",
    "dimmed    known from a proxy that is silent now",
];

/// The help page.
fn help(width: usize, height: usize) -> Vec<Spans> {
    let key_cells = KEYS.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, what): &(&str, &str)| {
        Spans::of(Tone::Bold, format!("{key:<key_cells$}  ")).and(Tone::Plain, *what)
    };
    let lines = KEYS.iter().map(line).chain(NOTES.map(|note| Spans::of(Tone::Dim, note)));
    lines.take(height).map(|line| line.clipped(width)).collect()
}
