//! The line that says who a proxy is and how it does.

use inferno_shared::NodeVitals;
use inferno_shared::vitals::ServiceState;

use super::fleet::{Fleet, Node};
use super::spans::{Spans, Tone};
use super::words::{duration, one_line};

/// `proxy-1  healthy  0.1.0, up 2 h 1 min, at 127.0.0.1:6100`, the important first.
pub(crate) fn identity(asked: &str, proxy: &NodeVitals) -> Spans {
    let tone = match proxy.state {
        ServiceState::Ready => Tone::Good,
        ServiceState::Loading | ServiceState::Draining => Tone::Warn,
        ServiceState::Stalled => Tone::Bad,
    };
    Spans::of(Tone::Bold, one_line(&proxy.node_id))
        .and(Tone::Plain, "  ")
        .and(tone, proxy.state.word())
        .and(Tone::Plain, format!("  up {}", duration(proxy.uptime_seconds)))
        .and(
            Tone::Dim,
            format!("  {} {} at {asked}", one_line(&proxy.service), one_line(&proxy.version)),
        )
}

/// `3 requests in progress, 997 done, 2 failed`.
pub(crate) fn requests(proxy: &NodeVitals) -> Spans {
    let failed = if proxy.failed_responses > 0 { Tone::Warn } else { Tone::Plain };
    let done = proxy.requests_total.saturating_sub(proxy.requests_in_progress);
    Spans::of(
        Tone::Plain,
        format!("{} requests in progress, {done} done, ", proxy.requests_in_progress),
    )
    .and(failed, format!("{} failed", proxy.failed_responses))
}

/// The other proxies that the asked ones know; none: no line.
pub(crate) fn other_proxies(fleet: &Fleet) -> Option<Spans> {
    let (first, rest) = fleet.proxies.split_first()?;
    let name = |line: Spans, node: &Node| {
        line.and(Tone::Plain, node.id.clone())
            .and(Tone::Plain, " ")
            .and(node.tone(), node.state_word())
    };
    let line = name(Spans::of(Tone::Dim, "other proxies: "), first);
    Some(rest.iter().fold(line, |line, node| name(line.and(Tone::Dim, ", "), node)))
}
