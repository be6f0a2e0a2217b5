//! The process that stands for the engine: an operations server, the leases, and probes until it is
//! told to stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use inferno_shared::config::Config;
use inferno_shared::listener;
use inferno_shared::membership::{CAPABILITY_FOREIGN, ModelRef, NodeType};
use inferno_shared::node::{Node, NodeError};
use inferno_shared::operations_server::{OperationsError, OperationsServer, Registrations};
use inferno_shared::registration::elsewhere::Elsewhere;
use inferno_shared::registration::lease::{Announcer, Introduced, Leases, introductions};
use inferno_shared::vitals::{NodeVitals, ServiceState};
use inferno_shared::{MetricsCollector, shutdown, telemetry};

use super::engine_url::EngineUrl;
use super::health::{Health, News};
use super::load::EngineLoad;
use super::models::Listed;
use super::probe::{Failure, Prober, Seen};
use super::reach::{Places, ReachError, ThisMachine};

/// The name of the service in vitals and logs.
pub(crate) const SERVICE: &str = "inferno-register";

/// What to register, and how to look after it.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) url: EngineUrl,
    /// What it serves; none: what it lists.
    pub(crate) models: Vec<ModelRef>,
    /// Requests that it computes together.
    pub(crate) max_concurrency: Option<u32>,
    /// Between two rounds of probes.
    pub(crate) interval: Duration,
    /// How long one answer may take.
    pub(crate) timeout: Duration,
    /// Failed rounds in a row that take it out.
    pub(crate) failures_max: u32,
}

/// Why an engine is not registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    #[error(transparent)]
    Operations(#[from] OperationsError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("{url}: {failure}")]
    NotAnEngine { url: EngineUrl, failure: Failure },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("internal: {0}")]
    Internal(String),
}

/// What proxies are told of the engine.
#[derive(Debug, Default)]
struct Shown {
    models: Vec<ModelRef>,
    load: Option<EngineLoad>,
}

/// Both the vitals and the announcer read it; nobody holds it for longer than a copy.
type Shared = Arc<Mutex<Shown>>;

fn with<T>(shown: &Shared, use_it: impl FnOnce(&mut Shown) -> T) -> T {
    use_it(&mut shown.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An engine being looked after.
struct Registrar {
    config: Config,
    engine: Engine,
    node: Node,
    collector: Arc<MetricsCollector>,
    operations: OperationsServer,
    shown: Shared,
    prober: Prober,
    health: Health,
    began: Instant,
    /// Before the engine was first ready.
    introduced: Option<Introduced>,
    /// From then on.
    leases: Option<Leases>,
    /// Models there was no room for, when that was last said.
    left_out: usize,
}

/// The whole life of the process: starts, looks after the engine until SIGTERM or SIGINT, tells the proxies,
/// leaves. A second signal ends it at once.
///
/// # Errors
/// If it cannot start, or if what it finds is no engine to register.
pub(crate) fn run_blocking(config: &Config, engine: Engine) -> Result<(), RegisterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(live(config, engine));
    // A name server that does not answer holds nobody up.
    runtime.shutdown_background();
    outcome
}

async fn live(config: &Config, engine: Engine) -> Result<(), RegisterError> {
    let stop = shutdown::requested();
    let mut registrar = Registrar::start(config, engine).await?;
    tokio::select! {
        stopped = stop => stopped?,
        failed = registrar.watch() => return failed,
    }
    let again = shutdown::requested();
    tokio::select! {
        () = registrar.leave() => Ok(()),
        again = again => Ok(again?),
    }
}

impl Registrar {
    async fn start(config: &Config, engine: Engine) -> Result<Self, RegisterError> {
        let listener = listener::bind(config.operations.addr, "operations.addr")?;
        let bound = listener.local_addr()?;
        let node = Node::new(config)?;
        node.proxies(config, "backend.proxies", &config.backend.proxies)?;
        if let Some(at) = engine.url.literal() {
            check_reach(config, places(config, &engine, at)).await?;
        }
        tokio::spawn(node.reloadable().on_hangup()?);
        let collector = MetricsCollector::new();
        telemetry::register_metrics(collector.registry())
            .map_err(|error| RegisterError::Internal(error.to_string()))?;
        let shown = Shared::default();
        let filled = Arc::clone(&shown);
        collector.on_vitals(move |vitals| with(&filled, |shown| fill(vitals, shown)));
        let (introductions, introduced) = introductions();
        let elsewhere = Elsewhere::new(&config.registration, &node.identity, introductions);
        let operations = node
            .operations_server(config, Arc::clone(&collector), SERVICE, env!("CARGO_PKG_VERSION"))
            .with_listener(listener)
            .with_registrations(Registrations::Elsewhere(elsewhere))
            .start()
            .await?;
        tracing::info!(engine = %engine.url, operations = %bound, "watching the engine");
        let is_named = !engine.models.is_empty();
        Ok(Self {
            config: config.clone(),
            prober: Prober::new(engine.url.clone(), engine.timeout, is_named),
            health: Health::new(engine.failures_max),
            engine,
            node,
            collector,
            operations,
            shown,
            began: Instant::now(),
            introduced: Some(introduced),
            leases: None,
            left_out: 0,
        })
    }

    /// Probes for ever, or until it is clear that there is nothing to register.
    async fn watch(&mut self) -> Result<(), RegisterError> {
        let mut rounds = tokio::time::interval(self.engine.interval);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            match self.prober.round().await {
                Ok(seen) => self.found(seen).await?,
                Err(failure @ Failure::Ours) => {
                    let url = self.engine.url.clone();
                    return Err(RegisterError::NotAnEngine { url, failure });
                }
                Err(failure) => self.failed(&failure),
            }
        }
    }

    /// The engine takes requests.
    async fn found(&mut self, seen: Seen) -> Result<(), RegisterError> {
        let models = match seen.listed {
            Some(listed) => self.listed(listed),
            None => self.engine.models.clone(),
        };
        let (changed, count) = with(&self.shown, |shown| {
            shown.load = seen.load;
            // Between two readings of the list it is as it was.
            let changed = !models.is_empty() && shown.models != models;
            if changed {
                shown.models = models;
            }
            (changed, shown.models.len())
        });
        if self.health.passed() == News::Ready {
            self.collector.set_state(ServiceState::Ready);
            let load = if seen.load.is_some() { "told by the engine" } else { "not told" };
            tracing::info!(engine = %self.engine.url, models = count, load, "engine ready");
        }
        match &self.leases {
            None => self.register(seen.address).await?,
            Some(leases) if changed => {
                tracing::info!(engine = %self.engine.url, models = count, "the engine serves other models");
                leases.announce_anew();
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn listed(&mut self, listed: Listed) -> Vec<ModelRef> {
        if listed.left_out != self.left_out {
            tracing::warn!(
                engine = %self.engine.url, left_out = listed.left_out, registered = listed.models.len(),
                "not all models of the engine can be registered (64, with names of 256 bytes); --model chooses"
            );
            self.left_out = listed.left_out;
        }
        listed.models
    }

    /// The engine does not take requests, or seems not to.
    fn failed(&mut self, failure: &Failure) {
        let news = self.health.failed(self.began.elapsed(), failure);
        if !self.health.is_ready() {
            self.collector.set_state(ServiceState::Loading);
            with(&self.shown, |shown| shown.load = None);
        }
        let engine = &self.engine.url;
        match news {
            News::Missed => tracing::info!(%engine, reason = %failure, "the engine failed a probe"),
            News::Lost => {
                tracing::warn!(%engine, reason = %failure, "engine lost: proxies send it no more requests");
            }
            News::Waiting => tracing::info!(%engine, reason = %failure, "waiting for the engine"),
            News::Nothing | News::Ready => {}
        }
    }

    /// The first time that the engine is ready, at `address`: from now on there are leases.
    async fn register(&mut self, address: SocketAddr) -> Result<(), RegisterError> {
        let Some(introduced) = self.introduced.take() else { return Ok(()) };
        let operations = self.operations.bind_addr();
        let places = places(&self.config, &self.engine, address);
        check_reach(&self.config, places).await?;
        let shown = Arc::clone(&self.shown);
        let mut capabilities = self.node.capabilities();
        capabilities.push(CAPABILITY_FOREIGN.into());
        let announcer = Announcer {
            identity: Arc::clone(&self.node.identity),
            node_type: NodeType::Backend,
            traffic: places.engine,
            operations,
            advertise: self.config.backend.advertise.clone(),
            capabilities,
            models: Box::new(move || with(&shown, |shown| shown.models.clone())),
            // It promises no tokens, and checks none of ours.
            fingerprint: Box::new(|| None),
            token: None,
            max_concurrency: self.engine.max_concurrency,
            secrets: self.node.secrets.clone(),
        };
        let listed = &self.config.backend.proxies;
        let proxies = self.node.proxies(&self.config, "backend.proxies", listed)?;
        let connected = self.operations.connected_peers();
        self.leases = Some(Leases::start(announcer, proxies, introduced, connected));
        Ok(())
    }

    /// Tells every proxy that no more requests are wanted, and says goodbye. What runs on the engine goes
    /// on: it does not pass here.
    async fn leave(self) {
        tracing::info!("draining");
        self.collector.set_state(ServiceState::Draining);
        if let Some(leases) = self.leases {
            leases.drain();
            leases.drained().await;
            leases.leave().await;
        }
        self.operations.shutdown();
        tracing::info!("left");
    }
}

/// Of this process nothing is told but who it is: the numbers are the engine's, or 0.
fn fill(vitals: &mut NodeVitals, shown: &Shown) {
    let EngineLoad { running, waiting, kv_cache_percent } = shown.load.unwrap_or_default();
    vitals.models.clone_from(&shown.models);
    vitals.requests_in_progress = running.saturating_add(waiting);
    vitals.queue_depth = waiting;
    vitals.kv_cache_usage = kv_cache_percent;
    vitals.cpu_usage = 0.0;
    vitals.memory_usage = 0.0;
}

/// Where things are, with the engine at `engine`.
fn places<'a>(config: &'a Config, registered: &Engine, mut engine: SocketAddr) -> Places<'a> {
    if registered.url.is_everywhere() {
        engine.set_ip(match engine.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        });
    }
    let operations = config.operations.addr;
    Places { engine, operations, advertise: config.backend.advertise.as_deref() }
}

/// Whether every proxy of the configuration can come. One whose name does not resolve yet is no mistake: the
/// lease will try again.
async fn check_reach(config: &Config, places: Places<'_>) -> Result<(), RegisterError> {
    for proxy in &config.backend.proxies {
        let Ok(proxy) = proxy.parse::<inferno_shared::endpoint::Location>() else { continue };
        let Ok(addresses) = tokio::net::lookup_host(&proxy.host_port).await else { continue };
        for address in addresses {
            places.check(address, &ThisMachine)?;
        }
    }
    Ok(())
}
