//! How much of a request's body is read, by endpoint and content type, pure.
//!
//! The endpoints that we know take JSON whatever the content type says, as OpenAI's clients and `curl -d` send it.
//! What passes through is read for the model alone, and only where that may stand.

use crate::{envelope::Envelope, error::RequestError, form, route::Route};
use http::{HeaderMap, HeaderValue, header};

const FORM: &[u8] = b"multipart/form-data";
const URLENCODED: &[u8] = b"application/x-www-form-urlencoded";

/// What a body is.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// JSON, or it is refused.
    Json,
    /// A form, or it is refused.
    Form,
    /// Nothing that we read.
    Other,
}

/// Reads what routing goes by in the `body` of a request for `route`; nothing of one that may be anything.
/// `passes_all`: what names no model has backends to go to. `watch` is told the names of an object's fields.
pub(crate) fn read<'a>(
    route: Route,
    headers: &HeaderMap,
    body: &'a [u8],
    passes_all: bool,
    watch: impl FnMut(&str),
) -> Result<Envelope<'a>, RequestError> {
    if route == Route::Passthrough && headers.get_all(header::CONTENT_TYPE).iter().nth(1).is_some()
    {
        // Proxy and backend could each go by another one.
        return Err(RequestError::MalformedHeader);
    }
    match content(route, headers, body, passes_all) {
        Content::Json => Envelope::parse(body, watch),
        Content::Form => {
            let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            let model = form::model(kind.unwrap_or_default(), body)?;
            Ok(Envelope { model, ..Envelope::default() })
        }
        Content::Other => Ok(Envelope::default()),
    }
}

fn content(route: Route, headers: &HeaderMap, body: &[u8], passes_all: bool) -> Content {
    if route != Route::Passthrough {
        return Content::Json;
    }
    let media_type = media_type(headers);
    let is =
        |kind: &[u8]| media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(kind));
    if is(FORM) {
        return Content::Form;
    }
    // URLENCODED is what `curl -d` says of everything.
    let is_object = body.trim_ascii_start().first() == Some(&b'{')
        && (media_type.is_none_or(is_json) || is(URLENCODED));
    // Nobody would get what names no model: then it is told what is wrong with its JSON.
    if !passes_all || is_object { Content::Json } else { Content::Other }
}

/// The media type of a body, without its parameters (RFC 9110 §8.3.1).
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)?;
    value.split(|&byte| byte == b';').next().map(<[u8]>::trim_ascii)
}

/// `application/json`, or something that is written in it (RFC 6839 §3.1).
fn is_json(media_type: &[u8]) -> bool {
    let suffix = media_type.len().saturating_sub(b"+json".len());
    media_type.eq_ignore_ascii_case(b"application/json")
        || media_type[suffix..].eq_ignore_ascii_case(b"+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(route: Route, kind: Option<&str>, body: &str, passes_all: bool) -> Content {
        let kind = kind.map(|kind| HeaderValue::from_str(kind).expect("a value"));
        let headers = kind.map(|kind| (header::CONTENT_TYPE, kind)).into_iter().collect();
        content(route, &headers, body.as_bytes(), passes_all)
    }

    #[test]
    fn what_is_known_is_json_whatever_it_is_called() {
        for kind in [None, Some("text/plain"), Some("multipart/form-data; boundary=b")] {
            assert_eq!(of(Route::Chat, kind, "", true), Content::Json);
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let kind = |boundary| HeaderValue::from_static(boundary);
        let kinds = ["multipart/form-data; boundary=a", "multipart/form-data; boundary=b"];
        let headers = kinds.map(|text| (header::CONTENT_TYPE, kind(text))).into_iter().collect();
        let error = read(Route::Passthrough, &headers, b"--a--", true, |_| {}).expect_err("two");
        assert_eq!(error.code(), "malformed_request");
    }

    #[test]
    fn what_passes_is_read_where_a_model_may_stand() {
        for (kind, body, content) in [
            (None, "", Content::Other),
            (Some("application/json"), "", Content::Other),
            (None, " {", Content::Json),
            (None, "x", Content::Other),
            (Some("Application/JSON ; charset=utf-8"), "{", Content::Json),
            (Some("application/merge-patch+json"), "{", Content::Json),
            (Some("application/json"), "[1]", Content::Other),
            (Some("application/x-www-form-urlencoded"), "\n {", Content::Json),
            (Some("application/x-www-form-urlencoded"), "model=m", Content::Other),
            (Some("application/jsonl"), "{}\n{}", Content::Other),
            (Some("json"), "{}", Content::Other),
            (Some(""), "{}", Content::Other),
            (Some("MULTIPART/form-data; boundary=b"), "x", Content::Form),
        ] {
            assert_eq!(of(Route::Passthrough, kind, body, true), content, "{kind:?} {body}");
            let alone = if content == Content::Form { content } else { Content::Json };
            assert_eq!(of(Route::Passthrough, kind, body, false), alone, "{kind:?} {body}");
        }
    }
}
