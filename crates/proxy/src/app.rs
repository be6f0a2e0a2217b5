//! One request's journey, top to bottom.

use crate::{
    auth::Caller,
    body::Bodies,
    dispatch::{Answer, Dispatcher, RouteKeys},
    downstream::{Client, Incoming},
    drain::Drain,
    envelope::Envelope,
    error::{Interruption, RequestError},
    exchange::Exchange,
    explain,
    headers::{self, REQUEST_ID},
    keys::Keys,
    limits::Requests,
    metrics::ProxyMetrics,
    models,
    prompt::{self, PromptHashes},
    relay,
    route::Route,
    routing::{self, Fleet, prefix::StreamSeen},
    stream::is_event_stream,
    upstream::OutgoingRequest,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use inferno_shared::config::{ProxyConfig, ProxyTimeouts, RoutingPolicy};
use pingora_core::{apps::ReusedHttpStream, protocols::http::ServerSession, server::ShutdownWatch};
use pingora_http::RequestHeader;
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
    bodies: Bodies,
    requests: Requests,
    dispatcher: Dispatcher,
    policy: RoutingPolicy,
    session_header: HeaderName,
    /// Whoever comes may have routing explained.
    explains_to_anyone: bool,
    timeouts: ProxyTimeouts,
    metrics: Arc<ProxyMetrics>,
    drain: Arc<Drain>,
}

impl Gateway {
    /// A gateway to `fleet`, for whoever has one of `keys` or, without them, for anyone. Requests run
    /// until `drain` cuts them.
    pub(crate) fn new(
        config: &ProxyConfig,
        keys: Option<Arc<Keys>>,
        fleet: Arc<dyn Fleet>,
        metrics: Arc<ProxyMetrics>,
        drain: Arc<Drain>,
    ) -> Self {
        let policy = routing::policy(config.routing.policy);
        Self {
            keys,
            bodies: Bodies::new(config),
            requests: Requests::new(&config.limits),
            dispatcher: Dispatcher::new(fleet, policy, config, Arc::clone(&metrics)),
            policy: config.routing.policy,
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
        let mut client = Client::new(session, stopping.clone(), &self.timeouts);
        let incoming = client.read_header().await?;
        let _running = self.drain.requests.enter();
        let answered = pin!(self.answer(client, incoming));
        tokio::select! {
            biased;
            reusable = answered => reusable,
            () = self.drain.is_cut() => None,
        }
    }

    /// Answers one request, and remembers what came of it.
    async fn answer(&self, client: Client, incoming: Incoming) -> Option<ReusedHttpStream> {
        let header = (incoming == Incoming::Request).then(|| client.header());
        let mut exchange = Exchange::begin(&self.metrics, header);
        let span = exchange.span();
        let reusable = self.conclude(client, &mut exchange, incoming).instrument(span).await;
        exchange.end();
        reusable
    }

    /// Whatever comes of a request, its client is told.
    async fn conclude(
        &self,
        mut client: Client,
        exchange: &mut Exchange,
        incoming: Incoming,
    ) -> Option<ReusedHttpStream> {
        let outcome = match incoming {
            Incoming::Request => self.journey(&mut client, exchange).await,
            Incoming::Malformed => Err(RequestError::MalformedHeader.into()),
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
        client.finish().await
    }

    /// From the header to the last byte of the answer.
    async fn journey(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<(), Interruption> {
        let caller = Caller::of(&client.header().headers, self.keys.as_deref())?;
        exchange.line.key_id = caller.key_id();
        let _place = self.requests.admit()?;
        admit(client, exchange.route)?;
        if exchange.route == Route::Models {
            return self.list_models(client, exchange, &caller).await;
        }
        if headers::wants_explanation(&client.header().headers)? {
            return self.explain(client, exchange, &caller).await;
        }
        let mut answer = self.find_answer(client, exchange, &caller).await?;
        self.pass_on(client, exchange, &mut answer).await?;
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
    ) -> Result<Answer, Interruption> {
        let body = self.bodies.read(client).await?;
        let came = Instant::now();
        let keys = self.route_keys(client.header(), exchange, &body.bytes, caller)?;
        if self.dispatcher.members().candidates(&keys.model).is_some() {
            // Somebody serves it: it is no word of the client's own.
            exchange.line.model = Some(keys.model.clone());
        }
        let outgoing = outgoing(client.header(), exchange, caller, body.bytes.clone());
        let answer = {
            let attempts = &mut exchange.attempts;
            let dispatched = pin!(self.dispatcher.dispatch(&keys, &outgoing, attempts));
            tokio::select! {
                biased;
                answer = dispatched => answer.map_err(Interruption::from),
                () = client.gone() => Err(Interruption::ClientGone),
            }
        };
        if let Some(sent) = exchange.attempts.first {
            self.metrics.sent(exchange.route, sent - came);
        }
        let answer = answer?;
        exchange.line.backend = Some(answer.node().id.clone());
        Ok(answer)
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
        let body = self.bodies.read(client).await?;
        let keys = self.route_keys(client.header(), exchange, &body.bytes, caller)?;
        let opinions = self.dispatcher.opinions(&keys)?;
        exchange.line.model = Some(keys.model.clone());
        let answer = explain::answer(self.policy, &keys, opinions);
        answer_json(client, exchange, answer).await
    }

    /// What the request is routed by.
    fn route_keys(
        &self,
        header: &RequestHeader,
        exchange: &mut Exchange,
        body: &[u8],
        caller: &Caller,
    ) -> Result<RouteKeys, RequestError> {
        exchange.line.request_bytes = body.len() as u64;
        let envelope = Envelope::parse(body)?;
        if !caller.may_use(&envelope.model) {
            return Err(RequestError::ModelNotAllowed { model: envelope.model });
        }
        let tenant = caller.key_id();
        let prompt = match exchange.route.has_prompt() {
            true => {
                let parts = [envelope.tools, envelope.prompt];
                PromptHashes::of(&envelope.model, tenant.as_deref(), parts)
            }
            false => PromptHashes::without_blocks(body.len()),
        };
        let named = header.headers.get(&self.session_header).map(HeaderValue::as_bytes);
        let session = named.or(envelope.session.as_deref().map(str::as_bytes));
        Ok(RouteKeys { prompt, session: session.map(prompt::name), model: envelope.model })
    }

    /// The backend's answer becomes the client's.
    async fn pass_on(
        &self,
        client: &mut Client,
        exchange: &mut Exchange,
        answer: &mut Answer,
    ) -> Result<(), Interruption> {
        let patience = Duration::from_millis(self.timeouts.idle_ms);
        let head = &answer.response.head;
        let is_stream = is_event_stream(&head.headers);
        let length = if is_stream { None } else { head.body.known_length() };
        exchange.answered(head.status);
        let is_computed = head.status.is_success();
        exchange.line.stream = is_stream;
        let passing = headers::to_client(&head.headers, &exchange.request_id);
        client.begin(head.status, passing, length).await?;
        let load = Arc::clone(&answer.node().load);
        let mut stream = self.metrics.stream(exchange.line.model.as_deref().unwrap_or_default());
        let since = Instant::now() - exchange.elapsed();
        let sent = &mut exchange.line.response_bytes;
        let relayed = if is_stream {
            let (ticket, first) = (&mut answer.ticket, exchange.route.first_token_piece());
            let mut in_flight_then = 0;
            let came = |piece: u32| match piece.cmp(&first) {
                Ordering::Less => {}
                Ordering::Equal => {
                    ticket.first_token(self.dispatcher.now());
                    in_flight_then = load.in_flight();
                    stream.first_token(since.elapsed());
                }
                Ordering::Greater => stream.event(),
            };
            let relayed = relay::events(client, &mut answer.response, patience, sent, came).await;
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
            relay::body(client, &mut answer.response, patience, sent).await
        };
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
        let body = models::answer(path, &self.dispatcher.members(), caller)?;
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

/// What can be refused before the body is read.
fn admit(client: &Client, route: Route) -> Result<(), RequestError> {
    if client.wants_upgrade() {
        return Err(RequestError::UpgradeRequested);
    }
    let header = client.header();
    if let Some(name) = headers::internal(&header.headers) {
        return Err(RequestError::InternalHeader { name: name.to_string() });
    }
    route.check(&header.method)
}

fn outgoing(
    header: &RequestHeader,
    exchange: &Exchange,
    caller: &Caller,
    body: Bytes,
) -> OutgoingRequest {
    let target = header.uri.path_and_query().map_or("/", |target| target.as_str());
    let state = exchange.tracestate.as_ref();
    let headers = headers::to_backend(&header.headers, &exchange.request_id, state);
    let replayable = exchange.route.is_replayable();
    let request = OutgoingRequest::new(&header.method, target, headers, body, replayable);
    let request = match caller.key_id() {
        Some(id) => request.with_internal(headers::TENANT, id.as_bytes()),
        None => request,
    };
    match caller.priority() {
        0 => request,
        priority => request.with_internal(headers::PRIORITY, priority.to_string().as_bytes()),
    }
}
