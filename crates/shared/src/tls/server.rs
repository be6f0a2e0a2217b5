//! A server's side of TLS, for the operations port and for the proxy's traffic port: from PEM files to
//! what rustls wants, with errors that name key and file.

use super::provider;
use rustls::{
    RootCertStore, ServerConfig,
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

/// A certificate or key that cannot be used. Each text names the key and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM of the kind.
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
    #[error("{key}: {}: {source}", path.display())]
    Verifier {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// A PEM file and the configuration key that names it.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// The configuration key.
    pub key: &'static str,
    /// The file.
    pub path: &'a Path,
}

/// What a server shows, asks for and speaks.
#[derive(Clone, Copy, Debug)]
pub struct ServerFiles<'a> {
    /// Its certificate and the chain behind it.
    pub certificate: PemFile<'a>,
    /// The private key of that.
    pub private_key: PemFile<'a>,
    /// Who must have signed a client's certificate; none: clients need none.
    pub client_ca: Option<PemFile<'a>>,
    /// The protocols inside TLS, the preferred first (ALPN, RFC 7301).
    pub protocols: &'a [&'a [u8]],
}

impl ServerFiles<'_> {
    /// Reads the files: TLS 1.2 and 1.3, by ring.
    ///
    /// # Errors
    /// If one of them cannot be used.
    pub fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let PemFile { key, path } = self.private_key;
        let chain = self.certificate.certificates()?;
        let private_key = PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
            key,
            path: path.into(),
            source,
        })?;
        let refused = |source| TlsError::Refused { key, path: path.into(), source };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(refused)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(file.client_verifier()?),
        };
        let mut config = builder.with_single_cert(chain, private_key).map_err(refused)?;
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl PemFile<'_> {
    /// The certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let Self { key, path } = *self;
        let found: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|source| TlsError::Pem { key, path: path.into(), source })?;
        if found.is_empty() {
            return Err(TlsError::Empty { key, path: path.into() });
        }
        Ok(found)
    }

    /// Those certificates as whom to trust.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let Self { key, path } = *self;
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|source| TlsError::Refused {
                key,
                path: path.into(),
                source,
            })?;
        }
        Ok(roots)
    }

    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Self { key, path } = *self;
        WebPkiClientVerifier::builder_with_provider(self.roots()?.into(), provider())
            .build()
            .map_err(|source| TlsError::Verifier { key, path: path.into(), source })
    }
}
