//! A backend: one model behind an OpenAI-compatible API, that registers itself with its proxies.
//!
//! [`start`] turns a configuration into a [`RunningBackend`] that drains; [`run_blocking`] is the
//! whole life of the process, shared by `inferno-backend` and `inferno backend`.

mod device;
pub mod exchange;
pub mod metrics;
pub mod openai;
mod served;
mod server;

use inferno_engine::{EngineOptions, STEP_TOKENS_MAX, store::ModelStore};
use inferno_shared::{
    Config, MetricsCollector, OperationsServer,
    config::keys,
    endpoint::Location,
    identity::random_hex,
    listener,
    membership::{ModelRef, NodeType, Token},
    node::{Node, NodeError},
    operations_server::Registrations,
    registration::{
        elsewhere::Elsewhere,
        lease::{Announcer, Introductions, Leases, introductions},
    },
    resources, shutdown, telemetry,
    vitals::ServiceState,
};
use metrics::BackendMetrics;
use served::Served;
use server::Service;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

/// The name of the service in vitals and logs.
pub const SERVICE: &str = "inferno-backend";

/// Work waits and no step was made for this long: the engine is stalled.
const STALL_AFTER: Duration = Duration::from_secs(10);

/// How long answers that were cut may take to say so.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

// The configuration refuses what the engine cannot do.
const _: () = assert!(keys::CONCURRENCY_MAX == STEP_TOKENS_MAX as u64);

/// Why a backend does not start.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A port could not be had.
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    /// The operations server did not start.
    #[error(transparent)]
    Operations(#[from] inferno_shared::operations_server::OperationsError),
    /// A secret, a certificate or a proxy of the configuration.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The model is not there.
    #[error("backend.model: {0}")]
    Store(#[from] inferno_engine::store::StoreError),
    /// The model cannot be loaded.
    #[error("backend.model: {0}")]
    Load(#[from] inferno_engine::LoadError),
    /// A proxy on another machine could not reach this one.
    #[error(
        "{key} is {address}, which the proxy {proxy} on another machine cannot reach; set {variable}, \
         e.g. to 0.0.0.0:{port}"
    )]
    Unreachable {
        /// The configuration key.
        key: &'static str,
        /// The environment variable of that key.
        variable: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The port of it.
        port: u16,
        /// The proxy.
        proxy: String,
    },
    /// A device that this build cannot use.
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    /// The engine stopped working for everyone.
    #[error("the engine failed: {0}")]
    EngineFailed(String),
    /// Anything else of the operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Two metrics of one name, or a thread that broke: a mistake of ours.
    #[error("internal: {0}")]
    Internal(String),
}

/// A backend that serves.
pub struct RunningBackend {
    /// Where inference requests are accepted.
    pub traffic: SocketAddr,
    /// Where the operations server answers.
    pub operations: SocketAddr,
    served: Served,
    collector: Arc<MetricsCollector>,
    leases: Leases,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    drain_timeout: Duration,
}

/// Binds, loads the model, serves, and registers with every proxy of the configuration.
///
/// # Errors
/// [`BackendError`] says what to change.
pub async fn start(config: &Config) -> Result<RunningBackend, BackendError> {
    let began = Instant::now();
    let why = device::choose(config.backend.device)?;
    tracing::info!(device = "cpu", why, "device chosen");
    let traffic = listener::bind(config.backend.listen, "backend.listen")?;
    let operations = listener::bind(config.operations.addr, "operations.addr")?;
    let node = Node::new(config)?;
    let proxies = node.proxies(config, "backend.proxies", &config.backend.proxies)?;
    refuse_unreachable(config).await?;
    tokio::spawn(node.reloadable().on_hangup()?);
    let collector = MetricsCollector::new();
    let (introductions, introduced) = introductions();
    let operations =
        operations_server(config, &node, &collector, introductions, operations).await?;
    let (served, model) = load(config).await?;
    collector.on_vitals(metrics::fill_vitals(&served, &model));
    let stalled = served.clone();
    collector.set_stall_probe(move || stalled.is_stalled(STALL_AFTER));
    let observed = telemetry::register_metrics(collector.registry())
        .and_then(|()| BackendMetrics::register(&collector, &served))
        .map_err(|error| BackendError::Internal(error.to_string()))?;
    let token = Token::new(random_hex(32));
    let address = traffic.local_addr()?;
    let announcer = Announcer {
        identity: Arc::clone(&node.identity),
        node_type: NodeType::Backend,
        traffic: address,
        operations: operations.bind_addr(),
        advertise: config.backend.advertise.clone(),
        capabilities: capabilities(&node, &served),
        models: Box::new(move || vec![model.clone()]),
        fingerprint: fingerprint_of(&served),
        max_concurrency: u32::try_from(config.backend.max_concurrency).ok(),
        token: Some(token.clone()),
        secrets: node.secrets.clone(),
    };
    let (stop, stopped) = watch::channel(false);
    let service =
        Service::new(served.clone(), Arc::clone(&collector), observed, token, &config.backend);
    let server = tokio::spawn(service.serve(traffic, stopped));
    collector.set_state(ServiceState::Ready);
    let leases = Leases::start(announcer, proxies, introduced, operations.connected_peers());
    tracing::info!(
        traffic = %address, operations = %operations.bind_addr(), model = %served.info().id,
        load_ms = began.elapsed().as_millis() as u64, "backend ready"
    );
    Ok(RunningBackend {
        traffic: address,
        operations: operations.bind_addr(),
        served,
        collector,
        leases,
        stop,
        server,
        drain_timeout: Duration::from_millis(config.backend.drain_timeout_ms),
    })
}

async fn operations_server(
    config: &Config,
    node: &Node,
    collector: &Arc<MetricsCollector>,
    introductions: Introductions,
    listener: TcpListener,
) -> Result<OperationsServer, BackendError> {
    let elsewhere = Elsewhere::new(&config.registration, &node.identity, introductions);
    let version = env!("CARGO_PKG_VERSION");
    let server = node
        .operations_server(config, Arc::clone(collector), SERVICE, version)
        .with_listener(listener)
        .with_registrations(Registrations::Elsewhere(elsewhere))
        .start()
        .await?;
    Ok(server)
}

/// Finds the model and loads it, off the threads that serve connections.
async fn load(config: &Config) -> Result<(Served, ModelRef), BackendError> {
    let model = ModelStore::open_default()?.resolve(&config.backend.model)?;
    let options = EngineOptions {
        threads: config
            .backend
            .threads
            .unwrap_or_else(|| resources::allowed_cores().ceil() as usize),
        kv_bytes: config.backend.kv_memory.map(|size| size.0),
        max_concurrency: config.backend.max_concurrency,
        context_max: config.backend.context_max,
        queue_max: config.backend.queue_max,
        queue_tokens_max: config.backend.queue_tokens_max,
        reader_timeout: Duration::from_millis(config.backend.reader_timeout_ms),
        ..EngineOptions::default()
    };
    let named = ModelRef { id: model.id.clone(), sha256: model.sha256.clone() };
    if model.makes_embeddings() && config.backend.kv_memory.is_some() {
        tracing::info!("an embedding model has no KV cache: backend.kv_memory is without effect");
    }
    let loading = tokio::task::spawn_blocking(move || Served::load(model, options));
    let served = loading.await.map_err(|error| BackendError::Internal(error.to_string()))??;
    for line in &served.info().budget {
        tracing::info!(bytes = line.bytes, "memory: {}", line.name);
    }
    Ok((served, named))
}

/// What it tells proxies it can do.
fn capabilities(node: &Node, served: &Served) -> Vec<String> {
    let own = served.capabilities().iter().map(|word| (*word).to_owned());
    node.capabilities().into_iter().chain(own).collect()
}

fn fingerprint_of(served: &Served) -> Box<dyn Fn() -> Option<String> + Send + Sync> {
    let served = served.clone();
    Box::new(move || served.fingerprint().map(|fingerprint| fingerprint.to_string()))
}

/// A loopback address told to a proxy on another machine leads nowhere: say so at the start.
async fn refuse_unreachable(config: &Config) -> Result<(), BackendError> {
    let ours = [
        ("operations.addr", "INFERNO_OPERATIONS_ADDR", config.operations.addr),
        ("backend.listen", "INFERNO_BACKEND__LISTEN", config.backend.listen),
    ];
    for proxy in config.backend.proxies.iter().filter_map(|text| text.parse::<Location>().ok()) {
        // A name that does not resolve yet is no mistake: the lease will try again.
        let Ok(mut addresses) = tokio::net::lookup_host(&proxy.host_port).await else { continue };
        if addresses.all(|address| address.ip().is_loopback()) {
            continue;
        }
        if let Some((key, variable, address)) =
            ours.into_iter().find(|(_, _, a)| a.ip().is_loopback())
        {
            let (port, proxy) = (address.port(), proxy.host_port.clone());
            return Err(BackendError::Unreachable { key, variable, address, port, proxy });
        }
    }
    Ok(())
}

/// What a backend would refuse of `config` at its start, as far as it shows without starting. Names
/// of proxies are looked up.
pub fn check(config: &Config) -> Vec<BackendError> {
    let reachable = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BackendError::from)
        .and_then(|runtime| runtime.block_on(refuse_unreachable(config)));
    let device = device::choose(config.backend.device).map(drop).map_err(BackendError::from);
    [device, reachable].into_iter().filter_map(Result::err).collect()
}

/// Whether the model of `config` is on this machine.
///
/// # Errors
/// If it is not.
pub fn check_model(config: &Config) -> Result<(), BackendError> {
    ModelStore::open_default()?.resolve(&config.backend.model)?;
    Ok(())
}

impl RunningBackend {
    /// Resolves if the engine fails for everyone: the process must then end, and not with success.
    pub async fn failed(&self) -> String {
        self.served.failed().await
    }

    /// Tells every proxy, finishes what runs within the drain timeout, says goodbye.
    pub async fn drain(mut self) {
        tracing::info!(requests = self.collector.requests_in_progress(), "draining");
        self.collector.set_state(ServiceState::Draining);
        self.leases.drain();
        self.stop.send_replace(true);
        if tokio::time::timeout(self.drain_timeout, &mut self.server).await.is_err() {
            let requests = self.collector.requests_in_progress();
            tracing::warn!(requests, "the drain timeout is over; these requests are cut");
        }
        self.leases.leave().await;
        self.served.shutdown();
        if !self.server.is_finished() {
            // The engine has told those that are cut. Their clients hear it too, and so does the log.
            drop(tokio::time::timeout(CUT_PATIENCE, self.server).await);
        }
        tracing::info!("backend stopped");
    }
}

/// The whole life of a backend process: starts, serves until SIGTERM or SIGINT, drains. A second
/// signal ends the drain at once.
///
/// # Errors
/// If it cannot start, or if the engine fails.
pub fn run_blocking(config: &Config) -> Result<(), BackendError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(live(config));
    // A model still being loaded or a name server that does not answer holds nobody up.
    runtime.shutdown_background();
    outcome
}

async fn live(config: &Config) -> Result<(), BackendError> {
    let stop = shutdown::requested();
    tokio::pin!(stop);
    let backend = tokio::select! {
        started = start(config) => started?,
        stopped = &mut stop => return Ok(stopped?),
    };
    tokio::select! {
        stopped = &mut stop => stopped?,
        why = backend.failed() => return Err(BackendError::EngineFailed(why)),
    }
    tokio::select! {
        () = backend.drain() => Ok(()),
        again = shutdown::requested() => {
            again?;
            tracing::warn!("ended during the drain by a second signal");
            Ok(())
        }
    }
}
