//! Spans: a request's place in its trace, and the record of it that a collector gets.
//!
//! A [`Hop`] is made for each request and each attempt, for its ids go into headers and logs whether
//! or not anything is exported. Only when the work is over, is sampled and somebody collects, is a
//! span put together from what is known by then: with export off a hop costs its random ids and
//! nothing else. Attributes follow OpenTelemetry's conventions for HTTP and generative AI
//! (<https://opentelemetry.io/docs/specs/semconv/>) and never hold content.

use super::{
    otlp,
    trace_context::{SpanId, TraceId, TraceParent},
};
use http::Method;
use opentelemetry::{
    Array, InstrumentationScope, KeyValue, Value,
    trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

/// A request's place in its trace, or an attempt's.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    own: TraceParent,
    parent: Option<SpanId>,
    parent_is_remote: bool,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// It answers.
    Server,
    /// It asks.
    Client,
    /// Neither: a stage of the work.
    Internal,
}

impl Hop {
    /// A request came, and says that it belongs to `parent`. Without one, a trace begins here, and
    /// `telemetry.otlp.sample_ratio` decides whether it is recorded; with one, whoever began it has.
    pub fn receive(parent: Option<TraceParent>) -> Self {
        let span_id = SpanId::random();
        let own = match parent {
            Some(parent) => TraceParent { span_id, ..parent },
            None => {
                let trace_id = TraceId::random();
                TraceParent { trace_id, span_id, sampled: otlp::samples(trace_id) }
            }
        };
        Self { own, parent: parent.map(|parent| parent.span_id), parent_is_remote: true }
    }

    /// A piece of this hop's work.
    #[must_use]
    pub fn child(&self) -> Self {
        let own = TraceParent { span_id: SpanId::random(), ..self.own };
        Self { own, parent: Some(self.own.span_id), parent_is_remote: false }
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.own.trace_id
    }

    /// What to tell whoever is asked next.
    pub fn traceparent(&self) -> TraceParent {
        self.own
    }

    /// The record of this hop, which took `duration` and ends now; `None` if nobody wants it.
    pub fn record(&self, side: Side, duration: Duration) -> Option<Record> {
        self.record_until(side, SystemTime::now(), duration)
    }

    /// The same for a piece of work that ended at `end`.
    pub fn record_until(&self, side: Side, end: SystemTime, duration: Duration) -> Option<Record> {
        let wanted = self.own.sampled && otlp::is_on();
        wanted.then(|| Record(self.data(side, end, duration)))
    }

    fn data(&self, side: Side, end_time: SystemTime, duration: Duration) -> SpanData {
        let span_context = SpanContext::new(
            opentelemetry::TraceId::from_bytes(self.own.trace_id.0),
            opentelemetry::SpanId::from_bytes(self.own.span_id.0),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let parent = self.parent.map(|parent| opentelemetry::SpanId::from_bytes(parent.0));
        SpanData {
            span_context,
            parent_span_id: parent.unwrap_or(opentelemetry::SpanId::INVALID),
            parent_span_is_remote: self.parent.is_some() && self.parent_is_remote,
            span_kind: match side {
                Side::Server => SpanKind::Server,
                Side::Client => SpanKind::Client,
                Side::Internal => SpanKind::Internal,
            },
            name: Cow::Borrowed(""),
            start_time: end_time.checked_sub(duration).unwrap_or(end_time),
            end_time,
            attributes: Vec::with_capacity(12),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("inferno")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

/// A span being put together.
#[derive(Debug)]
pub struct Record(SpanData);

impl Record {
    /// Says what was done. Of few kinds: no ids, nothing of a request.
    #[must_use]
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.name = name.into();
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Adds an attribute, if there is a value for it.
    #[must_use]
    pub fn with_some(self, key: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds the code of what went wrong, if something did.
    #[must_use]
    pub fn with_error(mut self, code: Option<impl Into<Value>>) -> Self {
        if code.is_some() {
            self.0.status = Status::error("");
        }
        self.with_some("error.type", code)
    }

    /// A list of one word, as a value.
    pub fn list(word: &'static str) -> Value {
        Value::Array(Array::String(vec![word.into()]))
    }

    /// Hands it to whoever sends it; never waits.
    pub fn end(self) {
        otlp::export(self.0);
    }
}

/// The method as the conventions have it: one of the known ones, never a client's own word.
pub fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// An integer as an attribute.
pub fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_stays_in_its_trace_under_a_span_of_its_own() {
        let parent =
            TraceParent { trace_id: TraceId([7; 16]), span_id: SpanId([9; 8]), sampled: true };
        let hop = Hop::receive(Some(parent));
        assert_eq!(hop.trace_id(), parent.trace_id);
        assert_ne!(hop.traceparent().span_id, parent.span_id);
        assert!(hop.traceparent().sampled, "whoever began the trace decides");
        let child = hop.child();
        let data = child.data(Side::Client, SystemTime::now(), Duration::ZERO);
        assert_eq!(data.parent_span_id.to_bytes(), hop.traceparent().span_id.0);
        assert!(!data.parent_span_is_remote);
        let data = hop.data(Side::Server, SystemTime::now(), Duration::ZERO);
        assert_eq!(data.parent_span_id.to_bytes(), parent.span_id.0);
        assert!(data.parent_span_is_remote);
    }

    #[test]
    fn without_export_nothing_is_recorded_and_no_trace_asks_to_be() {
        let hop = Hop::receive(None);
        assert!(!hop.traceparent().sampled);
        assert!(hop.record(Side::Server, Duration::ZERO).is_none());
    }

    #[test]
    fn a_made_up_method_is_not_repeated() {
        assert_eq!(method(&Method::POST), "POST");
        assert_eq!(method(&Method::from_bytes(b"CANARY").expect("a token")), "_OTHER");
    }
}
