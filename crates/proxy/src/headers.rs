//! Which header fields pass, in each direction, pure.

use crate::{cors, error::RequestError};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use inferno_shared::telemetry::trace_context::{TRACEPARENT, TRACESTATE};

/// Brings a lease's token to its backend. Foreign engines get none of the fields that begin so.
pub(crate) const TOKEN: &str = "x-inferno-token";
/// Tells a backend whose request it is, by the id of the API key: cached prefixes are not shared between keys,
/// for how long an answer takes would tell one what another asked.
pub(crate) const TENANT: &str = "x-inferno-tenant";
/// Tells a backend which requests to compute first, where that is not 0.
pub(crate) const PRIORITY: &str = "x-inferno-priority";
/// From a client that may: tell what routing would do, and why.
pub(crate) static EXPLAIN: HeaderName = HeaderName::from_static("x-inferno-explain");
/// Tells a client whether asking again may help.
pub(crate) static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Tells a client how long to wait before it asks again.
pub(crate) static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Names a request in every log it passes.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Header fields between proxy and backend. A client may neither send nor see them.
const INTERNAL_PREFIX: &str = "x-inferno-";

/// Fields that concern one connection (RFC 9110 §7.6.1), whether `connection` names them or not.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields of a request that stay here: the client's credentials, for they are for the proxy alone;
/// what the proxy writes itself; and `accept-encoding`, for events are read on their way. Credentials are the first 4.
static NOT_FOR_BACKENDS: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("x-inferno-explain"),
];

/// Whether it is between proxy and backends.
pub(crate) fn is_internal(name: &HeaderName) -> bool {
    name.as_str().starts_with(INTERNAL_PREFIX)
}

/// Whether it may show who somebody is.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    NOT_FOR_BACKENDS[..4].contains(name)
}

/// Whether a backend gets the field as a client sent it.
pub(crate) fn may_go_to_backends(name: &HeaderName) -> bool {
    let told_anew = [&REQUEST_ID, &TRACEPARENT, &TRACESTATE];
    !NOT_FOR_BACKENDS.contains(name) && !told_anew.contains(&name)
}

/// The name of an internal field in a client's request, if there is one.
pub(crate) fn internal(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| is_internal(name) && **name != EXPLAIN)
}

/// Whether a client wants an explanation in place of an answer.
///
/// # Errors
/// If the field is there and not `1`.
pub(crate) fn wants_explanation(headers: &HeaderMap) -> Result<bool, RequestError> {
    match headers.get(&EXPLAIN).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) => Err(RequestError::InternalHeader { name: EXPLAIN.to_string() }),
    }
}

/// What of a client's header goes to a backend, the id of the request, and what tracing systems tell
/// each other. `traceparent` is not among it: each attempt has its own.
pub(crate) fn to_backend<'a>(
    headers: &'a HeaderMap,
    request_id: &'a HeaderValue,
    tracestate: Option<&'a HeaderValue>,
) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
    let named = named_by_connection(headers);
    let passes = move |name| may_go_to_backends(name) && !is_hop_by_hop(name, &named);
    let passing = headers.iter().filter(move |(name, _)| passes(name));
    let tracestate = tracestate.map(|tracestate| (&TRACESTATE, tracestate));
    passing.chain([(&REQUEST_ID, request_id)]).chain(tracestate)
}

/// What of a backend's header goes to the client, and the id of the request. The length stays: it
/// is told anew where the body keeps it; and so does whom browsers should let in, which is ours to say.
pub(crate) fn to_client(headers: &HeaderMap, request_id: &HeaderValue) -> HeaderMap {
    let named = named_by_connection(headers);
    let stays = |name: &HeaderName| {
        is_internal(name) || *name == header::CONTENT_LENGTH || cors::is_ours(name)
    };
    let mut out = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        if !stays(name) && !is_hop_by_hop(name, &named) {
            out.append(name, value.clone());
        }
    }
    out.insert(&REQUEST_ID, request_id.clone());
    out
}

/// Whether it concerns one connection, by itself or because `connection` names it.
pub(crate) fn is_hop_by_hop(name: &HeaderName, named: &[&[u8]]) -> bool {
    HOP_BY_HOP.contains(name)
        || named.iter().any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<&[u8]> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn neither_credentials_nor_connection_fields_reach_a_backend() {
        let headers = map(&[
            ("authorization", "Bearer sk-1"),
            ("x-api-key", "sk-1"),
            ("cookie", "a=b"),
            ("connection", "X-Hop, close"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "h"),
            ("content-type", "application/json"),
            ("traceparent", "00-1"),
            ("tracestate", "theirs=1"),
            ("x-request-id", "../../bad"),
        ]);
        let id = HeaderValue::from_static("id-1");
        let state = HeaderValue::from_static("ours=1");
        let out = to_backend(&headers, &id, Some(&state))
            .map(|(name, value)| (name.clone(), value.clone()));
        let out: HeaderMap = out.collect();
        assert_eq!(names(&out), ["content-type", "tracestate", "x-request-id"]);
        assert_eq!((&out["x-request-id"], &out["tracestate"]), (&id, &state));
    }

    #[test]
    fn neither_internal_nor_connection_fields_reach_a_client() {
        let headers = map(&[
            ("x-inferno-step", "9"),
            ("access-control-allow-origin", "*"),
            ("connection", "close"),
            ("content-length", "3"),
            ("content-type", "application/json"),
            ("x-request-id", "theirs"),
        ]);
        let out = to_client(&headers, &HeaderValue::from_static("ours"));
        assert_eq!(names(&out), ["content-type", "x-request-id"]);
        assert_eq!(out["x-request-id"], "ours");
    }

    #[test]
    fn an_internal_field_is_found() {
        assert!(internal(&map(&[("accept", "x"), ("x-inferno-token", "t")])).is_some());
        assert!(internal(&map(&[("accept", "x")])).is_none());
    }
}
