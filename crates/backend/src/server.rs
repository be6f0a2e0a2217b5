//! The inference server: accepts from proxies, reads a request, hands it to the engine, writes the
//! answer. A connection that closes drops its answer, and with it the generation.

use crate::{
    exchange::{Exchange, REQUEST_ID},
    metrics::BackendMetrics,
    openai::{
        self,
        answer::{Answer, Terms},
        chat,
        choices::Choices,
        completions, embeddings,
        errors::ApiError,
        events::Stream,
        fields::Fields,
        tokenize,
    },
    served::Served,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{
    BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody,
};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use inferno_engine::{CacheSalt, Engine};
use inferno_shared::{
    MetricsCollector, config::BackendConfig, identity::unix_ms, membership::Token,
};
use std::{
    convert::Infallible,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};
use tracing::{Instrument, Span};

/// The header in which a proxy presents the token of its lease.
const TOKEN_HEADER: &str = "x-inferno-token";
/// Whose request it is, from the proxy, which lets no client say so.
const TENANT_HEADER: &str = "x-inferno-tenant";
/// The priority of its key, likewise.
const PRIORITY_HEADER: &str = "x-inferno-priority";
/// A client must send its header within this time, and its body within as much again.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections served at once; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 4_096;

/// What is served.
const ROUTES: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/tokenize",
    "/v1/detokenize",
    "/tokenize",
    "/detokenize",
];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What every request needs.
pub(crate) struct Service {
    served: Served,
    collector: Arc<MetricsCollector>,
    metrics: Arc<BackendMetrics>,
    token: Token,
    token_required: bool,
    body_bytes_max: usize,
    request_timeout: Option<Duration>,
    started_s: u64,
}

impl Service {
    /// A service over the model `served`. Off loopback it demands `token`.
    pub(crate) fn new(
        served: Served,
        collector: Arc<MetricsCollector>,
        metrics: Arc<BackendMetrics>,
        token: Token,
        config: &BackendConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            served,
            collector,
            metrics,
            token,
            token_required: !config.listen.ip().is_loopback(),
            body_bytes_max: usize::try_from(config.body_bytes_max.0).unwrap_or(usize::MAX),
            request_timeout: config.request_timeout_ms.map(Duration::from_millis),
            started_s: unix_ms() / 1_000,
        })
    }

    /// Serves `listener` until `shutdown` is true, then finishes what runs.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut shutdown: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let connections = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let connection = connections.watch(Arc::clone(&self).connection(stream));
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "connection ended");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be given back.
                    tracing::warn!(%error, "could not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        Ok(())
    }

    fn connection(
        self: Arc<Self>,
        stream: tokio::net::TcpStream,
    ) -> impl GracefulConnection<Error = hyper::Error> + Send {
        let service = hyper::service::service_fn(move |request| {
            let service = Arc::clone(&self);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let exchange = Exchange::begin(&request);
        let (span, request_id) = (exchange.span(), exchange.request_id());
        let mut response = self.respond(request, exchange).instrument(span).await;
        response.headers_mut().insert(&REQUEST_ID, request_id);
        response
    }

    async fn respond(&self, request: Request<Incoming>, mut exchange: Exchange) -> Response<Body> {
        match self.route(request, &mut exchange).await {
            Ok(Reply::Whole(body)) => {
                exchange.answered(StatusCode::OK, body.len());
                json(StatusCode::OK, body)
            }
            Ok(Reply::Events(answer, choices)) => {
                exchange.streams();
                event_stream(Stream::new(*answer, choices, exchange))
            }
            Err(error) => self.refuse(&error, &mut exchange),
        }
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Reply, ApiError> {
        self.authorize(request.headers())?;
        let path = request.uri().path().to_owned();
        let created = unix_ms() / 1_000;
        match (request.method(), path.as_str()) {
            (&Method::POST, "/v1/chat/completions") => {
                self.complete(request, exchange, created, chat::prepare).await
            }
            (&Method::POST, "/v1/completions") => {
                self.complete(request, exchange, created, completions::prepare).await
            }
            (&Method::POST, "/v1/tokenize" | "/tokenize") => {
                self.compute(request, exchange, created, tokenize::tokenize).await
            }
            (&Method::POST, "/v1/detokenize" | "/detokenize") => {
                self.compute(request, exchange, created, tokenize::detokenize).await
            }
            (&Method::POST, "/v1/embeddings") => self.embed(request, exchange).await,
            (&Method::GET, "/v1/models") => {
                Ok(Reply::whole(&openai::models(self.served.info(), self.started_s)))
            }
            (&Method::GET, path) if path.starts_with("/v1/models/") => {
                self.model(&path["/v1/models/".len()..])
            }
            (_, path) if ROUTES.contains(&path) => {
                let message = format!("{} is not allowed on {path}", request.method());
                Err(ApiError::request(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    message,
                ))
            }
            _ => {
                let message = format!("no such endpoint; this backend has {}", ROUTES.join(", "));
                Err(ApiError::request(StatusCode::NOT_FOUND, "unknown_url", message))
            }
        }
    }

    /// On loopback anyone may ask; elsewhere only who holds the token of a lease.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let presented = headers.get(TOKEN_HEADER).map_or(&b""[..], HeaderValue::as_bytes);
        let matches: bool = presented.ct_eq(self.token.expose().as_bytes()).into();
        if matches || !self.token_required {
            return Ok(());
        }
        let message =
            "this backend answers only the proxies it registered with; send requests to a proxy";
        Err(ApiError::request(StatusCode::UNAUTHORIZED, "not_a_proxy", message))
    }

    fn model(&self, id: &str) -> Result<Reply, ApiError> {
        openai::require_model(self.served.info(), id)?;
        Ok(Reply::whole(&openai::model(self.served.info(), self.started_s)))
    }

    async fn complete(
        &self,
        request: Request<Incoming>,
        exchange: &mut Exchange,
        created: u64,
        prepare: fn(&Engine, &mut Fields, u64) -> Result<Answer, ApiError>,
    ) -> Result<Reply, ApiError> {
        exchange.generates(self.metrics.observe(self.collector.request_started()));
        let terms = self.terms(request.headers());
        let body = self.read(request).await?;
        exchange.received(body.len());
        let (answer, choices) = self.submit(body, created, terms, prepare).await?;
        exchange.submitted(&self.served.info().id, answer.prompt_tokens());
        if answer.streams() {
            return Ok(Reply::Events(Box::new(answer), choices));
        }
        Ok(Reply::Whole(answer.whole(choices, exchange).await?))
    }

    /// What the proxy says of the sender, and how long the answer may take from now on.
    fn terms(&self, headers: &HeaderMap) -> Terms {
        let tenant = headers.get(TENANT_HEADER);
        let priority =
            headers.get(PRIORITY_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Terms {
            salt: tenant.map(|tenant| CacheSalt::of(tenant.as_bytes())),
            priority: priority.unwrap_or_default(),
            deadline: self.request_timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        }
    }

    /// An answer that needs no generation.
    async fn compute(
        &self,
        request: Request<Incoming>,
        exchange: &mut Exchange,
        created: u64,
        compute: fn(&Engine, &mut Fields, u64) -> Result<serde_json::Value, ApiError>,
    ) -> Result<Reply, ApiError> {
        let body = self.read(request).await?;
        exchange.received(body.len());
        let answer =
            self.off_thread(move |engine| compute(engine, &mut Fields::parse(&body)?, created));
        Ok(Reply::whole(&answer.await?))
    }

    async fn embed(
        &self,
        request: Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Reply, ApiError> {
        exchange.generates(self.metrics.observe(self.collector.request_started()));
        let body = self.read(request).await?;
        exchange.received(body.len());
        embeddings::answer(self.served.embedder()?, body, exchange).await.map(Reply::Whole)
    }

    async fn submit(
        &self,
        body: Bytes,
        created: u64,
        terms: Terms,
        prepare: fn(&Engine, &mut Fields, u64) -> Result<Answer, ApiError>,
    ) -> Result<(Answer, Choices), ApiError> {
        self.off_thread(move |engine| {
            let answer = prepare(engine, &mut Fields::parse(&body)?, created)?.on(terms);
            let fingerprint = engine.fingerprint().map(|fingerprint| fingerprint.to_string());
            let choices = Choices::submit(engine, answer.requests());
            let choices = choices.map_err(|error| answer.refusal(error))?;
            Ok((answer.signed(fingerprint), choices))
        })
        .await
    }

    /// Templates, tokenizers and grammars take their time: not on a thread that serves connections.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (engine, span) = (self.served.engine()?.clone(), Span::current());
        let work = tokio::task::spawn_blocking(move || {
            let _inside = span.entered();
            work(&engine)
        });
        // A panic in there ends this request alone.
        work.await.unwrap_or_else(|_| Err(ApiError::internal()))
    }

    /// The whole body, within its limits of size and time.
    async fn read(&self, request: Request<Incoming>) -> Result<Bytes, ApiError> {
        let limit = self.body_bytes_max;
        let too_large = || {
            let message = format!("the body is larger than {limit} bytes");
            ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
        };
        let body = Limited::new(request.into_body(), limit).collect();
        match tokio::time::timeout(READ_TIMEOUT, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(ApiError::request(
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "the body ended too early",
            )),
            Err(_) => {
                let message =
                    format!("the body did not arrive within {} s", READ_TIMEOUT.as_secs());
                Err(ApiError::request(StatusCode::REQUEST_TIMEOUT, "request_timeout", message))
            }
        }
    }

    fn refuse(&self, error: &ApiError, exchange: &mut Exchange) -> Response<Body> {
        let body = error.body();
        exchange.failed(error);
        exchange.answered(error.status, body.len());
        let mut response = json(error.status, body);
        if error.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What a request gets.
enum Reply {
    /// One JSON object.
    Whole(Bytes),
    /// Events, as they come.
    Events(Box<Answer>, Choices),
}

impl Reply {
    fn whole(body: &serde_json::Value) -> Self {
        Self::Whole(body.to_string().into())
    }
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Server-sent events (HTML Living Standard, section 9.2), each sent as soon as it is there.
fn event_stream(stream: Stream) -> Response<Body> {
    let frames = stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), stream))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
