//! Prometheus text 0.0.4, written from what never changes, which is kept ready, and the values.
//!
//! `prometheus::TextEncoder` says the same, as a test holds, and takes three times as long: a page of
//! a backend is mostly histogram buckets, whose every line it puts together anew.

use super::describe::{Emit, Kind, Metric};
use prometheus::{core::Collector, proto};
use std::fmt::Write;

/// A metric, and the parts of its text that do not change.
pub(super) struct Row {
    pub(super) metric: Metric,
    head: String,
    /// The bounds of its buckets, the last being all there is.
    bounds: Vec<String>,
}

impl Row {
    pub(super) fn new(metric: Metric) -> Self {
        let Metric { name, kind, help, .. } = metric;
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let head = format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
        let bounds = match kind {
            Kind::Histogram(bounds) => {
                bounds.iter().map(f64::to_string).chain(["+Inf".into()]).collect()
            }
            _ => Vec::new(),
        };
        Self { metric, head, bounds }
    }

    /// Writes every series that `collector` has, in the order of their labels.
    pub(super) fn collected(&self, page: &mut String, collector: &dyn Collector) {
        let families = collector.collect();
        let mut series: Vec<(String, &proto::Metric)> = families
            .iter()
            .flat_map(proto::MetricFamily::get_metric)
            .map(|metric| {
                let pairs = metric.get_label().iter();
                (labels(pairs.map(|pair| (pair.name(), pair.value()))), metric)
            })
            .collect();
        series.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        if !series.is_empty() {
            page.push_str(&self.head);
        }
        for (labels, metric) in series {
            match self.metric.kind {
                Kind::Counter => self.line(page, &labels, metric.get_counter().get_value()),
                Kind::Gauge => self.line(page, &labels, metric.get_gauge().get_value()),
                Kind::Histogram(_) => self.histogram(page, &labels, metric.get_histogram()),
            }
        }
    }

    /// Writes every series that `read` emits.
    pub(super) fn read(&self, page: &mut String, read: impl FnOnce(&mut Emit<'_>)) {
        let mut is_first = true;
        read(&mut |values, value| {
            debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
            if std::mem::take(&mut is_first) {
                page.push_str(&self.head);
            }
            let names = self.metric.labels.iter().map(|label| label.name);
            self.line(page, &labels(names.zip(values.iter().copied())), value);
        });
    }

    fn line(&self, page: &mut String, labels: &str, value: f64) {
        page.push_str(self.metric.name);
        if !labels.is_empty() {
            page.extend(["{", labels, "}"]);
        }
        end(page, value);
    }

    fn histogram(&self, page: &mut String, labels: &str, histogram: &proto::Histogram) {
        let (name, count) = (self.metric.name, histogram.get_sample_count());
        let counts = histogram.get_bucket().iter().map(proto::Bucket::cumulative_count);
        let separator = if labels.is_empty() { "" } else { "," };
        for (bound, count) in self.bounds.iter().zip(counts.chain([count])) {
            page.extend([name, "_bucket{", labels, separator, "le=\"", bound, "\"}"]);
            end(page, count as f64);
        }
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        page.extend([name, "_sum", open, labels, close]);
        end(page, histogram.get_sample_sum());
        page.extend([name, "_count", open, labels, close]);
        end(page, count as f64);
    }
}

/// The end of a line. Most values are whole numbers, and those are written several times as fast.
fn end(page: &mut String, value: f64) {
    // Writing to a string cannot fail.
    let _ = if value.fract() == 0.0 && value.abs() < 1e15 {
        writeln!(page, " {}", value as i64)
    } else if value.is_infinite() {
        writeln!(page, " {}Inf", if value > 0.0 { '+' } else { '-' })
    } else {
        writeln!(page, " {value}")
    };
}

/// `name="value",…`
fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend([name, "=\""]);
        for character in value.chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::describe::{Label, Values},
        *,
    };
    use prometheus::{Gauge, HistogramVec, IntCounterVec, TextEncoder};

    const LABELS: &[Label] = &[
        Label { name: "colour", values: Values::OneOf(&["red"]) },
        Label { name: "shape", values: Values::Each("shape") },
    ];

    fn metric(kind: Kind, labels: &'static [Label]) -> Metric {
        Metric { name: "things", kind, labels, unit: "things", help: "A \\ of \n things." }
    }

    /// What the row says must be what the library's own encoder says.
    fn is_the_librarys(metric: Metric, collector: &dyn Collector) {
        let mut families = collector.collect();
        for family in &mut families {
            let by_labels = |metric: &proto::Metric| {
                let pairs = metric.get_label().iter();
                pairs.map(|pair| pair.value().to_owned()).collect::<Vec<_>>()
            };
            family.mut_metric().sort_by_key(by_labels);
        }
        let expected = TextEncoder::new().encode_to_string(&families).expect("encoded");
        let mut page = String::new();
        Row::new(metric).collected(&mut page, collector);
        assert_eq!(page, expected);
    }

    #[test]
    fn counters_are_as_the_library_writes_them() {
        let metric = metric(Kind::Counter, LABELS);
        let counters = IntCounterVec::new(metric.options(), &metric.label_names()).expect("valid");
        counters.with_label_values(&["red", "a \"quoted\\\n\" one"]).inc_by(7);
        counters.with_label_values(&["blue", "ü"]);
        is_the_librarys(metric, &counters);
    }

    #[test]
    fn gauges_are_as_the_library_writes_them() {
        let metric = metric(Kind::Gauge, &[]);
        let gauge = Gauge::with_opts(metric.options()).expect("valid");
        for value in [0.0, -1.0, 0.1 + 0.2, 1e-9, 1_764_092_237_123.0, 1e15, 1e22, f64::NAN] {
            gauge.set(value);
            is_the_librarys(metric, &gauge);
        }
    }

    #[test]
    fn histograms_are_as_the_library_writes_them() {
        let bounds = Kind::Histogram(&[0.000_01, 0.5, 1.0, 2.5]);
        for labels in [&[], LABELS] {
            let metric = metric(bounds, labels);
            let histograms = HistogramVec::new(metric.histogram_options(), &metric.label_names());
            let histograms = histograms.expect("valid");
            let values = &["red", "round"][..labels.len()];
            for value in [0.0, 0.3, 0.5, 2.0, 100.25] {
                histograms.with_label_values(values).observe(value);
            }
            is_the_librarys(metric, &histograms);
        }
    }

    #[test]
    fn what_is_beyond_numbers_has_the_formats_words() {
        let mut page = String::new();
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            end(&mut page, value);
        }
        assert_eq!(page, " +Inf\n -Inf\n NaN\n");
    }

    #[test]
    fn a_value_read_at_the_scrape_carries_its_labels_and_none_leaves_no_trace() {
        let row = Row::new(Metric { help: "Things.", ..metric(Kind::Counter, LABELS) });
        let mut page = String::new();
        row.read(&mut page, |_| {});
        assert_eq!(page, "");
        row.read(&mut page, |emit| emit(&["red", "\"x\""], 3.0));
        assert_eq!(
            page,
            "# HELP things Things.\n# TYPE things counter\nthings{colour=\"red\",shape=\"\\\"x\\\"\"} 3\n"
        );
    }
}
