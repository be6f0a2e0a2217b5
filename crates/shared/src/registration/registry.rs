//! The proxy's side of registration: the async edge around [`Membership`].
//!
//! It answers registrations, proves and checks nodes by reading their vitals, and publishes a
//! snapshot after each change, which the data path reads without a lock.

use super::{
    policy,
    wire::{NodeType, Peer, Refusal, Registered, Registration, Status},
};
use crate::{
    NodeVitals,
    config::Config,
    identity::random_hex,
    membership::{
        Accepted, Announcement, Check, Conflict, Generation, Membership, NodeState, ReportedLoad,
        Rules, Snapshot, Target,
    },
    operations_client::{ClientError, OperationsClient},
    vitals::ServiceState,
};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Most nodes at once.
const NODES_MAX: usize = 10_000;

/// The members of one proxy, and everything that changes them.
#[derive(Debug)]
pub struct Registry {
    membership: Mutex<Membership>,
    snapshot: ArcSwap<Snapshot>,
    origin: Instant,
    instance: String,
    lease: Duration,
    interval: Duration,
    allowed_networks: Vec<IpNet>,
    loopback_only: bool,
    client: OperationsClient,
    connected_peers: Arc<AtomicU32>,
}

impl Registry {
    /// A registry without members. It keeps `connected_peers` at the number of live ones.
    pub fn new(config: &Config, connected_peers: Arc<AtomicU32>) -> Arc<Self> {
        let lease = Duration::from_millis(config.registration.lease_ms);
        let rules = Rules { lease, retention: lease * 3, nodes_max: NODES_MAX };
        let open = config.registration.allow_unauthenticated;
        Arc::new(Self {
            membership: Mutex::new(Membership::new(rules)),
            snapshot: ArcSwap::default(),
            origin: Instant::now(),
            instance: random_hex(8),
            lease,
            interval: Duration::from_millis(config.health.interval_ms),
            allowed_networks: config.registration.allowed_networks.clone(),
            loopback_only: config.registration.secret_sources().is_empty() && !open,
            client: OperationsClient::new(Duration::from_millis(config.health.timeout_ms)),
            connected_peers,
        })
    }

    /// The members now; never blocks.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Answers one registration. The proof follows at once, not at the next interval.
    pub async fn register(
        self: &Arc<Self>,
        registration: Registration,
    ) -> Result<Registered, Refusal> {
        let announcement = self.announcement(registration).await?;
        let id = announcement.id.clone();
        let accepted = self.change(|membership, now| membership.register(now, announcement));
        let accepted = accepted.map_err(refuse)?;
        if accepted == Accepted::Registered {
            tracing::info!(node = %id, "node registered");
        }
        let unproved = self.members(|membership| membership.target(&id)).filter(|_| {
            let snapshot = self.snapshot();
            snapshot.members().any(|node| node.id == id && node.state == NodeState::Joining)
        });
        if let Some(target) = unproved {
            tokio::spawn(Arc::clone(self).check(target));
        }
        let status = match accepted {
            Accepted::Registered => Status::Registered,
            Accepted::Updated => Status::Updated,
        };
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        Ok(Registered { status, lease_ms, instance: self.instance.clone(), peers: self.peers() })
    }

    /// A node leaves; an older generation than the known one is ignored.
    pub fn leave(&self, id: &str, generation: Option<Generation>) -> Result<(), Refusal> {
        if self.change(|membership, now| membership.leave(now, id, generation)) {
            tracing::info!(node = %id, "node left");
            Ok(())
        } else {
            Err(Refusal::UnknownNode(id.into()))
        }
    }

    /// The data path could not connect to that incarnation: it is out until a check passes.
    pub fn report_connect_refused(&self, id: &str, generation: Generation) {
        self.change(|membership, now| membership.connect_refused(now, id, generation));
    }

    /// Everyone known, as `GET /peers` shows them.
    pub fn peers(&self) -> Vec<Peer> {
        let snapshot = self.snapshot();
        snapshot
            .nodes
            .iter()
            .map(|node| Peer {
                id: node.id.clone(),
                node_type: NodeType::Backend,
                address: node.address,
                operations: node.operations,
                state: node.state,
                generation: node.generation,
                models: node.models.clone(),
                fingerprint: node.fingerprint.clone(),
                in_flight: node.load.in_flight(),
                reported: node.reported,
            })
            .collect()
    }

    /// Checks every node at each interval, in parallel, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.change(Membership::tick);
            let now = self.now();
            let targets: Vec<Target> =
                self.members(|membership| membership.to_check(now).collect());
            for target in targets {
                tokio::spawn(Arc::clone(&self).check(target));
            }
        }
    }

    /// Reads one node's vitals and says what they prove.
    async fn check(self: Arc<Self>, target: Target) {
        let check = match self.client.vitals(target.operations).await {
            Ok(vitals) => judge(&target, &vitals),
            Err(ClientError::Refused) => Check::Refused,
            Err(_) => Check::Missed,
        };
        self.change(|membership, now| {
            membership.checked(now, &target.id, target.generation, check);
        });
    }

    /// Resolves and checks the addresses; everything else was checked when it was read.
    async fn announcement(&self, registration: Registration) -> Result<Announcement, Refusal> {
        if registration.node_type == Some(NodeType::Proxy) {
            return Err(Refusal::Forbidden("only backends register here".into()));
        }
        let address = resolve(&registration.address).await?;
        let operations = SocketAddr::new(address.ip(), registration.metrics_port);
        for checked in [address, operations] {
            policy::check_address(checked, &self.allowed_networks, self.loopback_only)?;
        }
        Ok(Announcement {
            id: registration.id,
            address,
            operations,
            generation: registration.generation,
            nonce: registration.nonce,
            token: registration.token,
            models: registration.models,
            fingerprint: registration.fingerprint,
            max_concurrency: registration.max_concurrency,
            draining: registration.state == Some(NodeState::Draining),
        })
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members<T>(&self, read: impl FnOnce(&Membership) -> T) -> T {
        read(&self.lock())
    }

    /// Applies one event; publishes if it changed anything.
    fn change<T>(&self, event: impl FnOnce(&mut Membership, Duration) -> T) -> T {
        let mut membership = self.lock();
        let before = membership.version();
        let outcome = event(&mut membership, self.now());
        if membership.version() != before {
            self.publish(membership.snapshot());
        }
        outcome
    }

    fn publish(&self, snapshot: Snapshot) {
        let live =
            |state| matches!(state, NodeState::Ready | NodeState::Suspect | NodeState::Draining);
        let peers = snapshot.nodes.iter().filter(|node| live(node.state)).count();
        self.connected_peers.store(u32::try_from(peers).unwrap_or(u32::MAX), Relaxed);
        let before = self.snapshot.swap(Arc::new(snapshot));
        log_changes(&before, &self.snapshot());
    }
}

/// One line for each node whose state changed.
fn log_changes(before: &Snapshot, after: &Snapshot) {
    for node in &after.nodes {
        // Both are in the order of their ids.
        let old = before.nodes.binary_search_by(|old| old.id.cmp(&node.id));
        let was = old.ok().map(|at| before.nodes[at].state);
        if was != Some(node.state) {
            let was = was.map_or("unknown", NodeState::as_str);
            tracing::info!(node = %node.id, address = %node.address, was, state = node.state.as_str(), "node state");
        }
    }
}

fn judge(target: &Target, vitals: &NodeVitals) -> Check {
    let same_generation =
        target.expected_generation.is_none_or(|expected| expected == vitals.generation);
    let same_nonce = target.nonce.as_ref().is_none_or(|expected| *expected == vitals.nonce);
    if vitals.node_id != target.id || !same_generation || !same_nonce {
        return Check::Replaced;
    }
    if vitals.state == ServiceState::Stalled {
        return Check::Missed;
    }
    Check::Passed {
        ready: vitals.ready,
        draining: vitals.state == ServiceState::Draining,
        load: ReportedLoad {
            requests_in_progress: vitals.requests_in_progress,
            queue_depth: vitals.queue_depth,
            kv_cache_usage: vitals.kv_cache_usage,
            tokens_per_second: vitals.tokens_per_second,
            cpu_usage: vitals.cpu_usage,
            memory_usage: vitals.memory_usage,
            gpu_usage: vitals.gpu_usage,
        },
    }
}

/// The first address behind `host:port`.
async fn resolve(address: &str) -> Result<SocketAddr, Refusal> {
    let unusable = |why: String| Refusal::Malformed(format!("address `{address}`: {why}"));
    let mut found =
        tokio::net::lookup_host(address).await.map_err(|error| unusable(error.to_string()))?;
    found.next().ok_or_else(|| unusable("has no address".into()))
}

fn refuse(conflict: Conflict) -> Refusal {
    let message = conflict.to_string();
    match conflict {
        Conflict::OlderGeneration { current } => {
            Refusal::Conflict { message, generation: Some(current), proxies: Vec::new() }
        }
        Conflict::IdInUse { .. } => {
            Refusal::Conflict { message, generation: None, proxies: Vec::new() }
        }
        Conflict::Full { .. } => Refusal::Full(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetricsCollector, OperationsServer, identity::NodeIdentity};

    async fn node(identity: &Arc<NodeIdentity>) -> OperationsServer {
        let metrics = MetricsCollector::new();
        metrics.set_state(ServiceState::Ready);
        OperationsServer::new(metrics, ([127, 0, 0, 1], 0).into())
            .with_identity(Arc::clone(identity))
            .start()
            .await
            .expect("starts")
    }

    /// Registers as `id` at `operations`, checks once, and says what became of it.
    async fn state_after_check(id: &str, nonce: &str, operations: SocketAddr) -> NodeState {
        let registry = Registry::new(&Config::default(), Arc::default());
        let registration = Registration {
            id: id.into(),
            address: "127.0.0.1:9".into(),
            metrics_port: operations.port(),
            nonce: Some(nonce.into()),
            ..Registration::default()
        };
        registry.register(registration).await.expect("taken");
        let target = registry.members(|membership| membership.target(id)).expect("known");
        Arc::clone(&registry).check(target).await;
        registry.snapshot().nodes[0].state
    }

    #[tokio::test]
    async fn only_the_node_that_registered_is_believed() {
        let identity = Arc::new(NodeIdentity::new(&Config::default()));
        let server = node(&identity).await;
        let at = server.bind_addr();
        assert_eq!(state_after_check(&identity.id, &identity.nonce, at).await, NodeState::Ready);
        assert_ne!(state_after_check("other", &identity.nonce, at).await, NodeState::Ready);
        assert_ne!(state_after_check(&identity.id, "another nonce", at).await, NodeState::Ready);
    }
}
