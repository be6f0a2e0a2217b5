//! TLS by rustls with ring: certificates read from PEM files. Those of the operations port are read
//! again when told to, while connections go on.

mod probe;
mod server;

pub use probe::own_certificate;
pub use server::{PemFile, ServerFiles, TlsError};

use crate::config::TlsConfig;
use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What the operations server speaks inside TLS.
const HTTP_1: &[u8] = b"http/1.1";

const CERT: &str = "operations.tls.cert_file";
const KEY: &str = "operations.tls.key_file";
const CA: &str = "operations.tls.ca_file";

/// The certificate that this node shows on its operations port. Clones share it.
#[derive(Clone)]
pub struct ServerTls {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl ServerTls {
    /// Reads the certificate and key of `config`; `None` if it names none.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        // The configuration has neither or both.
        let (Some(cert_file), Some(key_file)) = (&config.cert_file, &config.key_file) else {
            return Ok(None);
        };
        let current = Arc::new(ArcSwap::from(server_config(cert_file, key_file)?));
        Ok(Some(Self { cert_file: cert_file.clone(), key_file: key_file.clone(), current }))
    }

    /// Reads both files again, for connections to come. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Those of [`ServerTls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(server_config(&self.cert_file, &self.key_file)?);
        Ok(())
    }

    /// What the next connection is accepted with.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.current.load_full().into()
    }
}

/// Whom this node trusts when it speaks to other operations servers. Clones share it.
#[derive(Clone, Default)]
pub struct ClientTls {
    ca_file: Option<PathBuf>,
    /// Made at first use: without a file it takes the system's trust store, which takes a while to
    /// read and which most nodes never need.
    current: Arc<OnceLock<ArcSwap<ClientConfig>>>,
}

impl ClientTls {
    /// Reads the certificates that `config` trusts; without any, those the system trusts.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let trust = Self { ca_file: config.ca_file.clone(), current: Arc::default() };
        if let Some(ca_file) = &trust.ca_file {
            // Nobody else has it yet, so this one is the first.
            let _ = trust.current.set(ArcSwap::from(trusting(roots(ca_file)?)));
        }
        Ok(trust)
    }

    /// Trusts one certificate alone, whatever name it carries: this node's own.
    pub(crate) fn only(certificate: CertificateDer<'static>) -> Self {
        let trust = Self::default();
        let _ = trust.current.set(ArcSwap::from(probe::trusting_only(certificate)));
        trust
    }

    /// Reads the file again, for connections to come. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Those of [`ClientTls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        if let (Some(ca_file), Some(current)) = (&self.ca_file, self.current.get()) {
            current.store(trusting(roots(ca_file)?));
        }
        Ok(())
    }

    /// What the next connection is made with.
    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        self.current.get_or_init(|| ArcSwap::from(trusting(system_roots()))).load_full().into()
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn server_config(cert_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let files = ServerFiles {
        certificate: PemFile { key: CERT, path: cert_file },
        private_key: PemFile { key: KEY, path: key_file },
        client_ca: None,
        protocols: &[HTTP_1],
    };
    files.read()
}

fn roots(ca_file: &Path) -> Result<RootCertStore, TlsError> {
    PemFile { key: CA, path: ca_file }.roots()
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system's trust store cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring speaks both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Arc::new(config)
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("cert_file", &self.cert_file).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
