//! TLS on the traffic port: HTTP/2 and HTTP/1.1 by ALPN, on connections that Pingora accepted.

use arc_swap::ArcSwap;
use inferno_shared::{
    config::ProxyTls,
    tls::{PemFile, ServerFiles, TlsError},
};
use pingora_core::{
    listeners::tls::Acceptor,
    protocols::{ALPN, Stream, l4::stream::Stream as TcpStream},
};
use std::sync::Arc;

/// Whether the files that `config` names can be used.
///
/// # Errors
/// If they cannot.
pub fn check(config: &ProxyTls) -> Result<(), TlsError> {
    Tls::load(config).map(drop)
}

/// Turns client connections into TLS ones. Clones share the certificate, and see it change.
#[derive(Clone)]
pub(crate) struct Tls {
    files: ProxyTls,
    current: Arc<ArcSwap<Acceptor>>,
}

impl Tls {
    /// Reads the files of `config`; none if it names no certificate.
    pub(crate) fn load(config: &ProxyTls) -> Result<Option<Self>, TlsError> {
        let Some(acceptor) = read(config)? else { return Ok(None) };
        let current = Arc::new(ArcSwap::from_pointee(acceptor));
        Ok(Some(Self { files: config.clone(), current }))
    }

    /// Reads them again, for connections to come. What cannot be used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        if let Some(acceptor) = read(&self.files)? {
            self.current.store(Arc::new(acceptor));
        }
        Ok(())
    }

    /// The connection with TLS on it, and whether the client chose HTTP/2. None: no handshake came
    /// about; the client was told why by an alert.
    pub(crate) async fn accept(&self, stream: Stream) -> Option<(Stream, bool)> {
        // What Pingora accepts is a TCP stream, and only that type may carry its TLS.
        let tcp = stream.into_any().downcast::<TcpStream>().ok()?;
        match self.current.load_full().tls_handshake(*tcp).await {
            Ok(tls) => {
                let stream: Stream = Box::new(tls);
                let http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
                Some((stream, http2))
            }
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
        }
    }
}

/// What connections are accepted with, from the files of `config`.
fn read(config: &ProxyTls) -> Result<Option<Acceptor>, TlsError> {
    // The configuration has neither or both.
    let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) else {
        return Ok(None);
    };
    let client_ca = config.client_ca_file.as_deref();
    let files = ServerFiles {
        certificate: PemFile { key: "proxy.tls.cert_file", path: cert },
        private_key: PemFile { key: "proxy.tls.key_file", path: key },
        client_ca: client_ca.map(|path| PemFile { key: "proxy.tls.client_ca_file", path }),
        protocols: &[b"h2", b"http/1.1"],
    };
    Ok(Some(Acceptor::from_server_config(files.read()?)))
}
