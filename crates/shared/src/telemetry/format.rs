//! The two forms of a log line: one JSON object for programs, aligned text for people.
//!
//! Both have the same fields under the same names. A span's fields are formatted once, when the
//! span begins, and stand in each line that is logged within it.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime as Clock},
    },
    registry::LookupSpan,
};

/// Who logs, as every JSON line says.
pub(super) struct Origin {
    pub(super) service: &'static str,
    pub(super) node_id: String,
}

/// `{"timestamp":…,"level":…,"message":…,"target":…,"service":…,"node_id":…,…}`.
pub(super) struct Json {
    /// `,"service":"…","node_id":"…"`, the same in each line.
    origin: String,
}

/// `17:44:05.123 INFO  request  route=chat_completions …`.
pub(super) struct Human;

impl Json {
    pub(super) fn new(origin: &Origin) -> Self {
        let mut fields = Fields::json();
        fields.text("service", origin.service);
        fields.text("node_id", &origin.node_id);
        Self { origin: fields.text }
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::json();
        event.record(&mut fields);
        line.write_str("{\"timestamp\":\"")?;
        Clock.format_time(&mut line)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_str("\",\"message\":")?;
        write_quoted(&mut line, &fields.message)?;
        line.write_str(",\"target\":")?;
        write_quoted(&mut line, fields.target.as_deref().unwrap_or(event.metadata().target()))?;
        line.write_str(&self.origin)?;
        write_spans(context, &mut line)?;
        line.write_str(&fields.text)?;
        line.write_str("}\n")
    }
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let colours = line.has_ansi_escapes();
        let mut fields = Fields::human(colours);
        event.record(&mut fields);
        let (dim, plain) = if colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let level = event.metadata().level();
        let colour = if colours { colour(*level) } else { "" };
        write!(line, "{dim}{TimeOfDay}{plain} {colour}{level:<5}{plain} ")?;
        write_escaped(&mut line, &fields.message)?;
        line.write_str(&fields.text)?;
        write_spans(context, &mut line)?;
        line.write_char('\n')
    }
}

/// The fields of all spans that an event is in, outermost first.
fn write_spans<S, N>(context: &FmtContext<'_, S, N>, line: &mut Writer<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let Some(scope) = context.event_scope() else { return Ok(()) };
    for span in scope.from_root() {
        if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
            line.write_str(&fields.fields)?;
        }
    }
    Ok(())
}

/// Formats a span's fields as JSON members that follow others.
pub(super) struct JsonFields;

impl<'a> FormatFields<'a> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = Fields::json();
        fields.record(&mut visitor);
        out.write_str(&visitor.text)
    }
}

/// Formats a span's fields as ` name=value`.
pub(super) struct HumanFields;

impl<'a> FormatFields<'a> for HumanFields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = Fields::human(out.has_ansi_escapes());
        fields.record(&mut visitor);
        out.write_str(&visitor.text)
    }
}

/// Collects an event's fields in one form or the other.
struct Fields {
    form: Form,
    message: String,
    /// Of a line that came through the `log` crate.
    target: Option<String>,
    text: String,
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Human { colours: bool },
}

impl Fields {
    fn json() -> Self {
        Self::new(Form::Json)
    }

    fn human(colours: bool) -> Self {
        Self::new(Form::Human { colours })
    }

    fn new(form: Form) -> Self {
        Self { form, message: String::new(), target: None, text: String::with_capacity(256) }
    }

    /// A value that is the same in both forms: a number or a truth value.
    fn bare(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // Writing to a string does not fail.
        let _ = write!(self.text, "{value}");
    }

    fn text(&mut self, name: &str, value: &str) {
        match name {
            "message" => self.message.push_str(value),
            "log.target" => self.target = Some(value.into()),
            // Where in a library a line of it was logged.
            _ if name.starts_with("log.") => {}
            _ => {
                self.name(name);
                match self.form {
                    // Writing to a string does not fail.
                    Form::Json => drop(write_quoted(&mut self.text, value)),
                    Form::Human { .. } => write_value(&mut self.text, value),
                }
            }
        }
    }

    fn name(&mut self, name: &str) {
        let (before, after) = match self.form {
            Form::Json => (",\"", "\":"),
            Form::Human { colours: true } => (" \x1b[2m", "=\x1b[0m"),
            Form::Human { colours: false } => (" ", "="),
        };
        [before, name, after].iter().for_each(|part| self.text.push_str(part));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match self.form {
            // JSON has no number for these.
            Form::Json if !value.is_finite() => self.text(field.name(), &value.to_string()),
            _ => self.bare(field.name(), value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }
}

/// A JSON string. Most need no escape, and are written as they are.
fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..b' ')) {
        // A string is always JSON.
        return out.write_str(&serde_json::to_string(text).unwrap_or_default());
    }
    out.write_char('"')?;
    out.write_str(text)?;
    out.write_char('"')
}

/// A value for people: in quotes where it would not read as one word.
fn write_value(out: &mut String, value: &str) {
    let is_word = |c: char| c.is_alphanumeric() || "-_.:/@+[]*,<>".contains(c);
    let _ = match !value.is_empty() && value.chars().all(is_word) {
        true => out.write_str(value),
        false => write!(out, "{value:?}"),
    };
}

/// Text in which nothing can steer a terminal or begin another line.
fn write_escaped(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c.is_control() {
        true => write!(line, "{}", c.escape_default()),
        false => line.write_char(c),
    })
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Hours to milliseconds in UTC.
struct TimeOfDay;

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (s, ms) = (since.as_secs() % 86_400, since.subsec_millis());
        write!(f, "{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
    }
}

#[cfg(test)]
mod tests;
