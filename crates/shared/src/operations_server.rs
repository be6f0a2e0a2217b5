//! The operations server: the same component in proxy and backend, on a thread of its own.
//!
//! It reads atomics and snapshots and never takes a lock that the data path or the engine holds,
//! so that `/health` answers while every core computes. Traffic never passes here.

mod counted;
mod negotiate;
mod routes;
mod serve;

pub use counted::METRICS;

use crate::{
    MetricsCollector,
    identity::NodeIdentity,
    membership::Goodbye,
    registration::{
        elsewhere::Elsewhere,
        registry::Registry,
        secrets::Secrets,
        wire::{Peers, Refusal, Registered, Registration},
    },
    tls::ServerTls,
};
use serve::Limits;
use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, atomic::AtomicU32},
};
use tokio::sync::oneshot;

/// The old name, kept for those who used it.
pub type MetricsServer = OperationsServer;

/// A task that lives on the operations thread.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who answers registrations in this process.
#[derive(Clone, Debug)]
pub enum Registrations {
    /// A proxy: they are leases with this registry.
    Taken(Arc<Registry>),
    /// A backend: proxies may introduce themselves; others get 409, with the proxies to use.
    Elsewhere(Elsewhere),
}

/// Why the operations server did not start.
#[derive(Debug, thiserror::Error)]
pub enum OperationsError {
    /// The port could not be had.
    #[error(transparent)]
    Bind(#[from] crate::listener::BindError),
    /// The thread or its runtime could not be made.
    #[error("operations server: {0}")]
    Start(#[from] io::Error),
    /// Another operations server counts in the same collector.
    #[error("operations server: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Reachable from other machines, and anyone could register.
    #[error(
        "operations.addr {0} is reachable from other machines and registration has no secret; set \
         registration.secret_file, or registration.allow_unauthenticated = true if every machine \
         that reaches the port may receive your traffic"
    )]
    Open(SocketAddr),
}

/// `/metrics`, `/telemetry`, `/health`, `/health/live`, `/registration` and `/peers` of one process.
pub struct OperationsServer {
    metrics: Arc<MetricsCollector>,
    bind_addr: SocketAddr,
    service_name: String,
    version: String,
    connected_peers: Arc<AtomicU32>,
    shutdown_tx: Option<oneshot::Sender<()>>,
    listener: Option<TcpListener>,
    registrations: Registrations,
    secrets: Secrets,
    allow_unauthenticated: bool,
    enable_metrics: bool,
    identity: Option<Arc<NodeIdentity>>,
    tls: Option<ServerTls>,
    tasks: Vec<Task>,
    limits: Limits,
}

impl fmt::Debug for OperationsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationsServer")
            .field("service_name", &self.service_name)
            .field("bind_addr", &self.bind_addr)
            .field("started", &self.shutdown_tx.is_some())
            .finish_non_exhaustive()
    }
}

impl OperationsServer {
    /// A server for `metrics` at `bind_addr`, not yet started. It takes no registrations.
    pub fn new(metrics: Arc<MetricsCollector>, bind_addr: SocketAddr) -> Self {
        Self {
            metrics,
            bind_addr,
            service_name: "inferno".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            connected_peers: Arc::default(),
            shutdown_tx: None,
            listener: None,
            registrations: Registrations::Elsewhere(Elsewhere::default()),
            secrets: Secrets::default(),
            allow_unauthenticated: false,
            enable_metrics: true,
            identity: None,
            tls: None,
            tasks: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Names the service and its version, as the vitals show them.
    #[must_use]
    pub fn with_service(mut self, name: &str, version: &str) -> Self {
        self.service_name = name.into();
        self.version = version.into();
        self
    }

    /// Signs the vitals, so that a proxy can tell this process from another at its address.
    #[must_use]
    pub fn with_identity(mut self, identity: Arc<NodeIdentity>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Uses a listener bound earlier instead of binding `bind_addr`.
    #[must_use]
    pub fn with_listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Says who answers registrations.
    #[must_use]
    pub fn with_registrations(mut self, registrations: Registrations) -> Self {
        self.registrations = registrations;
        self
    }

    /// The secrets that registrations and `/peers` need.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets, allow_unauthenticated: bool) -> Self {
        self.secrets = secrets;
        self.allow_unauthenticated = allow_unauthenticated;
        self
    }

    /// False: `/metrics` and `/telemetry` are 404.
    #[must_use]
    pub fn with_metrics_enabled(mut self, enabled: bool) -> Self {
        self.enable_metrics = enabled;
        self
    }

    /// Speaks TLS, and nothing else, if there is a certificate.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<ServerTls>) -> Self {
        self.tls = tls;
        self
    }

    /// Runs `task` on the operations thread, where no traffic can delay it.
    #[must_use]
    pub fn with_task(mut self, task: impl Future<Output = ()> + Send + 'static) -> Self {
        self.tasks.push(Box::pin(task));
        self
    }

    /// How many nodes this one is in touch with; whoever knows sets it.
    pub fn connected_peers(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.connected_peers)
    }

    /// Where it listens; after [`OperationsServer::start`], with the true port.
    pub fn bind_addr(&self) -> SocketAddr {
        self.bind_addr
    }

    /// Binds and serves on a thread of its own until [`OperationsServer::shutdown`]. Does not block.
    ///
    /// # Errors
    /// If the port cannot be had, or if registration would be open to other machines.
    pub async fn start(mut self) -> Result<Self, OperationsError> {
        let takes_registrations = matches!(self.registrations, Registrations::Taken(_));
        let unprotected = self.secrets.is_empty() && !self.allow_unauthenticated;
        if takes_registrations && unprotected && !self.bind_addr.ip().is_loopback() {
            return Err(OperationsError::Open(self.bind_addr));
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => crate::listener::bind(self.bind_addr, "operations.addr")?,
        };
        self.bind_addr = listener.local_addr()?;
        let (shutdown_tx, shutdown_rx) = oneshot::channel();
        self.shutdown_tx = Some(shutdown_tx);
        let context = Arc::new(self.context()?);
        let tls = self.tls.clone();
        let tasks = std::mem::take(&mut self.tasks);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("operations".into()).spawn(move || {
            runtime.block_on(async move {
                for task in tasks {
                    tokio::spawn(task);
                }
                if let Err(error) = serve::serve(listener, tls, context, shutdown_rx).await {
                    tracing::error!(%error, "operations server ended");
                }
            });
        })?;
        Ok(self)
    }

    /// Stops serving. A server that is merely dropped goes on until the process ends.
    pub fn shutdown(mut self) {
        if let Some(shutdown) = self.shutdown_tx.take() {
            // It fails only if the thread has ended, which is what is wanted.
            let _ = shutdown.send(());
        }
    }

    fn context(&self) -> Result<Context, OperationsError> {
        Ok(Context {
            own: counted::OperationsMetrics::register(self.metrics.registry())?,
            limits: self.limits,
            metrics: Arc::clone(&self.metrics),
            service_name: self.service_name.clone(),
            version: self.version.clone(),
            connected_peers: Arc::clone(&self.connected_peers),
            registrations: self.registrations.clone(),
            secrets: self.secrets.clone(),
            allow_unauthenticated: self.allow_unauthenticated,
            enable_metrics: self.enable_metrics,
            identity: self.identity.clone(),
        })
    }
}

/// What the routes answer from.
#[derive(Debug)]
struct Context {
    own: counted::OperationsMetrics,
    limits: Limits,
    metrics: Arc<MetricsCollector>,
    service_name: String,
    version: String,
    connected_peers: Arc<AtomicU32>,
    registrations: Registrations,
    secrets: Secrets,
    allow_unauthenticated: bool,
    enable_metrics: bool,
    identity: Option<Arc<NodeIdentity>>,
}

impl Context {
    async fn register(&self, registration: Registration) -> Result<Registered, Refusal> {
        match &self.registrations {
            Registrations::Taken(registry) => registry.register(registration).await,
            Registrations::Elsewhere(elsewhere) => elsewhere.register(registration).await,
        }
    }

    fn leave(&self, id: &str, goodbye: &Goodbye) -> Result<(), Refusal> {
        match &self.registrations {
            Registrations::Taken(registry) => registry.leave(id, goodbye),
            Registrations::Elsewhere(elsewhere) => Err(elsewhere.refusal()),
        }
    }

    fn peers(&self) -> Peers {
        match &self.registrations {
            Registrations::Taken(registry) => registry.peers(),
            Registrations::Elsewhere(elsewhere) => elsewhere.peers(),
        }
    }
}

#[cfg(test)]
mod tests;
