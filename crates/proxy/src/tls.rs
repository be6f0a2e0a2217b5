//! TLS on the traffic port, by rustls with ring: certificates from PEM files, HTTP/2 and HTTP/1.1
//! by ALPN.

use inferno_shared::config::ProxyTls;
use pingora_core::{
    listeners::tls::Acceptor,
    protocols::{ALPN, Stream, l4::stream::Stream as TcpStream},
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const CERT: &str = "proxy.tls.cert_file";
const KEY: &str = "proxy.tls.key_file";
const CLIENT_CA: &str = "proxy.tls.client_ca_file";

/// A certificate or key that cannot be used. Each text names the key and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("{key}: {}: {source}", path.display())]
    Pem {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{key}: {} holds no certificate in PEM", path.display())]
    Empty {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// rustls refuses what was read: a key that does not match, a certificate it cannot parse.
    #[error("{key}: {}: {source}", path.display())]
    Refused {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Nobody's certificate could be verified with these.
    #[error("{CLIENT_CA}: {}: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// Whether the files that `config` names can be used.
///
/// # Errors
/// If they cannot.
pub fn check(config: &ProxyTls) -> Result<(), TlsError> {
    Tls::load(config).map(drop)
}

/// Turns client connections into TLS ones.
pub(crate) struct Tls(Acceptor);

impl Tls {
    /// Reads the files of `config`; none if it names no certificate.
    pub(crate) fn load(config: &ProxyTls) -> Result<Option<Self>, TlsError> {
        // The configuration has neither or both.
        let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) else {
            return Ok(None);
        };
        let server = server_config(cert, key, config.client_ca_file.as_deref())?;
        Ok(Some(Self(Acceptor::from_server_config(Arc::new(server)))))
    }

    /// The connection with TLS on it, and whether the client chose HTTP/2. None: no handshake came
    /// about; the client was told why by an alert.
    pub(crate) async fn accept(&self, stream: Stream) -> Option<(Stream, bool)> {
        // What Pingora accepts is a TCP stream, and only that type may carry its TLS.
        let tcp = stream.into_any().downcast::<TcpStream>().ok()?;
        match self.0.tls_handshake(*tcp).await {
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

fn server_config(
    cert_file: &Path,
    key_file: &Path,
    client_ca_file: Option<&Path>,
) -> Result<ServerConfig, TlsError> {
    let chain = certificates(CERT, cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::Pem {
        key: KEY,
        path: key_file.into(),
        source,
    })?;
    let refused = |source| TlsError::Refused { key: KEY, path: key_file.into(), source };
    let builder = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(refused)?;
    let builder = match client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(client_verifier(file)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn client_verifier(ca_file: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, ca_file)? {
        roots.add(certificate).map_err(|source| TlsError::Refused {
            key: CLIENT_CA,
            path: ca_file.into(),
            source,
        })?;
    }
    let provider = ring::default_provider().into();
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|source| TlsError::ClientCa { path: ca_file.into(), source })
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Pem { key, path: path.into(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { key, path: path.into() });
    }
    Ok(found)
}
