//! A whole proxy: the traffic port, the operations port, and the registry between them.

use crate::{
    keys, limits,
    server::{TrafficError, TrafficServer},
    tls,
    transform::Transform,
};
use inferno_shared::{
    Config, MetricsCollector, OperationsServer,
    membership::NodeType,
    node::{Node, NodeError},
    operations_server::{OperationsError, Registrations},
    registration::{
        lease::{Announcer, Leases, introductions},
        registry::Registry,
    },
    shutdown, telemetry,
    vitals::ServiceState,
};
use std::{io, net::SocketAddr, sync::Arc};

/// The name of the service in vitals and logs.
pub const SERVICE: &str = "inferno-proxy";

/// Why a proxy did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The traffic port.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// The operations port.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// A secret, a certificate or a peer of the configuration.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system refused a runtime or a signal handler.
    #[error("cannot run: {0}")]
    System(#[from] io::Error),
}

/// A proxy that serves.
#[derive(Debug)]
pub struct RunningProxy {
    /// Where clients are served.
    pub traffic: SocketAddr,
    /// Where backends register and operators look.
    pub operations: SocketAddr,
    traffic_server: TrafficServer,
    operations_server: OperationsServer,
    leases: Leases,
    metrics: Arc<MetricsCollector>,
}

/// Opens both ports of `config` (port 0: any free one) and serves, on the current runtime and a
/// thread for operations. A proxy without backends is healthy: it answers 503 and waits for them.
///
/// # Errors
/// If a port cannot be had, a secret or certificate not be read, or registration would be open to
/// other machines.
pub async fn start(config: &Config) -> Result<RunningProxy, ProxyError> {
    let metrics = MetricsCollector::new();
    telemetry::register_metrics(metrics.registry()).map_err(TrafficError::Metrics)?;
    let node = Node::new(config)?;
    let peers = node.proxies(config, "proxy.peers", &config.proxy.peers)?;
    let operations =
        node.operations_server(config, Arc::clone(&metrics), SERVICE, env!("CARGO_PKG_VERSION"));
    let (introductions, introduced) = introductions();
    let connected = operations.connected_peers();
    let trust = node.client_tls.clone();
    let registry = Registry::new(config, &node.identity, trust, introductions, connected);
    let fleet = Arc::clone(&registry);
    let traffic_server = TrafficServer::start(&config.proxy, fleet, &metrics)?;
    tokio::spawn(traffic_server.reloaded_with(node.reloadable()).on_hangup()?);
    for warning in warnings(config) {
        tracing::warn!("{warning}");
    }
    let operations_server = operations
        .with_registrations(Registrations::Taken(Arc::clone(&registry)))
        .with_task(registry.run())
        .start()
        .await?;
    metrics.set_state(ServiceState::Ready);
    let (traffic, operations) = (traffic_server.address(), operations_server.bind_addr());
    // The members count as peers, the proxies among them; whom we told of ourselves does not.
    let leases = Leases::start(
        announcer(config, &node, traffic, operations),
        peers,
        introduced,
        Arc::default(),
    );
    tracing::info!(%traffic, %operations, "proxy ready");
    Ok(RunningProxy { traffic, operations, traffic_server, operations_server, leases, metrics })
}

/// What this proxy says of itself to other proxies.
fn announcer(
    config: &Config,
    node: &Node,
    traffic: SocketAddr,
    operations: SocketAddr,
) -> Announcer {
    Announcer {
        identity: Arc::clone(&node.identity),
        node_type: NodeType::Proxy,
        traffic,
        operations,
        advertise: config.proxy.advertise.clone(),
        capabilities: node.capabilities(),
        models: Box::new(Vec::new),
        fingerprint: Box::new(|| None),
        max_concurrency: None,
        token: None,
        secrets: node.secrets.clone(),
    }
}

/// What a proxy would refuse of `config` at its start: certificates, their keys and API keys that
/// cannot be used, and changes of requests and answers that make no sense.
pub fn check(config: &Config) -> Vec<TrafficError> {
    let tls = tls::check(&config.proxy.tls).err().map(TrafficError::from);
    let keys = config.proxy.keys_file.as_deref().map(keys::examine);
    let keys = keys.and_then(Result::err).map(TrafficError::from);
    let transform = Transform::new(&config.proxy).err().map(TrafficError::from);
    tls.into_iter().chain(keys).chain(transform).collect()
}

/// What is odd about who may use the traffic port that `config` describes, in plain words. It is said
/// at the start, which it does not keep from happening.
pub fn warnings(config: &Config) -> Vec<String> {
    let listen = config.proxy.listen;
    match config.proxy.keys_file.as_deref().map(keys::examine) {
        Some(Ok((_, warnings))) => warnings,
        // A start is refused.
        Some(Err(_)) => Vec::new(),
        None if listen.ip().is_loopback() => Vec::new(),
        None => vec![format!(
            "proxy.listen is {listen} and proxy.keys_file is not set: whoever reaches that port may use \
             every model; `inferno key create NAME --file FILE` makes a first key"
        )],
    }
}

impl RunningProxy {
    /// Says so in `/health` and to other proxies, stops accepting, lets what runs finish within
    /// `proxy.drain_timeout_ms`, and ends.
    pub async fn drain(self) {
        self.metrics.set_state(ServiceState::Draining);
        self.leases.drain();
        let cut = self.traffic_server.drain().await;
        if cut > 0 {
            tracing::warn!(cut, "drain timeout: answers were cut");
        }
        self.leases.leave().await;
        self.operations_server.shutdown();
        tracing::info!("proxy drained");
    }
}

/// What both `inferno-proxy` and `inferno proxy` do: serves until SIGTERM or SIGINT, drains, and
/// returns. A second signal ends the drain at once.
///
/// # Errors
/// Those of [`start`], and if the system refuses a runtime or a signal handler.
pub fn run_blocking(config: &Config) -> Result<(), ProxyError> {
    limits::make_room_for_files(&config.proxy.limits);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let asked_to_stop = shutdown::requested();
        let proxy = start(config).await?;
        asked_to_stop.await?;
        tracing::info!("draining");
        let asked_again = shutdown::requested();
        tokio::select! {
            () = proxy.drain() => Ok(()),
            again = asked_again => Ok(again?),
        }
    });
    // Idle connections hold tasks that wait for their clients; nothing waits for them.
    runtime.shutdown_background();
    outcome
}
