//! Header fields that are set, added and removed.
//!
//! Framing, hops, what is between proxy and backends, and what the proxy says itself are not for configuration: a
//! wrong value would break the connection, the trace or the trust in it. Nor are credentials: a value here is shown
//! by every `config show`.

use super::{TransformError, check_count};
use crate::{cors, headers};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use inferno_shared::config::{HeaderField, ProxyHeaders};

/// Which fields are changed, in this order: those in `dropped` go, those in `put` come.
#[derive(Debug, Default)]
pub(crate) struct FieldRules {
    /// Names of what is removed or set.
    dropped: Vec<HeaderName>,
    /// What is set or added.
    put: Vec<(HeaderName, HeaderValue)>,
}

/// The lists of one direction, and what their keys are called.
struct Lists<'a> {
    set: (&'static str, &'a [HeaderField]),
    add: (&'static str, &'a [HeaderField]),
    remove: (&'static str, &'a [String]),
    /// Why a field may not be touched.
    refuse: fn(&HeaderName) -> Option<&'static str>,
}

impl FieldRules {
    /// For requests to backends.
    pub(super) fn of_requests(headers: &ProxyHeaders) -> Result<Self, TransformError> {
        Self::of(&Lists {
            set: ("proxy.headers.request_set", &headers.request_set),
            add: ("proxy.headers.request_add", &headers.request_add),
            remove: ("proxy.headers.request_remove", &headers.request_remove),
            refuse: refused_of_requests,
        })
    }

    /// For answers to clients.
    pub(super) fn of_responses(headers: &ProxyHeaders) -> Result<Self, TransformError> {
        Self::of(&Lists {
            set: ("proxy.headers.response_set", &headers.response_set),
            add: ("proxy.headers.response_add", &headers.response_add),
            remove: ("proxy.headers.response_remove", &headers.response_remove),
            refuse: refused_of_responses,
        })
    }

    fn of(lists: &Lists<'_>) -> Result<Self, TransformError> {
        let mut rules = Self::default();
        let wrong = |key, why| Err(TransformError { key, why });
        let (key, names) = lists.remove;
        check_count(key, names)?;
        for name in names {
            // The configuration's own check has seen to its form.
            let Ok(name) = name.parse::<HeaderName>() else {
                return wrong(key, format!("`{name}` is not the name of a header field"));
            };
            rules.dropped.push(name);
        }
        let removed = rules.dropped.len();
        for (key, fields, is_set) in
            [(lists.set.0, lists.set.1, true), (lists.add.0, lists.add.1, false)]
        {
            check_count(key, fields)?;
            for HeaderField { name, value } in fields {
                if is_set && rules.dropped[removed..].contains(name) {
                    return wrong(key, format!("`{name}` is set twice"));
                }
                if is_set && rules.dropped[..removed].contains(name) {
                    let why = format!(
                        "`{name}` is in {} too; to set it replaces it already",
                        lists.remove.0
                    );
                    return wrong(key, why);
                }
                if is_set {
                    rules.dropped.push(name.clone());
                }
                rules.put.push((name.clone(), value.clone()));
            }
        }
        rules.check(lists)
    }

    /// Refuses to touch what may not be touched.
    fn check(self, lists: &Lists<'_>) -> Result<Self, TransformError> {
        let named = |fields: &[HeaderField], name: &HeaderName| {
            fields.iter().any(|field| field.name == *name)
        };
        let names = self.dropped.iter().chain(self.put.iter().map(|(name, _)| name));
        let refused = names.filter_map(|name| Some((name, (lists.refuse)(name)?))).next();
        let Some((name, why)) = refused else { return Ok(self) };
        let key = if named(lists.set.1, name) {
            lists.set.0
        } else if named(lists.add.1, name) {
            lists.add.0
        } else {
            lists.remove.0
        };
        Err(TransformError { key, why: format!("`{name}` may not be changed: {why}") })
    }

    /// `fields` as these rules leave them.
    pub(crate) fn over<'a>(
        &'a self,
        fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let passing = fields.filter(|(name, _)| !self.dropped.contains(name));
        passing.chain(self.put.iter().map(|(name, value)| (name, value)))
    }

    /// Changes `headers` in place.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.dropped {
            headers.remove(name);
        }
        for (name, value) in &self.put {
            headers.append(name, value.clone());
        }
    }
}

const CREDENTIALS: &str = "a client's credentials stay at the proxy, and none belong in the configuration, which `config show` prints";
/// What the names of all fields that tell of limits begin with.
const RATE_LIMIT: &str = "x-ratelimit-";
const PROXYS_OWN: &str = "the proxy writes it itself";

fn refused_of_requests(name: &HeaderName) -> Option<&'static str> {
    if let Some(why) = refused_of_both(name) {
        return Some(why);
    }
    if headers::is_credential(name) {
        return Some(CREDENTIALS);
    }
    match *name {
        header::ACCEPT_ENCODING => {
            Some("answers have to come uncompressed, for events are read on their way")
        }
        _ if !headers::may_go_to_backends(name) => Some(PROXYS_OWN),
        _ => None,
    }
}

fn refused_of_responses(name: &HeaderName) -> Option<&'static str> {
    let own = [
        header::DATE,
        header::RETRY_AFTER,
        headers::RETRY_AFTER_MS.clone(),
        header::ALLOW,
        header::WWW_AUTHENTICATE,
        headers::SHOULD_RETRY.clone(),
    ];
    match refused_of_both(name) {
        Some(why) => Some(why),
        None if cors::is_ours(name) => Some("proxy.cors.* says whom browsers let in"),
        None if own.contains(name) || name.as_str().starts_with(RATE_LIMIT) => Some(PROXYS_OWN),
        None => None,
    }
}

/// What is neither for backends nor for clients.
fn refused_of_both(name: &HeaderName) -> Option<&'static str> {
    match *name {
        header::CONTENT_LENGTH | header::TRANSFER_ENCODING => {
            Some("it says where the message ends")
        }
        header::CONTENT_TYPE | header::CONTENT_ENCODING => Some("it says what the body is"),
        _ if headers::is_internal(name) => Some("it is between proxy and backends"),
        _ if headers::is_hop_by_hop(name, &[]) => Some("it concerns one connection"),
        _ if *name == headers::REQUEST_ID => Some(PROXYS_OWN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(items: &[&str]) -> Vec<HeaderField> {
        items.iter().map(|item| item.parse().expect(item)).collect()
    }

    /// Rules of requests, if the direction is that, else of answers.
    fn rules(
        of_requests: bool,
        set: &[&str],
        add: &[&str],
        remove: &[&str],
    ) -> Result<FieldRules, String> {
        let (set, add) = (fields(set), fields(add));
        let remove = remove.iter().map(|&name| name.to_owned()).collect();
        let none = ProxyHeaders::default();
        let rules = if of_requests {
            let lists =
                ProxyHeaders { request_set: set, request_add: add, request_remove: remove, ..none };
            FieldRules::of_requests(&lists)
        } else {
            let lists = ProxyHeaders {
                response_set: set,
                response_add: add,
                response_remove: remove,
                ..none
            };
            FieldRules::of_responses(&lists)
        };
        rules.map_err(|error| error.to_string())
    }

    fn written(fields: &HeaderMap) -> Vec<String> {
        fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
            .collect()
    }

    #[test]
    fn what_is_set_replaces_what_is_added_joins_and_what_is_removed_goes() {
        let rules = rules(true, &["a: 1"], &["b: 2", "b: 3", "c: 4"], &["D", "c"]).expect("valid");
        let before = [("a", "x"), ("a", "y"), ("b", "z"), ("c", "x"), ("d", "x"), ("e", "x")];
        let before: HeaderMap = before
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let after = ["a: 1", "b: 2", "b: 3", "b: z", "c: 4", "e: x"];
        let over = rules.over(before.iter()).map(|(name, value)| (name.clone(), value.clone()));
        let mut over = written(&over.collect());
        over.sort();
        assert_eq!(over, after);
        let mut headers = before;
        rules.apply(&mut headers);
        let mut applied = written(&headers);
        applied.sort();
        assert_eq!(applied, after);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (set, remove, why) in [
            (&["a: 1", "A: 2"][..], &[][..], "proxy.headers.request_set: `a` is set twice"),
            (&["a: 1"], &["a"], "`a` is in proxy.headers.request_remove too"),
            (&[], &["a b"], "not the name of a header field"),
        ] {
            let error = rules(true, set, &[], remove).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        assert!(
            rules(true, &[], &["a: 1"], &["a"]).is_ok(),
            "to remove what comes and add another"
        );
    }

    #[test]
    fn what_is_not_for_configuration_is_refused_in_every_list() {
        let of_both = [
            "content-length",
            "transfer-encoding",
            "content-type",
            "content-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-authorization",
            "x-inferno-tenant",
            "x-inferno-anything",
            "x-request-id",
        ];
        let of_requests = [
            "host",
            "authorization",
            "cookie",
            "x-api-key",
            "api-key",
            "expect",
            "accept-encoding",
            "traceparent",
            "tracestate",
        ];
        let of_responses = [
            "access-control-allow-origin",
            "x-ratelimit-limit-tokens",
            "retry-after-ms",
            "date",
            "retry-after",
            "www-authenticate",
            "allow",
            "x-should-retry",
        ];
        for (is_request, names) in
            [(true, &of_both[..]), (false, &of_both), (true, &of_requests), (false, &of_responses)]
        {
            for name in names {
                let field = format!("{name}: 1");
                for (list, error) in [
                    ("_set", rules(is_request, &[&field], &[], &[])),
                    ("_add", rules(is_request, &[], &[&field], &[])),
                    ("_remove", rules(is_request, &[], &[], &[name])),
                ] {
                    let error = error.expect_err(name);
                    let why = format!("`{name}` may not be changed: ");
                    assert!(error.contains(list) && error.contains(&why), "{error}");
                }
            }
        }
        for name in ["server", "set-cookie", "vary", "cache-control"] {
            assert!(rules(false, &[], &[], &[name]).is_ok(), "{name}");
        }
        assert!(rules(true, &["user-agent: inferno"], &[], &["accept"]).is_ok());
    }
}
