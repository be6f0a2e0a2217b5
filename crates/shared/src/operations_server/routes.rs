//! What each route answers.

use super::{Context, negotiate};
use crate::{
    NodeVitals,
    membership::{Generation, Goodbye},
    registration::{
        policy,
        wire::{self, Refusal},
    },
    vitals::ServiceState,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

pub(super) type Answer = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers one request.
pub(super) async fn answer(
    context: &Context,
    caller: SocketAddr,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path().to_owned();
    let method = match *request.method() {
        // hyper leaves out the body of an answer to HEAD.
        Method::HEAD => Method::GET,
        ref method => method.clone(),
    };
    let registered_id = path.strip_prefix("/registration/");
    match (method, path.as_str(), registered_id) {
        (Method::GET, "/metrics", _) if context.enable_metrics => metrics(context, &request),
        (Method::GET, "/telemetry", _) if context.enable_metrics => telemetry(context),
        (Method::GET, "/health", _) => health(context),
        (Method::GET, "/health/live", _) => live(context),
        (Method::GET, "/peers", _) => peers(context, caller, &request),
        // In a box, because the other answers are small and would be moved about in its size.
        (Method::POST, "/registration", _) => Box::pin(register(context, caller, request)).await,
        (Method::DELETE, _, Some(id)) => leave(context, caller, &request, id),
        (_, path, id) => unknown(context, path, id.is_some()),
    }
}

fn vitals(context: &Context) -> NodeVitals {
    let mut vitals = context.metrics.vitals();
    vitals.service.clone_from(&context.service_name);
    vitals.version.clone_from(&context.version);
    vitals.connected_peers = context.connected_peers.load(Relaxed);
    if let Some(identity) = &context.identity {
        identity.sign(&mut vitals);
    }
    vitals
}

fn metrics(context: &Context, request: &Request<Incoming>) -> Answer {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if negotiate::prefers_text(accept) {
        telemetry(context)
    } else {
        json(StatusCode::OK, &vitals(context))
    }
}

fn telemetry(context: &Context) -> Answer {
    reply(StatusCode::OK, PROMETHEUS, context.metrics.prometheus_text(&vitals(context)))
}

fn health(context: &Context) -> Answer {
    let state = context.metrics.state();
    let status = match state {
        ServiceState::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply(status, PLAIN, state.word())
}

fn live(context: &Context) -> Answer {
    match context.metrics.state() {
        ServiceState::Stalled => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "stalled"),
        _ => reply(StatusCode::OK, PLAIN, "alive"),
    }
}

fn peers(context: &Context, caller: SocketAddr, request: &Request<Incoming>) -> Answer {
    match authorize(context, caller, request) {
        Ok(()) => json(StatusCode::OK, &context.peers()),
        Err(refusal) => refuse(&refusal),
    }
}

async fn register(context: &Context, caller: SocketAddr, request: Request<Incoming>) -> Answer {
    let outcome = async {
        authorize(context, caller, &request)?;
        let body = read(request, context.limits.body).await?;
        context.register(wire::parse(&body)?).await
    };
    match outcome.await {
        Ok(registered) => json(StatusCode::OK, &registered),
        Err(refusal) => {
            let reason = refusal.reason();
            if matches!(refusal, Refusal::AlreadyHere { .. }) {
                tracing::debug!(%caller, reason, "registration refused");
            } else {
                tracing::warn!(%caller, reason, "registration refused");
            }
            refuse(&refusal)
        }
    }
}

fn leave(context: &Context, caller: SocketAddr, request: &Request<Incoming>, id: &str) -> Answer {
    let outcome = authorize(context, caller, request)
        .and_then(|()| goodbye(request.uri().query().unwrap_or_default()))
        .and_then(|goodbye| context.leave(id, &goodbye));
    match outcome {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({ "status": "left" })),
        Err(refusal) => refuse(&refusal),
    }
}

/// `?generation=N&nonce=TEXT`, as far as given.
fn goodbye(query: &str) -> Result<Goodbye, Refusal> {
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let generation = |text: &str| {
        let malformed = |_| Refusal::Malformed(format!("generation `{text}` is not a number"));
        text.parse().map(Generation).map_err(malformed)
    };
    let nonce = value("nonce").map(str::to_owned);
    Ok(Goodbye { generation: value("generation").map(generation).transpose()?, nonce })
}

fn authorize(
    context: &Context,
    caller: SocketAddr,
    request: &Request<Incoming>,
) -> Result<(), Refusal> {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    policy::authorize(caller.ip(), bearer, &context.secrets, context.allow_unauthenticated)
}

/// The whole body, within its limits of size and time.
async fn read(request: Request<Incoming>, patience: Duration) -> Result<Bytes, Refusal> {
    let limited = Limited::new(request.into_body(), wire::BODY_BYTES_MAX).collect();
    match tokio::time::timeout(patience, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(error)) => Err(Refusal::Malformed(format!("the body could not be read: {error}"))),
        Err(_) => Err(Refusal::TooSlow(patience)),
    }
}

/// 405 where another method works, else 404.
fn unknown(context: &Context, path: &str, is_registered_id: bool) -> Answer {
    let allow = match path {
        "/metrics" | "/telemetry" if context.enable_metrics => "GET, HEAD",
        "/health" | "/health/live" | "/peers" => "GET, HEAD",
        "/registration" => "POST",
        _ if is_registered_id => "DELETE",
        _ => return reply(StatusCode::NOT_FOUND, PLAIN, "not found"),
    };
    let mut answer = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed");
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    answer
}

fn refuse(refusal: &Refusal) -> Answer {
    json(refusal.status(), &refusal.body())
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => reply(status, JSON, body),
        Err(error) => {
            tracing::error!(%error, "an answer could not be encoded");
            reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "internal error")
        }
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}
