//! What a client asks for, and what a backend is asked in its place.

use super::Gateway;
use crate::{
    admission::Need,
    auth::Caller,
    body::Body,
    dispatch::RouteKeys,
    downstream::Client,
    envelope::Envelope,
    error::RequestError,
    exchange::Exchange,
    headers,
    prompt::{self, PromptHashes},
    reading,
    route::Route,
    transform::{self, Defaults, FieldRules},
    upstream::OutgoingRequest,
};
use bytes::Bytes;
use http::HeaderValue;
use pingora_http::RequestHeader;

impl Gateway {
    /// What the request is routed by. Its body becomes the one for the backend.
    pub(super) fn route_keys(
        &self,
        header: &RequestHeader,
        exchange: &mut Exchange,
        body: &mut Body,
        caller: &Caller,
    ) -> Result<RouteKeys, RequestError> {
        let bytes = body.bytes.clone();
        exchange.line.request_bytes = bytes.len() as u64;
        let (route, passes_all) = (exchange.route, self.default_model.is_some());
        let defaults = caller.defaults().filter(|_| route.has_defaults());
        let mut missing = defaults.map(Defaults::missing);
        let watch = |name: &str| missing.iter_mut().for_each(|missing| missing.saw(name));
        let envelope = reading::read(route, &header.headers, &bytes, passes_all, watch)?;
        let asked = self.asked(route, &envelope)?;
        if !caller.may_use(asked) {
            return Err(RequestError::ModelNotAllowed { model: asked.into() });
        }
        let target = self.transform.aliases.model(asked);
        let named = envelope.model.as_ref().zip(target);
        if let Some(changed) = transform::body::changed(&bytes, named, missing.as_ref()) {
            body.replace(changed)?;
        }
        let (model, alias) = (target.unwrap_or(asked).to_owned(), target.map(|_| asked.to_owned()));
        let tenant = caller.key_id();
        let prompt = match route.has_prompt() {
            true => {
                let parts = [envelope.tools, envelope.prompt];
                PromptHashes::of(&model, tenant.as_deref(), parts)
            }
            false => PromptHashes::without_blocks(bytes.len()),
        };
        let named = header.headers.get(&self.session_header).map(HeaderValue::as_bytes);
        let session = named.or(envelope.session.as_deref().map(str::as_bytes));
        let session = session.map(prompt::name);
        let (tokens, assumed) = (prompt.tokens.into(), self.answer_tokens_assumed);
        let need = Need::of(route, &envelope, defaults, tokens, assumed);
        Ok(RouteKeys { prompt, need, session, model, alias })
    }

    /// The model that a request asks for, or the one for those that may ask for none.
    fn asked<'a>(
        &'a self,
        route: Route,
        envelope: &'a Envelope<'_>,
    ) -> Result<&'a str, RequestError> {
        let default = self.default_model.as_deref().filter(|_| route == Route::Passthrough);
        let named = envelope.model.as_ref().map(|model| &*model.name);
        named.or(default).ok_or(RequestError::MissingParameter { param: "model" })
    }
}

/// What can be refused before the body is read.
pub(super) fn admit(client: &Client, route: Route, passes_all: bool) -> Result<(), RequestError> {
    if client.wants_upgrade() {
        return Err(RequestError::UpgradeRequested);
    }
    let header = client.header();
    if let Some(name) = headers::internal(&header.headers) {
        return Err(RequestError::InternalHeader { name: name.to_string() });
    }
    route.check(&header.method, passes_all)
}

/// The request as a backend gets it.
pub(super) fn outgoing(
    header: &RequestHeader,
    exchange: &Exchange,
    caller: &Caller,
    rules: &FieldRules,
    body: Bytes,
) -> OutgoingRequest {
    let target = header.uri.path_and_query().map_or("/", |target| target.as_str());
    let state = exchange.tracestate.as_ref();
    let headers = rules.over(headers::to_backend(&header.headers, &exchange.request_id, state));
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
