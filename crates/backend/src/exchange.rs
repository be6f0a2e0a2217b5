//! What is remembered of one request: counted, logged and exported exactly once, when it is dropped,
//! on whichever way the request ended. Neither prompts nor answers, nor anything else that a client
//! wrote freely, come in here.

use crate::{
    metrics::{Observed, Observer},
    openai::{self, errors::ApiError},
};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use inferno_engine::{Finish, Timings};
use inferno_shared::telemetry::{
    request::{self, RequestLine},
    request_id,
    spans::{self, Hop, Record, Side},
    trace_context::TraceParent,
};
use std::time::{Duration, Instant, SystemTime};
use tracing::Span;

/// Names a request in every log it passes.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What nginx logs, and others after it, where the client left before an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// An endpoint, as log and spans name it.
#[derive(Debug)]
struct Endpoint {
    label: &'static str,
    path: Option<&'static str>,
    /// What OpenTelemetry's conventions for generative AI call it.
    operation: Option<&'static str>,
}

const CHAT: Endpoint = Endpoint {
    label: "chat_completions",
    path: Some("/v1/chat/completions"),
    operation: Some("chat"),
};
const COMPLETIONS: Endpoint = Endpoint {
    label: "completions",
    path: Some("/v1/completions"),
    operation: Some("text_completion"),
};
const TOKENIZE: Endpoint =
    Endpoint { label: "tokenize", path: Some("/v1/tokenize"), operation: None };
const DETOKENIZE: Endpoint =
    Endpoint { label: "detokenize", path: Some("/v1/detokenize"), operation: None };
const EMBEDDINGS: Endpoint =
    Endpoint { label: "embeddings", path: Some("/v1/embeddings"), operation: Some("embeddings") };
const MODELS: Endpoint = Endpoint { label: "models", path: Some("/v1/models"), operation: None };
/// Whose path is the client's own text.
const UNKNOWN: Endpoint = Endpoint { label: "unknown", path: None, operation: None };

impl Endpoint {
    fn of(path: &str) -> &'static Self {
        match path {
            "/v1/chat/completions" => &CHAT,
            "/v1/completions" => &COMPLETIONS,
            "/v1/tokenize" | "/tokenize" => &TOKENIZE,
            "/v1/detokenize" | "/detokenize" => &DETOKENIZE,
            "/v1/embeddings" => &EMBEDDINGS,
            "/v1/models" => &MODELS,
            _ if path.starts_with("/v1/models/") => &MODELS,
            _ => &UNKNOWN,
        }
    }
}

/// One request, from its header to the end of its answer.
#[derive(Debug)]
pub struct Exchange {
    endpoint: &'static Endpoint,
    method: &'static str,
    request_id: HeaderValue,
    hop: Hop,
    span: Span,
    started: Instant,
    line: RequestLine,
    observer: Option<Observer>,
    /// When the generation came to its end, and where its time had gone.
    finished: Option<(SystemTime, Timings)>,
    /// It came to an end of its own, good or bad.
    ended: bool,
}

impl Exchange {
    /// A request has come.
    pub fn begin<B>(request: &Request<B>) -> Self {
        let endpoint = Endpoint::of(request.uri().path());
        let request_id = request_id::choose(request.headers().get(&REQUEST_ID));
        let hop = Hop::receive(TraceParent::of(request.headers()).map(|(parent, _)| parent));
        Self {
            endpoint,
            method: spans::method(request.method()),
            span: request::span(&request_id, &hop),
            request_id,
            hop,
            started: Instant::now(),
            line: RequestLine {
                route: endpoint.label,
                status: CLIENT_CLOSED_REQUEST,
                ..RequestLine::default()
            },
            observer: None,
            finished: None,
            ended: false,
        }
    }

    /// The span in which it is worked on.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The id to echo.
    pub fn request_id(&self) -> HeaderValue {
        self.request_id.clone()
    }

    /// It asks for a generation, which `observer` measures.
    pub fn generates(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Its body came.
    pub fn received(&mut self, bytes: usize) {
        self.line.request_bytes = bytes as u64;
    }

    /// The engine took it, with so many tokens of prompt.
    pub fn submitted(&mut self, model: &str, prompt_tokens: usize) {
        self.line.model = Some(model.into());
        self.line.prompt_tokens = Some(prompt_tokens as u64);
        self.line.completion_tokens = Some(0);
    }

    /// Something happened to its generation, now.
    pub fn saw(&mut self, observed: Observed<'_>) {
        match observed {
            Observed::Tokens { count, .. } => {
                self.line.ttft.get_or_insert(self.started.elapsed());
                *self.line.completion_tokens.get_or_insert(0) += count as u64;
            }
            Observed::Finish(finish) => self.finish(finish),
            Observed::Failure | Observed::Refused(_) => {}
        }
        if let Some(observer) = &mut self.observer {
            observer.saw(observed);
        }
    }

    fn finish(&mut self, finish: &Finish) {
        self.line.completion_tokens = Some(finish.completion_tokens as u64);
        self.line.queue = Some(finish.timings.queue);
        self.line.finish_reason = Some(openai::finish_reason(finish));
        self.finished = Some((SystemTime::now(), finish.timings));
        self.ended = true;
    }

    /// A whole answer of so many bytes is ready to be sent.
    pub fn answered(&mut self, status: StatusCode, bytes: usize) {
        self.line.status = status.as_u16();
        self.line.response_bytes = bytes as u64;
        self.ended = true;
    }

    /// A stream of events begins.
    pub fn streams(&mut self) {
        self.line.status = StatusCode::OK.as_u16();
        self.line.stream = true;
    }

    /// So many bytes of it were handed over to be sent.
    pub fn sent(&mut self, bytes: usize) {
        self.line.response_bytes += bytes as u64;
    }

    /// An error is the answer, or the end of one that had begun.
    pub fn failed(&mut self, error: &ApiError) {
        self.line.error = Some(error.code);
        self.saw(match self.line.stream {
            true => Observed::Failure,
            false => Observed::Refused(error.status),
        });
        self.ended = true;
    }

    fn export(&self) {
        let Some(record) = self.hop.record(Side::Server, self.line.duration) else { return };
        let (line, path) = (&self.line, self.endpoint.path);
        let tokens = |count: Option<u64>| count.map(spans::integer);
        let record = record
            .named(path.map_or(self.method.into(), |path| format!("{} {path}", self.method)))
            .with("http.request.method", self.method)
            .with("url.scheme", "http")
            .with_some("http.route", path)
            .with("http.response.status_code", i64::from(line.status))
            .with("http.request.body.size", spans::integer(line.request_bytes))
            .with("http.response.body.size", spans::integer(line.response_bytes))
            .with_some("gen_ai.operation.name", self.endpoint.operation)
            .with_some("gen_ai.provider.name", self.endpoint.operation.map(|_| "inferno"))
            .with_some("gen_ai.request.model", line.model.clone())
            .with_some("gen_ai.usage.input_tokens", tokens(line.prompt_tokens))
            .with_some("gen_ai.usage.output_tokens", tokens(line.completion_tokens))
            .with_some("gen_ai.response.finish_reasons", line.finish_reason.map(Record::list));
        match line.status >= 500 || (line.stream && line.error.is_some()) {
            true => record.with_error(line.error),
            false => record.with_some("error.type", line.error),
        }
        .end();
        self.export_stages();
    }

    /// A span for each stage of a generation that came to its end: they follow one another up to it.
    fn export_stages(&self) {
        let Some((mut end, timings)) = self.finished else { return };
        for (stage, duration) in
            [("decode", timings.decode), ("prefill", timings.prefill), ("queue", timings.queue)]
        {
            self.export_stage(stage, end, duration);
            end = end.checked_sub(duration).unwrap_or(end);
        }
    }

    fn export_stage(&self, stage: &'static str, end: SystemTime, duration: Duration) {
        if let Some(record) = self.hop.child().record_until(Side::Internal, end, duration) {
            record.named(stage).end();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Whoever waits for the answer has dropped the connection, and hyper what was on it.
        self.line.client_gone = !self.ended;
        self.line.duration = self.started.elapsed();
        self.line.log(&self.span);
        self.export();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_path_is_named() {
        for (path, label) in [
            ("/v1/chat/completions", "chat_completions"),
            ("/v1/completions", "completions"),
            ("/tokenize", "tokenize"),
            ("/v1/detokenize", "detokenize"),
            ("/v1/embeddings", "embeddings"),
            ("/v1/models/canary", "models"),
            ("/canary", "unknown"),
        ] {
            assert_eq!(Endpoint::of(path).label, label, "{path}");
        }
    }
}
