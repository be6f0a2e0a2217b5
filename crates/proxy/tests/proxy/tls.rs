//! TLS on the traffic port, with rustls and hyper as the client.

use super::support::{Backend, END, EVENTS, Proxy, ok, within};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use inferno_proxy::tls;
use inferno_shared::{
    config::{ProxyConfig, ProxyTls},
    reload::Reloadable,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    },
};

/// A certificate authority, and the certificates of a proxy called `proxy` and of a client.
struct Certificates {
    folder: tempfile::TempDir,
    ca: CertificateDer<'static>,
    client: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (renewed, renewed_key) = signed("proxy");
        write("renewed-cert.pem", renewed.pem());
        write("renewed-key.pem", renewed_key.serialize_pem());
        let (server, server_key) = signed("proxy");
        write("ca.pem", ca.pem());
        write("cert.pem", server.pem());
        write("key.pem", server_key.serialize_pem());
        write("other.pem", KeyPair::generate().unwrap().serialize_pem());
        write("empty.pem", String::new());
        let (client, client_key) = signed("client");
        let client_key = PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();
        let ca = ca.der().clone();
        Self { folder, ca, client: (client.der().clone(), client_key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, client_ca: Option<&str>) -> ProxyTls {
        ProxyTls {
            cert_file: Some(self.path("cert.pem")),
            key_file: Some(self.path("key.pem")),
            client_ca_file: client_ca.map(|name| self.path(name)),
        }
    }

    /// A client that trusts the authority and shows its certificate if `known`.
    fn client(&self, alpn: &[&str], known: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let (certificate, key) = &self.client;
        let mut config = if known {
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

async fn proxy(tls: ProxyTls) -> (Proxy, Backend) {
    let proxy = Proxy::start(ProxyConfig { tls, ..ProxyConfig::default() });
    let backend = Backend::start("b").await;
    proxy.members.set(vec![Arc::clone(&backend.node)]);
    (proxy, backend)
}

async fn connect(proxy: &Proxy, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy.server.address()).await?;
    let name = ServerName::try_from("proxy").unwrap();
    within("a handshake", TlsConnector::from(Arc::new(client)).connect(name, stream)).await
}

fn chat(more: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"model":"m"{more}}}"#);
    Request::post("https://proxy/v1/chat/completions")
        .header("host", "proxy")
        .body(Full::new(body.into()))
        .unwrap()
}

async fn http1(
    stream: TlsStream<TcpStream>,
) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let (client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn text(response: Response<Incoming>) -> String {
    let body = within("the body", response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn http1_goes_over_tls_whole_and_streamed_on_one_connection() {
    let certificates = Certificates::new();
    let (proxy, backend) = proxy(certificates.config(None)).await;
    let stream = connect(&proxy, certificates.client(&["http/1.1"], false)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut client = http1(stream).await;
    let answered = tokio::spawn(client.send_request(chat("")));
    let (mut upstream, request) = backend.receive().await;
    assert_eq!(request.json()["model"], "m");
    upstream.say(ok(r#"{"whole":1}"#)).await;
    assert_eq!(text(answered.await.unwrap().unwrap()).await, r#"{"whole":1}"#);
    client.ready().await.unwrap();
    let answered = tokio::spawn(client.send_request(chat(r#","stream":true"#)));
    upstream.message().await;
    upstream.say(EVENTS).await;
    upstream.say_chunk("data: 1\n\n").await;
    let mut body = within("the head", answered).await.unwrap().unwrap().into_body();
    let first = within("an event", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n", "at once, not at the end");
    upstream.say_chunk("data: [DONE]\n\n").await;
    upstream.say(END).await;
    let rest = within("the rest", body.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "data: [DONE]\n\n");
}

#[tokio::test]
async fn http2_is_preferred_where_the_client_offers_both() {
    let certificates = Certificates::new();
    let (proxy, backend) = proxy(certificates.config(None)).await;
    let stream = connect(&proxy, certificates.client(&["http/1.1", "h2"], false)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let answered = tokio::spawn(client.send_request(chat("")));
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok(r#"{"two":2}"#)).await;
    assert_eq!(text(answered.await.unwrap().unwrap()).await, r#"{"two":2}"#);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_through_tls() {
    let certificates = Certificates::new();
    let (proxy, backend) = proxy(certificates.config(None)).await;
    let stream = connect(&proxy, certificates.client(&["http/1.1"], false)).await.unwrap();
    let mut client = http1(stream).await;
    let answered = tokio::spawn(async move { client.send_request(chat("")).await });
    let (mut upstream, _) = backend.receive().await;
    answered.abort();
    assert_eq!(upstream.rest().await, b"", "its request is cancelled");
    proxy.settled().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let certificates = Certificates::new();
    let (proxy, backend) = proxy(certificates.config(Some("ca.pem"))).await;
    // In TLS 1.3 the client is through before the server says no: the first use shows it.
    let refused = match connect(&proxy, certificates.client(&["http/1.1"], false)).await {
        Ok(stream) => {
            let mut client = http1(stream).await;
            within("the end of the connection", client.send_request(chat(""))).await.is_err()
        }
        Err(_) => true,
    };
    assert!(refused);
    let stream = connect(&proxy, certificates.client(&["http/1.1"], true)).await.unwrap();
    let mut client = http1(stream).await;
    let answered = tokio::spawn(async move { client.send_request(chat("")).await });
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(text(answered.await.unwrap().unwrap()).await, "{}");
}

/// The certificate that a new connection is shown.
async fn shown(proxy: &Proxy, client: ClientConfig) -> CertificateDer<'static> {
    let stream = connect(proxy, client).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_once_it_was_read_again() {
    let certificates = Certificates::new();
    let (proxy, backend) = proxy(certificates.config(None)).await;
    let parts = proxy.server.reloaded_with(Reloadable::default());
    let client = || certificates.client(&["http/1.1"], false);
    let old = shown(&proxy, client()).await;
    let mut open = http1(connect(&proxy, client()).await.unwrap()).await;
    let copy = |from: &str, to: &str| {
        std::fs::copy(certificates.path(from), certificates.path(to)).unwrap();
    };
    copy("renewed-cert.pem", "cert.pem");
    assert_eq!(shown(&proxy, client()).await, old, "not before it is asked for");
    parts.reload();
    assert_eq!(shown(&proxy, client()).await, old, "its key is missing: nothing changes");
    copy("renewed-key.pem", "key.pem");
    parts.reload();
    assert_ne!(shown(&proxy, client()).await, old);
    let answered = tokio::spawn(async move { open.send_request(chat("")).await });
    let (mut upstream, _) = backend.receive().await;
    upstream.say(ok("{}")).await;
    assert_eq!(text(answered.await.unwrap().unwrap()).await, "{}", "the old connection goes on");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_not_answered() {
    let certificates = Certificates::new();
    let (proxy, _backend) = proxy(certificates.config(None)).await;
    let mut client = proxy.send(super::support::chat("").as_bytes()).await;
    let rest = client.rest().await;
    assert!(!rest.starts_with(b"HTTP"), "an alert at most: {rest:?}");
    proxy.settled().await;
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_key() {
    let certificates = Certificates::new();
    let good = certificates.config(None);
    assert!(tls::check(&good).is_ok() && tls::check(&ProxyTls::default()).is_ok());
    let refused = |config: ProxyTls| tls::check(&config).unwrap_err().to_string();
    let with_cert =
        |name: &str| refused(ProxyTls { cert_file: Some(certificates.path(name)), ..good.clone() });
    let with_key =
        |name: &str| refused(ProxyTls { key_file: Some(certificates.path(name)), ..good.clone() });
    let with_ca = |name: &str| refused(certificates.config(Some(name)));
    for (error, key, file) in [
        (with_cert("missing.pem"), "proxy.tls.cert_file: ", "missing.pem"),
        (with_cert("key.pem"), "proxy.tls.cert_file: ", "key.pem holds no certificate"),
        (with_key("cert.pem"), "proxy.tls.key_file: ", "cert.pem"),
        (with_key("other.pem"), "proxy.tls.key_file: ", "other.pem"),
        (with_ca("empty.pem"), "proxy.tls.client_ca_file: ", "empty.pem holds no certificate"),
    ] {
        assert!(error.starts_with(key) && error.contains(file), "{error}");
    }
}
