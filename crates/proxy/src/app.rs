//! One request's journey, top to bottom.

mod request;

use crate::{
    admission::{Admission, Lobby, UsageReader, Visit},
    auth::Caller,
    body::Bodies,
    cors::Cors,
    dispatch::{Answer, Dispatcher},
    downstream::{Client, Incoming},
    drain::Drain,
    error::{Interruption, RequestError},
    exchange::Exchange,
    explain,
    headers::{self, REQUEST_ID},
    keys::Keys,
    limits::Requests,
    metrics::ProxyMetrics,
    models,
    relay::{self, Patience},
    route::Route,
    routing::{self, Fleet, prefix::StreamSeen},
    stream::is_event_stream,
    transform::Transform,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use inferno_shared::config::{ProxyConfig, ProxyTimeouts, RoutingPolicy};
use pingora_core::{apps::ReusedHttpStream, protocols::http::ServerSession, server::ShutdownWatch};
use request::{admit, outgoing};
use std::{
    cmp::Ordering,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::Instrument;

/// Names a request's session where nothing else is configured.
const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");

/// What all requests share.
pub(crate) struct Gateway {
    keys: Option<Arc<Keys>>,
    /// Which web pages may come; none: nothing is said of it.
    cors: Option<Cors>,
    bodies: Bodies,
    requests: Requests,
    admission: Arc<Admission>,
    answer_tokens_assumed: u64,
    dispatcher: Dispatcher,
    policy: RoutingPolicy,
    session_header: HeaderName,
    /// Whose backends get what names no model.
    default_model: Option<String>,
    transform: Arc<Transform>,
    /// Whoever comes may have routing explained.
    explains_to_anyone: bool,
    timeouts: ProxyTimeouts,
    metrics: Arc<ProxyMetrics>,
    drain: Arc<Drain>,
}

impl Gateway {
    /// A gateway to `fleet`, for whoever has one of `keys` or, without them, for anyone. Requests are
    /// counted in `drain`.
    pub(crate) fn new(
        config: &ProxyConfig,
        keys: Option<Arc<Keys>>,
        transform: Transform,
        fleet: Arc<dyn Fleet>,
        lobby: Lobby,
        metrics: Arc<ProxyMetrics>,
        drain: Arc<Drain>,
    ) -> Self {
        let policy = routing::policy(config.routing.policy);
        let (limits, key_limits) = (&config.limits, &config.key_limits);
        let admission =
            Admission::start(lobby, Arc::clone(&fleet), limits, key_limits, Arc::clone(&metrics));
        Self {
            keys,
            cors: Cors::new(&config.cors),
            bodies: Bodies::new(config),
            requests: Requests::new(limits),
            admission,
            answer_tokens_assumed: limits.answer_tokens_assumed,
            dispatcher: Dispatcher::new(fleet, policy, config, Arc::clone(&metrics)),
            policy: config.routing.policy,
            default_model: config.routing.default_model.clone(),
            transform: Arc::new(transform),
            explains_to_anyone: config.listen.ip().is_loopback(),
            // The configuration's own check has seen to it.
            session_header: config.routing.session_header.parse().unwrap_or(SESSION_ID),
            timeouts: config.timeouts.clone(),
            metrics,
            drain,
        }
    }

    /// Serves the next request of a connection; the connection, if another may follow.
    pub(crate) async fn serve(
        &self,
        session: ServerSession,
        stopping: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut client = Client::new(session, stopping.clone(), &self.timeouts, &self.transform);
        let incoming = client.read_header().await?;
        let _running = self.drain.requests.enter();
        match self.answer(&mut client, incoming).await {
            Some(()) => client.reuse().await,
            None => {
                client.abandon().await;
                None
            }
        }
    }

    /// Answers one request, and remembers what came of it. `None`: no other can follow.
    async fn answer(&self, client: &mut Client, incoming: Incoming) -> Option<()> {
        let header = (incoming == Incoming::Request).then(|| client.header());
        let mut exchange = Exchange::begin(&self.metrics, header);
        let span = exchange.span();
        let goes_on = {
            // Pinned first, for what is instrumented is moved.
            let concluded = pin!(self.conclude(client, &mut exchange, incoming));
            concluded.instrument(span).await
        };
        exchange.end();
        goes_on
    }

    /// Whatever comes of a request, its client is told.
    async fn conclude(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        incoming: Incoming,
    ) -> Option<()> {
        if let (Some(cors), Incoming::Request) = (&self.cors, incoming) {
            client.grant(cors.grant(&client.header().headers));
        }
        let outcome = match incoming {
            Incoming::Request => self.journey(client, exchange).await,
            Incoming::Faulty(fault) => Err(RequestError::from(fault).into()),
        };
        match outcome {
            Ok(()) => {}
            Err(Interruption::Refused(error)) => {
                exchange.failed(&error);
                exchange.line.response_bytes = error.body().len() as u64;
                client.refuse(&error, &exchange.request_id).await.ok()?;
            }
            Err(Interruption::Told(error)) => exchange.failed(&error),
            Err(Interruption::Truncated(error)) => {
                exchange.failed(&error);
                return None;
            }
            Err(Interruption::ClientGone) => {
                exchange.line.client_gone = true;
                return None;
            }
        }
        client.end().await.ok()
    }

    /// From the header to the last byte of the answer.
    async fn journey(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<(), Interruption> {
        let (header, cors) = (client.header(), self.cors.as_ref());
        let methods = exchange.route.methods(self.default_model.is_some());
        let asked = cors.and_then(|cors| cors.preflight(&header.method, &header.headers, methods));
        if let Some(leave) = asked {
            exchange.answered(StatusCode::NO_CONTENT);
            return Ok(client.begin(StatusCode::NO_CONTENT, leave, None).await?);
        }
        let caller = Caller::of(&client.header().headers, self.keys.as_deref())?;
        exchange.line.key_id = caller.key_id();
        let _place = self.requests.admit()?;
        admit(client, exchange.route, self.default_model.is_some())?;
        if exchange.route == Route::Models {
            return self.list_models(client, exchange, &caller).await;
        }
        if headers::wants_explanation(&client.header().headers)? {
            return self.explain(client, exchange, &caller).await;
        }
        let mut visit = self.admission.enter(&caller)?;
        let mut answer = self.find_answer(client, exchange, &caller, &mut visit).await?;
        self.pass_on(client, exchange, &mut answer, &mut visit).await?;
        self.dispatcher.release(answer);
        Ok(())
    }

    /// Reads the rest of the request and finds who answers it. The body is let go of here: nobody
    /// else will be asked, and its memory is free for others while the answer streams.
    async fn find_answer(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        caller: &Caller,
        visit: &mut Visit<'_>,
    ) -> Result<Answer, Interruption> {
        let mut body = self.bodies.read(client).await?;
        let came = Instant::now();
        let keys = self.route_keys(client.header(), exchange, &mut body, caller)?;
        if self.dispatcher.members().candidates(&keys.model).is_some() {
            // Somebody serves it: it is no word of the client's own.
            exchange.line.model = Some(keys.model.clone());
        }
        visit.reserve(keys.need)?;
        let waited = if exchange.route.takes_a_place(&client.header().method) {
            let until = self.until(exchange);
            let waited = tokio::select! {
                biased;
                waited = visit.wait(&keys.model, caller.priority(), until) => waited?,
                () = client.gone() => return Err(Interruption::ClientGone),
            };
            self.metrics.waited(exchange.line.model.as_deref().unwrap_or_default(), waited);
            waited
        } else {
            Duration::ZERO
        };
        let rules = &self.transform.request;
        let mut outgoing = outgoing(client.header(), exchange, caller, rules, body.bytes.clone());
        outgoing.until = self.until(exchange);
        let answer = {
            let attempts = &mut exchange.attempts;
            let dispatched = pin!(self.dispatcher.dispatch(&keys, &outgoing, attempts));
            tokio::select! {
                biased;
                answer = dispatched => answer.map_err(Interruption::from),
                () = client.gone() => {
                    // Somebody may have read the prompt for it.
                    visit.used(visit.prompt());
                    Err(Interruption::ClientGone)
                }
            }
        };
        if let Some(sent) = exchange.attempts.first {
            self.metrics.sent(exchange.route, sent - came - waited);
        }
        let answer = answer?;
        exchange.line.backend = Some(answer.node().id.clone());
        Ok(answer)
    }

    /// When the request has to be over.
    fn until(&self, exchange: &Exchange) -> Option<tokio::time::Instant> {
        let total = Duration::from_millis(self.timeouts.total_ms?);
        Some(tokio::time::Instant::now() - exchange.elapsed() + total)
    }

    /// Says what routing would do with the request, and why.
    async fn explain(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        caller: &Caller,
    ) -> Result<(), Interruption> {
        if !caller.may_have_explained(self.explains_to_anyone) {
            return Err(RequestError::ExplanationRefused.into());
        }
        let mut body = self.bodies.read(client).await?;
        let keys = self.route_keys(client.header(), exchange, &mut body, caller)?;
        let opinions = self.dispatcher.opinions(&keys)?;
        exchange.line.model = Some(keys.model.clone());
        let answer = explain::answer(self.policy, &keys, opinions);
        answer_json(client, exchange, answer).await
    }

    /// The backend's answer becomes the client's.
    async fn pass_on(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        answer: &mut Answer,
        visit: &mut Visit<'_>,
    ) -> Result<(), Interruption> {
        let node = Arc::clone(answer.node());
        let patience = Patience {
            idle: Duration::from_millis(self.timeouts.idle_ms),
            until: self.until(exchange),
            is_gone: &|| self.dispatcher.is_gone(&node),
        };
        let head = &answer.response.head;
        let is_stream = is_event_stream(&head.headers);
        let length = if is_stream { None } else { head.length };
        exchange.answered(head.status);
        let is_computed = head.status.is_success();
        exchange.line.stream = is_stream;
        let mut passing = headers::to_client(&head.headers, &exchange.request_id);
        passing.extend(visit.remaining().headers());
        let mut usage = UsageReader::default();
        client.begin(head.status, passing, length).await?;
        let load = Arc::clone(&answer.node().load);
        let mut stream = self.metrics.stream(exchange.line.model.as_deref().unwrap_or_default());
        let since = Instant::now() - exchange.elapsed();
        let sent = &mut exchange.line.response_bytes;
        let relayed = if is_stream {
            let (ticket, first) = (&mut answer.ticket, exchange.route.first_token_piece());
            let mut in_flight_then = 0;
            let came = |piece: u32, events: &[u8]| {
                usage.events(events);
                match piece.cmp(&first) {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        ticket.first_token(self.dispatcher.now());
                        in_flight_then = load.in_flight();
                        stream.first_token(since.elapsed());
                    }
                    Ordering::Greater => stream.event(),
                }
            };
            let relayed = relay::events(client, &mut answer.response, &patience, sent, came).await;
            if relayed.is_ok() {
                answer.ticket.streamed(&StreamSeen {
                    tokens: stream.events,
                    seconds: stream.duration.as_secs_f64(),
                    in_flight: f64::from(in_flight_then + load.in_flight()) / 2.0,
                });
            }
            relayed
        } else {
            // What was refused is computed by nobody: dropped, the ticket says so.
            if is_computed {
                answer.ticket.unobserved();
            }
            let came = |piece: &[u8]| usage.piece(piece);
            relay::body(client, &mut answer.response, &patience, sent, came).await
        };
        // Of a refusal nothing was computed.
        if is_computed {
            visit.used(usage.total(visit.prompt(), exchange.route));
        }
        if let Err(Interruption::Truncated(error) | Interruption::Told(error)) = &relayed {
            self.dispatcher.note_lost(answer, error);
        }
        relayed
    }

    async fn list_models(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        caller: &Caller,
    ) -> Result<(), Interruption> {
        let path = client.header().uri.path();
        let body =
            models::answer(path, &self.dispatcher.members(), &self.transform.aliases, caller)?;
        answer_json(client, exchange, body).await
    }
}

/// Answers out of what the proxy itself knows.
async fn answer_json(
    client: &mut Client,
    exchange: &mut Exchange,
    body: Bytes,
) -> Result<(), Interruption> {
    exchange.answered(StatusCode::OK);
    exchange.line.response_bytes = body.len() as u64;
    let headers = HeaderMap::from_iter([(REQUEST_ID.clone(), exchange.request_id.clone())]);
    Ok(client.answer_json(StatusCode::OK, headers, body).await?)
}
