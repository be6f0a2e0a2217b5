//! The one line that each request leaves, in proxy and backend alike, and the span around the rest.
//!
//! No field holds what a client wrote freely. A model is named only where a backend serves it, a path
//! by its endpoint, an error by its code.

use super::spans::Hop;
use http::HeaderValue;
use std::{fmt::Write, sync::Arc, time::Duration};
use tracing::Span;

/// The target of request lines, for filters: `log.level=info,inferno::request=off`.
pub const TARGET: &str = "inferno::request";

/// One field of a request's line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Which services write it.
    pub of: &'static str,
    /// What it says.
    pub about: &'static str,
}

const fn field(name: &'static str, of: &'static str, about: &'static str) -> Field {
    Field { name, of, about }
}

/// What each line logged while working on a request carries besides its own fields.
pub const SPAN_FIELDS: &[Field] = &[
    field(
        "request_id",
        "both",
        "`x-request-id`: the client's if it was 1-128 of `[A-Za-z0-9._-]`, else a new one",
    ),
    field("trace_id", "both", "the trace of `traceparent`, or a new one"),
];

/// Every field of a request's line, in its order. What does not apply or is not known is left out.
pub const FIELDS: &[Field] = &[
    field(
        "route",
        "both",
        "the endpoint: `chat_completions`, `completions`, `models`, …; `unknown` for any other path",
    ),
    field(
        "key_id",
        "proxy",
        "the id of the API key that it came with, if it is one of ours (`inferno key list` has its name)",
    ),
    field("model", "both", "the model, if one that is served was asked for"),
    field("stream", "both", "`true` if the answer was a stream of events"),
    field("status", "both", "the answer's status; 499 if the client left before there was one"),
    field("error", "both", "the error's code, as the client saw it, also at the end of a stream"),
    field("detail", "proxy", "the error in more words than the client saw"),
    field("finish_reason", "backend", "`stop` or `length`, if the generation came to its end"),
    field("client_gone", "both", "`true` if the client left before the end"),
    field("backend", "proxy", "the node id of the backend that answered"),
    field("attempts", "proxy", "how many backends were asked"),
    field("duration_ms", "both", "from the request's header to the end of its answer"),
    field("ttfb_ms", "proxy", "to the header of the answer"),
    field("queue_ms", "backend", "from submission to the first step"),
    field("ttft_ms", "backend", "to the first token"),
    field("prompt_tokens", "backend", "tokens of the prompt, once it was read"),
    field("completion_tokens", "backend", "tokens generated"),
    field("request_bytes", "both", "the request's body"),
    field("response_bytes", "both", "the answer's body, as much of it as was sent"),
];

/// What is known of a request at its end. Fields as in [`FIELDS`].
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each is described in FIELDS")]
pub struct RequestLine {
    pub route: &'static str,
    pub key_id: Option<Arc<str>>,
    pub model: Option<String>,
    pub stream: bool,
    pub status: u16,
    pub error: Option<&'static str>,
    pub detail: Option<String>,
    pub finish_reason: Option<&'static str>,
    pub client_gone: bool,
    pub backend: Option<String>,
    pub attempts: Option<u32>,
    pub duration: Duration,
    pub ttfb: Option<Duration>,
    pub queue: Option<Duration>,
    pub ttft: Option<Duration>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl RequestLine {
    /// Logs it, as of the request that `span` stands for.
    pub fn log(&self, span: &Span) {
        tracing::info!(
            target: TARGET,
            parent: span,
            route = self.route,
            key_id = self.key_id.as_deref(),
            model = self.model,
            stream = self.stream.then_some(true),
            status = self.status,
            error = self.error,
            detail = self.detail,
            finish_reason = self.finish_reason,
            client_gone = self.client_gone.then_some(true),
            backend = self.backend,
            attempts = self.attempts,
            duration_ms = millis(self.duration),
            ttfb_ms = self.ttfb.map(millis),
            queue_ms = self.queue.map(millis),
            ttft_ms = self.ttft.map(millis),
            prompt_tokens = self.prompt_tokens,
            completion_tokens = self.completion_tokens,
            request_bytes = some(self.request_bytes),
            response_bytes = some(self.response_bytes),
            "request"
        );
    }
}

/// The span in which a request is worked on. It is there whatever `log.level` says of the lines in
/// it, and of [`TARGET`]: an error without its request's id would be worth little.
pub fn span(request_id: &HeaderValue, hop: &Hop) -> Span {
    let request_id = request_id.to_str().unwrap_or_default();
    tracing::error_span!("request", request_id, trace_id = %hop.trace_id())
}

/// A count, if there was anything to count.
fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Milliseconds to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// The fields as Markdown tables, for `docs/logs.md`.
pub fn reference() -> String {
    let mut page = String::new();
    for (title, fields) in
        [("Every line of a request", SPAN_FIELDS), ("The line `request`", FIELDS)]
    {
        // Writing to a string does not fail.
        let _ = write!(page, "### {title}\n\n| field | of | what |\n|---|---|---|\n");
        for Field { name, of, about } in fields {
            let _ = writeln!(page, "| `{name}` | {of} | {about} |");
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    /// Notes the names of the fields that events and spans of a request can have.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Vec<&'static str>>>);

    impl Names {
        fn note(&self, metadata: &tracing::Metadata<'static>) {
            self.0
                .lock()
                .expect("names")
                .extend(metadata.fields().iter().map(|field| field.name()));
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Names {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.note(event.metadata());
        }

        fn on_new_span(
            &self,
            attributes: &tracing::span::Attributes<'_>,
            _: &tracing::Id,
            _: Context<'_, S>,
        ) {
            self.note(attributes.metadata());
        }
    }

    #[test]
    fn the_page_of_documentation_has_the_table() {
        let page = include_str!("../../../../docs/logs.md");
        assert!(page.contains(&reference()), "docs/logs.md must contain:\n{}", reference());
    }

    /// The fields of a request's span and line that `level` lets through.
    fn logged_at(level: &str) -> Vec<&'static str> {
        let names = Names::default();
        let directives = crate::telemetry::filter::directives(level).expect("directives");
        let subscriber = tracing_subscriber::registry().with(directives).with(names.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = span(&HeaderValue::from_static("a"), &Hop::receive(None));
            RequestLine::default().log(&span);
        });
        let logged = std::mem::take(&mut *names.0.lock().expect("names"));
        logged.into_iter().filter(|name| *name != "message").collect()
    }

    #[test]
    fn the_table_names_the_fields_there_are_in_their_order() {
        let table = SPAN_FIELDS.iter().chain(FIELDS).map(|field| field.name);
        assert_eq!(table.collect::<Vec<_>>(), logged_at("info"));
    }

    #[test]
    fn who_wants_no_request_lines_keeps_the_ids_in_the_others() {
        let ids: Vec<_> = SPAN_FIELDS.iter().map(|field| field.name).collect();
        for level in ["info,inferno::request=off", "error"] {
            assert_eq!(logged_at(level), ids, "{level}");
        }
    }
}
