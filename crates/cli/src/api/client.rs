//! Requests to the API.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::wire::{Models, message};
use super::{ApiError, Chunk, Events};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that nobody used for so long is closed: most servers would do so soon.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is not a stream.
const ANSWER_BYTES_MAX: usize = 32 << 20;

const CHAT_COMPLETIONS: &str = "/v1/chat/completions";

/// The API behind one base address.
pub(crate) struct ApiClient {
    base: String,
    key: Option<Key>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An API key, and the header that carries it.
struct Key {
    secret: String,
    header: HeaderValue,
}

impl Key {
    fn new(secret: &str) -> Result<Self, ApiError> {
        let header = HeaderValue::from_str(&format!("Bearer {secret}"));
        let mut header = header.map_err(|_| ApiError::BadKey)?;
        header.set_sensitive(true);
        Ok(Self { secret: secret.to_owned(), header })
    }
}

impl ApiClient {
    /// A client of the API at `http://host:port` or `https://host`, with or without `/v1`. The key is
    /// sent as a bearer token.
    pub(crate) fn new(url: &str, key: Option<&str>) -> Result<Self, ApiError> {
        Self::trusting(system_roots, url, key)
    }

    /// The same, with `roots` to vouch for an HTTPS server.
    fn trusting(
        roots: impl FnOnce() -> Result<RootCertStore, ApiError>,
        url: &str,
        key: Option<&str>,
    ) -> Result<Self, ApiError> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let address: Option<Uri> = base.parse().ok();
        let scheme = address.as_ref().filter(|uri| uri.host().is_some()).and_then(Uri::scheme_str);
        let roots = match scheme {
            // Nobody needs to vouch, and reading the certificates takes a while.
            Some("http") => RootCertStore::empty(),
            Some("https") => roots()?,
            _ => return Err(ApiError::BadUrl { url: url.to_owned() }),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(roots)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { base, key: key.map(Key::new).transpose()?, client })
    }

    /// The ids of the models that can be asked now.
    pub(crate) async fn models(&self) -> Result<Vec<String>, ApiError> {
        let answer = self.send(Method::GET, "/v1/models", Bytes::new()).await?;
        let body = read(answer.into_body()).await?;
        let models: Models = serde_json::from_slice(&body)
            .map_err(|error| ApiError::Malformed { reason: error.to_string() })?;
        Ok(models.data.into_iter().map(|model| model.id).collect())
    }

    /// Asks for a streamed chat completion.
    pub(crate) async fn chat(&self, request: &serde_json::Value) -> Result<Events, ApiError> {
        self.stream(CHAT_COMPLETIONS, request.to_string().into()).await
    }

    /// Posts a request for a streamed answer.
    pub(crate) async fn stream(&self, path: &str, body: Bytes) -> Result<Events, ApiError> {
        let answer = self.send(Method::POST, path, body).await?;
        Ok(Events::of(answer.into_body()))
    }

    /// Posts a request for an answer in one piece.
    pub(crate) async fn whole(&self, path: &str, body: Bytes) -> Result<Chunk, ApiError> {
        let answer = self.send(Method::POST, path, body).await?;
        Chunk::parse(&read(answer.into_body()).await?)
    }

    /// Posts a request for an answer in one piece, as it is.
    pub(crate) async fn object(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<serde_json::Value, ApiError> {
        let answer = self.send(Method::POST, path, body).await?;
        serde_json::from_slice(&read(answer.into_body()).await?)
            .map_err(|error| ApiError::Malformed { reason: error.to_string() })
    }

    /// Sends a request; an answer other than 200 is an error with the server's own words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("inferno/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, &key.header);
        }
        let request =
            request.body(Full::new(body)).map_err(|_| ApiError::BadUrl { url: url.clone() })?;
        let answer = self.client.request(request).await.map_err(|error| self.failure(&error))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let body = read(answer.into_body()).await.unwrap_or_default();
        let mut message = self.without_key(message(status, &body));
        if status == StatusCode::UNAUTHORIZED && self.key.is_none() {
            message += " (--api-key-file FILE or OPENAI_API_KEY gives one)";
        }
        Err(ApiError::Refused { status, message })
    }

    /// Some servers repeat a key that they refuse.
    fn without_key(&self, message: String) -> String {
        match &self.key {
            Some(key) => message.replace(&key.secret, "[key]"),
            None => message,
        }
    }

    fn failure(&self, error: &legacy::Error) -> ApiError {
        let cause = root_cause(error);
        let (url, reason) = (self.base.clone(), cause.to_string());
        let is_refused = cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        match error.is_connect() {
            true if is_refused => ApiError::Absent { url, reason },
            true => ApiError::Unreachable { url, reason },
            false => ApiError::Broken { reason },
        }
    }
}

/// The innermost reason: what the operating system or the TLS handshake said.
fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}

/// What the operating system trusts, or `SSL_CERT_FILE`.
fn system_roots() -> Result<RootCertStore, ApiError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(|error| format!(": {error}")).collect();
        return Err(ApiError::NoCertificates { reason: reasons.concat() });
    }
    Ok(roots)
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, ApiError> {
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| ApiError::NoCertificates { reason: format!(": {error}") })?;
    Ok(config.with_root_certificates(Arc::new(roots)).with_no_client_auth())
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::TooLarge { what: "an answer", limit_bytes: ANSWER_BYTES_MAX }
        } else {
            ApiError::Broken { reason: root_cause(&*error).to_string() }
        }
    })?;
    Ok(body.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Trust,
        testing::{Answer, Seen, Server},
    };

    #[test]
    fn http_and_https_addresses_are_taken_with_or_without_the_version() {
        for url in ["http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080", "http://127.0.0.1:8080/"]
        {
            assert!(
                ApiClient::new(url, None).is_ok_and(|c| c.base == "http://127.0.0.1:8080"),
                "{url}"
            );
        }
        for url in ["127.0.0.1:8080", "ftp://host", "", "/v1"] {
            assert!(matches!(ApiClient::new(url, None), Err(ApiError::BadUrl { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn https_works_where_somebody_vouches_for_the_server_and_only_there() {
        let list = r#"{"data":[{"id":"far"}]}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", list.len());
        let answer = move |_: usize, _: &Seen| Answer { head: head.clone(), body: list.into() };
        let server = Server::start(answer);
        let Trust::Only(certificates) = &server.trust else { panic!("its own certificate") };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().map(|der| der.clone().into()));
        let client = ApiClient::trusting(|| Ok(roots), &server.url, None).expect("an address");
        assert_eq!(client.models().await.expect("an answer"), ["far"]);
        let stranger = ApiClient::trusting(|| Ok(RootCertStore::empty()), &server.url, None);
        let error = stranger.expect("an address").models().await.expect_err("untrusted");
        assert!(matches!(&error, ApiError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[test]
    fn a_key_is_marked_as_a_secret() {
        let key = Key::new("sk-secret").expect("visible ASCII");
        assert_eq!(key.header, "Bearer sk-secret");
        assert!(key.header.is_sensitive(), "it would show in debug output");
        assert!(matches!(Key::new("two\nlines"), Err(ApiError::BadKey)));
    }
}
