//! What proxy and backend have in common before either serves: who they are, their secrets, their
//! certificates, and the operations server made of these.

use crate::{
    Config, MetricsCollector, OperationsServer,
    endpoint::{Location, LocationError},
    identity::NodeIdentity,
    registration::{
        lease::Proxies,
        secrets::{SecretError, Secrets},
        wire::CAPABILITY_TLS,
    },
    reload::Reloadable,
    tls::{ClientTls, ServerTls, TlsError},
};
use std::sync::Arc;

/// This process among the others.
#[derive(Clone, Debug)]
pub struct Node {
    /// Who it is.
    pub identity: Arc<NodeIdentity>,
    /// What registrations need.
    pub secrets: Secrets,
    /// What its operations server shows; none: plain HTTP.
    pub server_tls: Option<ServerTls>,
    /// Whom it trusts at other operations servers.
    pub client_tls: ClientTls,
}

/// A file that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A registration secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address of another node.
    #[error("{key}: {source}")]
    Location {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        source: LocationError,
    },
}

impl Node {
    /// A new incarnation of the node that `config` describes.
    ///
    /// # Errors
    /// If a secret or certificate cannot be read.
    pub fn new(config: &Config) -> Result<Self, NodeError> {
        Ok(Self {
            identity: Arc::new(NodeIdentity::new(config)),
            secrets: Secrets::load(&config.registration.secret_sources())?,
            server_tls: ServerTls::load(&config.operations.tls)?,
            client_tls: ClientTls::load(&config.operations.tls)?,
        })
    }

    /// The operations server of this node, not yet started, which takes no registrations.
    pub fn operations_server(
        &self,
        config: &Config,
        metrics: Arc<MetricsCollector>,
        service: &str,
        version: &str,
    ) -> OperationsServer {
        let open = config.registration.allow_unauthenticated;
        OperationsServer::new(metrics, config.operations.addr)
            .with_service(service, version)
            .with_identity(Arc::clone(&self.identity))
            .with_secrets(self.secrets.clone(), open)
            .with_tls(self.server_tls.clone())
            .with_metrics_enabled(config.operations.enable_metrics)
    }

    /// Whom to register with: those that the configuration key `key` lists.
    ///
    /// # Errors
    /// If one of them is no address.
    pub fn proxies(
        &self,
        config: &Config,
        key: &'static str,
        listed: &[String],
    ) -> Result<Proxies, NodeError> {
        let configured: Result<Vec<Location>, _> = listed.iter().map(|text| text.parse()).collect();
        Ok(Proxies {
            configured: configured.map_err(|source| NodeError::Location { key, source })?,
            allowed_networks: config.registration.allowed_networks.clone(),
            loopback_only: config.registration.is_loopback_only(),
            tls: self.client_tls.clone(),
            default_tls: self.server_tls.is_some(),
        })
    }

    /// What it tells others it can do.
    pub fn capabilities(&self) -> Vec<String> {
        self.server_tls.iter().map(|_| CAPABILITY_TLS.to_owned()).collect()
    }

    /// What SIGHUP makes it read again.
    pub fn reloadable(&self) -> Reloadable {
        let Self { secrets, server_tls, client_tls, .. } = self.clone();
        let parts = Reloadable::default().with("registration secrets", move || secrets.reload());
        let parts = match server_tls {
            Some(tls) => parts.with("operations certificate", move || tls.reload()),
            None => parts,
        };
        parts.with("trusted certificates", move || client_tls.reload())
    }
}
