//! What a metric is, said once: the same row registers it and documents it, so that the page in
//! `docs/` cannot drift from what a process says.

use prometheus::{HistogramOpts, Opts};

/// One metric of a crate's table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// In base units and with their name, as Prometheus wants it.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [Label],
    /// Of the value: `seconds`, `requests`, `percent`.
    pub unit: &'static str,
    /// What it counts, in one sentence.
    pub help: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only up, from 0 at the start of the process.
    Counter,
    /// Up and down.
    Gauge,
    /// How often a value was at most each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As the text form says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One label. Its values come from a fixed set, or from configured models and registered nodes:
/// never from a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a label can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One value for each of these things.
    Each(&'static str),
}

/// Takes a value of a metric, with the values of its labels.
pub type Emit<'a> = dyn FnMut(&[&str], f64) + 'a;

impl Metric {
    pub(super) fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }

    pub(super) fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    pub(super) fn histogram_options(&self) -> HistogramOpts {
        let options = HistogramOpts::from(self.options());
        match self.kind {
            Kind::Histogram(bounds) => options.buckets(bounds.to_vec()),
            _ => options,
        }
    }
}

/// Statuses that are common get a label value of their own, the rest one by their class: whoever
/// answers may answer anything, and a label must not.
pub const STATUS: Label = Label { name: "status", values: Values::OneOf(&STATUSES) };

const STATUSES: [&str; 22] = [
    "200", "400", "401", "403", "404", "405", "408", "409", "413", "422", "429", "499", "500",
    "501", "502", "503", "504", "2xx", "3xx", "4xx", "5xx", "other",
];

/// The value of [`STATUS`] for `status`.
pub fn status_label(status: u16) -> &'static str {
    let exact = STATUSES.iter().find(|label| label.parse::<u16>() == Ok(status));
    exact.copied().unwrap_or(match status / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_status_has_a_label_of_the_set_and_every_label_a_status() {
        assert_eq!(
            (status_label(200), status_label(204), status_label(418)),
            ("200", "2xx", "4xx")
        );
        let said: BTreeSet<&str> = (0..=u16::MAX).map(status_label).collect();
        assert_eq!(said, BTreeSet::from(STATUSES));
    }
}
