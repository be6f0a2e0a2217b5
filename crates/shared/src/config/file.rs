//! A configuration file: TOML, read so that each value knows its line.

use super::{
    keys,
    layers::{Layer, Origin, is_a_table, unknown_key},
    problem::Problem,
};
use figment::value::Value;
use std::{ops::Range, path::Path};
use toml_edit::{Document, Item, TableLike};

/// What `text`, the content of `path`, says.
pub(super) fn read(path: &Path, text: &str) -> Layer {
    let mut layer = Layer::default();
    match Document::parse(text) {
        Ok(document) => Reader { path, text, layer: &mut layer }.table(document.as_table(), ""),
        Err(error) => layer.problems.push(Problem::Syntax {
            path: path.into(),
            line: line(text, error.span()),
            // The whole text of the error would show the line, and that may hold a secret.
            why: error.message().to_owned(),
        }),
    }
    layer
}

/// The line of `text` in which `span` begins, counted from 1.
fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: &'a mut Layer,
}

impl Reader<'_> {
    /// All keys of the table with the dotted name `prefix`.
    fn table(&mut self, table: &dyn TableLike, prefix: &str) {
        for (name, item) in table.iter() {
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let origin = Origin::File { path: self.path.into(), line: line(self.text, span) };
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            match item.as_table_like() {
                Some(inner) if keys::find(&name).is_some() => {
                    self.not_a_table(&name, inner, &origin);
                }
                Some(inner) if inner.is_empty() && keys::table(&name).is_none() => {
                    self.layer.problems.push(unknown_key(&name, &origin));
                }
                Some(inner) => self.table(inner, &name),
                None => self.value(&name, item, origin),
            }
        }
    }

    fn value(&mut self, name: &str, item: &Item, origin: Origin) {
        match (keys::find(name), keys::table(name)) {
            (Some(key), _) => {
                let value = item.as_value().map_or_else(
                    || Err("is a list of tables".to_owned()),
                    |value| key.accept(plain(value)?),
                );
                self.layer.take(key, value, origin);
            }
            (None, Some(keys)) => self.refuse(name, is_a_table(name, &keys), &origin),
            (None, None) => self.layer.problems.push(unknown_key(name, &origin)),
        }
    }

    fn not_a_table(&mut self, name: &str, inner: &dyn TableLike, origin: &Origin) {
        let inside = inner.iter().next().map(|(inside, _)| format!("{name}.{inside}"));
        let inside = inside.map(|inside| format!("; there is no {inside}")).unwrap_or_default();
        self.refuse(name, format!("is one value, not a table{inside}"), origin);
    }

    fn refuse(&mut self, name: &str, why: String, origin: &Origin) {
        self.layer.problems.push(Problem::Value { origin: origin.of(name), why });
    }
}

/// A TOML value without its decoration. No key takes a date or has tables in its list.
fn plain(value: &toml_edit::Value) -> Result<Value, String> {
    Ok(match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(switch) => Value::from(*switch.value()),
        toml_edit::Value::Array(items) => {
            Value::from(items.iter().map(plain).collect::<Result<Vec<_>, _>>()?)
        }
        toml_edit::Value::Datetime(_) => return Err("is a date; write text in quotes".into()),
        toml_edit::Value::InlineTable(_) => return Err("has a table in its list".into()),
    })
}
