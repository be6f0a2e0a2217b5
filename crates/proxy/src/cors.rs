//! Which web pages a browser lets in (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>), pure.
//!
//! A page of another origin may send a JSON request only after the browser has asked for leave, in an `OPTIONS` request
//! without credentials, and may read an answer only if that names its origin: an error's answer too. What backends say
//! of it does not count, for who may come is for the proxy to say.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, header,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    },
};
use inferno_shared::config::ProxyCors;

/// Any origin, any header field.
const ANY: &str = "*";

/// What the names of all fields that grant something begin with.
pub(crate) const PREFIX: &str = "access-control-";

/// The origins whose pages may call the API, and what these may do.
#[derive(Debug)]
pub(crate) struct Cors {
    /// None: any.
    origins: Option<Vec<HeaderValue>>,
    /// None: whichever are asked for.
    allow_headers: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
}

impl Cors {
    /// What `config` says; nothing, where no page may come.
    pub(crate) fn new(config: &ProxyCors) -> Option<Self> {
        if config.allow_origins.is_empty() {
            return None;
        }
        let any = |list: &[String]| list.iter().any(|item| item == ANY);
        // The configuration's own check has seen to it that all of them can be values.
        let origins = || config.allow_origins.iter().filter_map(|origin| origin.parse().ok());
        Some(Self {
            origins: (!any(&config.allow_origins)).then(|| origins().collect()),
            allow_headers: (!any(&config.allow_headers)).then(|| joined(&config.allow_headers)),
            expose_headers: (!config.expose_headers.is_empty())
                .then(|| joined(&config.expose_headers)),
            max_age: config.max_age_s.into(),
            credentials: config.allow_credentials,
        })
    }

    /// The fields of an answer to whoever sent `headers`, an error's included.
    pub(crate) fn grant(&self, headers: &HeaderMap) -> HeaderMap {
        let mut granted = HeaderMap::new();
        // Whether it is granted or not: a cache must not give one origin's answer to another.
        granted.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin(headers) {
            granted.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                granted.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            if let Some(exposed) = &self.expose_headers {
                granted.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
            }
        }
        granted
    }

    /// The fields of the answer to a browser that asks for leave, besides those of [`Self::grant`]. `None`: nobody asks,
    /// or whoever does gets none, and the request is one like any other. The endpoint has those `methods`.
    pub(crate) fn preflight(
        &self,
        method: &Method,
        headers: &HeaderMap,
        methods: Option<&'static str>,
    ) -> Option<HeaderMap> {
        let asks =
            *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks {
            return None;
        }
        self.origin(headers)?;
        let methods = HeaderValue::from_static(methods?);
        let mut granted = HeaderMap::new();
        granted.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let asked_for = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(allowed) = self.allow_headers.as_ref().or(asked_for) {
            granted.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        granted.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let asked = "access-control-request-method, access-control-request-headers";
        granted.append(header::VARY, HeaderValue::from_static(asked));
        Some(granted)
    }

    /// What to name as the origin that may: the one that asks, or any.
    fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Some(allowed) = &self.origins else { return Some(HeaderValue::from_static(ANY)) };
        let origin = headers.get(header::ORIGIN)?;
        allowed.contains(origin).then(|| origin.clone())
    }
}

/// Whether only we may say the field called `name`.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

fn joined(names: &[String]) -> HeaderValue {
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> ProxyCors {
        let allow_origins = origins.iter().map(|&origin| origin.into()).collect();
        ProxyCors { allow_origins, ..ProxyCors::default() }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.collect()
    }

    const PAGE: (&str, &str) = ("origin", "https://app.example");

    #[test]
    fn without_origins_there_is_none_of_it() {
        assert!(Cors::new(&ProxyCors::default()).is_none());
    }

    #[test]
    fn an_origin_is_named_exactly_where_it_is_listed() {
        let cors =
            Cors::new(&cors(&["https://app.example", "http://localhost:3000"])).expect("set");
        let named = |origin| {
            let granted = cors.grant(&headers(&[("origin", origin)]));
            assert_eq!(granted[header::VARY], "origin", "either way");
            granted.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        for origin in ["https://app.example", "http://localhost:3000"] {
            assert_eq!(named(origin).expect("allowed"), origin);
        }
        for origin in
            ["https://app.example.evil", "http://app.example", "https://APP.example", "null", ""]
        {
            assert_eq!(named(origin), None, "{origin}");
        }
        let granted = cors.grant(&HeaderMap::new());
        assert_eq!(granted.len(), 1, "no browser asks: {granted:?}");
    }

    #[test]
    fn any_origin_is_named_as_such() {
        let cors = Cors::new(&cors(&["*"])).expect("set");
        for asking in [headers(&[PAGE]), HeaderMap::new()] {
            assert_eq!(cors.grant(&asking)[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        }
    }

    #[test]
    fn credentials_and_exposed_fields_are_told_where_they_are_set() {
        let with = |credentials, exposed: &[&str]| {
            let config = ProxyCors {
                allow_credentials: credentials,
                expose_headers: exposed.iter().map(|&name| name.into()).collect(),
                ..cors(&[PAGE.1])
            };
            let granted = Cors::new(&config).expect("set").grant(&headers(&[PAGE]));
            let told = |name| granted.get(name).cloned();
            (told(ACCESS_CONTROL_ALLOW_CREDENTIALS), told(ACCESS_CONTROL_EXPOSE_HEADERS))
        };
        assert_eq!(with(false, &[]), (None, None));
        let (credentials, exposed) = with(true, &["x-request-id", "retry-after"]);
        assert_eq!(credentials.expect("set"), "true");
        assert_eq!(exposed.expect("set"), "x-request-id, retry-after");
    }

    #[test]
    fn leave_is_given_to_who_asks_for_it() {
        let ask = |config: &ProxyCors, fields: &[(&'static str, &'static str)]| {
            let cors = Cors::new(config).expect("set");
            cors.preflight(&Method::OPTIONS, &headers(fields), Some("POST"))
        };
        let method = ("access-control-request-method", "POST");
        let wanted = ("access-control-request-headers", "authorization,x-stainless-lang");
        let any = cors(&[PAGE.1]);
        let granted = ask(&any, &[PAGE, method, wanted]).expect("granted");
        assert_eq!(granted[ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(granted[ACCESS_CONTROL_ALLOW_HEADERS], wanted.1);
        assert_eq!(granted[ACCESS_CONTROL_MAX_AGE], "600");
        let granted = ask(&any, &[PAGE, method]).expect("granted");
        assert!(!granted.contains_key(ACCESS_CONTROL_ALLOW_HEADERS), "none was asked for");
        let listed = ProxyCors { allow_headers: vec!["authorization".into()], ..cors(&[PAGE.1]) };
        let granted = ask(&listed, &[PAGE, method, wanted]).expect("granted");
        assert_eq!(granted[ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
        assert!(ask(&any, &[PAGE]).is_none(), "no browser's question");
        assert!(ask(&any, &[("origin", "https://other.example"), method]).is_none());
        let cors = Cors::new(&any).expect("set");
        let asking = headers(&[PAGE, method]);
        assert!(cors.preflight(&Method::POST, &asking, Some("POST")).is_none());
        assert!(cors.preflight(&Method::OPTIONS, &asking, None).is_none());
    }
}
