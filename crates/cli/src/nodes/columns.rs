//! The columns of the node table: what stands in them, how they sort, which goes first when space
//! is short.

use std::cmp::Ordering;

use inferno_shared::membership::ReportedLoad;

use super::fleet::{Node, Totals, rank};
use super::spans::Tone;
use super::words::figure;

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Node,
    State,
    Address,
    Models,
    InFlight,
    Queue,
    Tokens,
    Kv,
    Cpu,
    Memory,
    Gpu,
}

use Column::{Address, Cpu, Gpu, InFlight, Kv, Memory, Models, Node as Name, Queue, State, Tokens};

impl Column {
    /// From left to right.
    pub(crate) const ALL: [Self; 11] =
        [Name, State, Address, Models, InFlight, Queue, Tokens, Kv, Cpu, Memory, Gpu];

    /// In a narrow terminal the last of these goes first.
    const BY_IMPORTANCE: [Self; 11] =
        [Name, State, Tokens, InFlight, Queue, Kv, Gpu, Cpu, Models, Memory, Address];

    /// The smaller, the longer it stays.
    pub(super) fn importance(self) -> usize {
        Self::BY_IMPORTANCE.iter().position(|column| *column == self).unwrap_or(usize::MAX)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Name => "NODE",
            State => "STATE",
            Address => "ADDRESS",
            Models => "MODELS",
            InFlight => "IN FLIGHT",
            Queue => "QUEUE",
            Tokens => "TOKENS/S",
            Kv => "KV %",
            Cpu => "CPU %",
            Memory => "MEM %",
            Gpu => "GPU %",
        }
    }

    /// Text is set to the left, numbers to the right.
    pub(crate) fn is_number(self) -> bool {
        !matches!(self, Name | State | Address | Models)
    }

    /// What stands in it for `node`.
    pub(super) fn cell(self, node: &Node) -> String {
        let reported = |show: fn(&ReportedLoad) -> String| match &node.reported {
            Some(load) => show(load),
            None => "-".to_owned(),
        };
        match self {
            Name => node.id.clone(),
            State => node.state_word(),
            Address => node.address.to_string(),
            Models => node.models.join(","),
            InFlight => node.in_flight.to_string(),
            Queue => reported(|load| load.queue_depth.to_string()),
            Tokens => reported(|load| figure(load.tokens_per_second)),
            Kv => reported(|load| percent(load.kv_cache_usage)),
            Cpu => reported(|load| percent(load.cpu_usage)),
            Memory => reported(|load| percent(load.memory_usage)),
            Gpu => reported(|load| percent(load.gpu_usage)),
        }
    }

    /// How it looks: a state in its colour, a resource that runs out as a warning.
    pub(super) fn tone(self, node: &Node) -> Tone {
        let load = node.reported.unwrap_or_default();
        match self {
            _ if node.stale => Tone::Dim,
            State => node.tone(),
            Kv if load.kv_cache_usage >= 90.0 => Tone::Warn,
            Memory if load.memory_usage >= 90.0 => Tone::Warn,
            Queue if load.queue_depth > 0 => Tone::Warn,
            Address | Models => Tone::Dim,
            _ => Tone::Plain,
        }
    }

    /// What stands in it for all nodes together.
    pub(super) fn total(self, totals: &Totals) -> String {
        match self {
            Name => format!("{} nodes", totals.nodes),
            State => format!("{} ready", totals.ready),
            Address | Models => String::new(),
            InFlight => totals.in_flight.to_string(),
            Queue => totals.queue_depth.to_string(),
            Tokens => figure(totals.tokens_per_second),
            Kv => percent(totals.kv_cache_usage),
            Cpu => percent(totals.cpu_usage),
            Memory => percent(totals.memory_usage),
            Gpu => percent(totals.gpu_usage),
        }
    }

    /// Which of two nodes comes first in ascending order of it.
    pub(crate) fn compare(self, a: &Node, b: &Node) -> Ordering {
        let load = |node: &Node| node.reported.unwrap_or_default();
        let (x, y) = (load(a), load(b));
        match self {
            Name => a.id.cmp(&b.id),
            State => rank(a.state).cmp(&rank(b.state)),
            Address => a.address.cmp(&b.address),
            Models => a.models.cmp(&b.models),
            InFlight => a.in_flight.cmp(&b.in_flight),
            Queue => x.queue_depth.cmp(&y.queue_depth),
            Tokens => x.tokens_per_second.total_cmp(&y.tokens_per_second),
            Kv => x.kv_cache_usage.total_cmp(&y.kv_cache_usage),
            Cpu => x.cpu_usage.total_cmp(&y.cpu_usage),
            Memory => x.memory_usage.total_cmp(&y.memory_usage),
            Gpu => x.gpu_usage.total_cmp(&y.gpu_usage),
        }
    }
}

fn percent(value: f64) -> String {
    format!("{value:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_an_importance_of_its_own() {
        let mut ranks = Column::ALL.map(Column::importance);
        ranks.sort_unstable();
        assert_eq!(ranks, std::array::from_fn(|index| index));
    }
}
