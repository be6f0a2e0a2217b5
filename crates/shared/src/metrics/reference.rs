//! The page of all metrics, made from the tables that register them.

use super::{
    describe::{Kind, Label, Metric, Values},
    node::VITALS,
};
use std::fmt::Write;

const HEAD: &str = "\
# Metrics

Made by `inferno docs metrics`; tests hold this file against the code and against what real processes say.

Each process answers on its operations port (6100): `GET /metrics` is JSON, the vitals below, to whoever
does not ask for text, and Prometheus text 0.0.4 to whoever does, as Prometheus itself;
`GET /telemetry` is always that text. So nothing needs to be set but the targets:

```yaml
scrape_configs:
  - job_name: inferno
    static_configs:
      - targets: [\"127.0.0.1:6100\"]
```

Label values come from fixed sets, configured models and registered nodes, never from a request. A series
with labels appears once there is something to count, unless its metric says otherwise. The `vllm:` names
are those that the field's dashboards and autoscalers read; their colon is all that `promtool check
metrics` has to object to.

## NodeVitals, in every process

Measured at most once a second, whoever asks and however often.

| field in JSON | unit | metric in text | type | unit | meaning |
|---|---|---|---|---|---|
";

/// The metrics of one part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Whose they are.
    pub title: &'static str,
    /// Its table.
    pub metrics: &'static [Metric],
}

/// All metrics as a Markdown page.
pub fn reference(sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    for vital in &VITALS {
        let (field, unit, meaning) = (vital.field, vital.unit, vital.meaning);
        let metric = vital.metric.map_or_else(
            || "| |".into(),
            |metric| format!("`{}` | {} | {}", metric.name, metric.kind.name(), metric.unit),
        );
        line(&mut page, &format!("| `{field}` | {unit} | {metric} | {meaning} |"));
    }
    for section in sections {
        line(&mut page, &format!("\n## {}\n", section.title));
        line(&mut page, "| metric | type | labels | unit | meaning |");
        line(&mut page, "|---|---|---|---|---|");
        section.metrics.iter().for_each(|metric| line(&mut page, &row(metric)));
    }
    label_values(&mut page, sections);
    buckets(&mut page, sections);
    page
}

fn row(metric: &Metric) -> String {
    let Metric { name, kind, labels, unit, help } = metric;
    let labels: Vec<String> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
    format!("| `{name}` | {} | {} | {unit} | {help} |", kind.name(), labels.join(", "))
}

fn label_values(page: &mut String, sections: &[Section]) {
    line(page, "\n## Label values\n\n| label | of | values |\n|---|---|---|");
    for section in sections {
        let mut seen: Vec<Label> = Vec::new();
        for label in section.metrics.iter().flat_map(|metric| metric.labels) {
            if !seen.contains(label) {
                seen.push(*label);
                let values = match label.values {
                    Values::OneOf(values) => format!("`{}`", values.join("`, `")),
                    Values::Each(what) => what.to_owned(),
                };
                line(page, &format!("| `{}` | {} | {values} |", label.name, section.title));
            }
        }
    }
}

fn buckets(page: &mut String, sections: &[Section]) {
    line(page, "\n## Buckets of the histograms\n\n| metric | upper bounds |\n|---|---|");
    for metric in sections.iter().flat_map(|section| section.metrics) {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            line(page, &format!("| `{}` | {} |", metric.name, bounds.join(", ")));
        }
    }
}

fn line(page: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}
