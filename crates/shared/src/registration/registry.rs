//! The proxy's side of registration: the async edge around [`Membership`].
//!
//! It answers registrations, proves and checks nodes by reading their vitals, and publishes a
//! snapshot after each change, which the data path reads without a lock.

use super::{
    lease::Introductions,
    policy,
    proof::judge,
    resolve,
    wire::{CAPABILITY_TLS, Peer, Peers, Refusal, Registered, Registration, Status},
};
use crate::{
    config::Config,
    endpoint::{Endpoint, host_of},
    identity::NodeIdentity,
    membership::{
        Accepted, Announcement, Check, Conflict, Generation, Goodbye, Membership, NodeState,
        NodeType, Rules, Snapshot, Target, Transition,
    },
    operations_client::{ClientError, OperationsClient},
    tls::ClientTls,
};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Most nodes at once.
const NODES_MAX: usize = 10_000;
/// How long a gone node is still shown, in leases.
const RETENTION_LEASES: u32 = 3;
/// How often it is looked whose check is due, in an interval between two checks: often, so that
/// the checks of thousands of nodes are spread and a registration never waits behind many.
const BEATS_PER_INTERVAL: u32 = 50;
/// However short the interval, not more often than this.
const BEAT_MIN: Duration = Duration::from_millis(10);
/// Most checks under way. A proxy that cannot keep up checks less often; without a limit it would
/// run into its own timeouts, take healthy nodes for lost, and have to connect to them all again.
const CHECKS_MAX: usize = 256;
/// A snapshot is published at once, but no more than this part of the time is spent on it: with
/// thousands of nodes that register together, changes are published together.
const PUBLISH_SHARE: u32 = 20;

/// The members of one proxy, and everything that changes them.
#[derive(Debug)]
pub struct Registry {
    members: Mutex<Members>,
    checks: AtomicUsize,
    snapshot: ArcSwap<Snapshot>,
    /// The version of the snapshot, for those who wait for another.
    changes: watch::Sender<u64>,
    origin: Instant,
    own_id: String,
    instance: String,
    lease: Duration,
    interval: Duration,
    allowed_networks: Vec<IpNet>,
    loopback_only: bool,
    client: OperationsClient,
    connected_peers: Arc<AtomicU32>,
    introductions: Introductions,
}

/// The members, and how much of them has been published.
#[derive(Debug)]
struct Members {
    membership: Membership,
    published: u64,
    /// When the last snapshot was published.
    published_at: Duration,
    /// What that took.
    publishing_took: Duration,
}

impl Members {
    fn is_stale(&self) -> bool {
        self.membership.version() != self.published
    }

    fn may_publish(&self, now: Duration) -> bool {
        self.published_at + self.publishing_took * PUBLISH_SHARE <= now
    }
}

impl Registry {
    /// A registry without members, of the proxy `identity`, that trusts `tls`. Proxies that prove
    /// themselves are told to `introductions`, so that this one registers with them in turn. It
    /// keeps `connected_peers` at the number of live members.
    pub fn new(
        config: &Config,
        identity: &NodeIdentity,
        tls: ClientTls,
        introductions: Introductions,
        connected_peers: Arc<AtomicU32>,
    ) -> Arc<Self> {
        let lease = Duration::from_millis(config.registration.lease_ms);
        let interval = Duration::from_millis(config.health.interval_ms);
        let retention = lease * RETENTION_LEASES;
        let rules = Rules { lease, interval, retention, nodes_max: NODES_MAX };
        let timeout = Duration::from_millis(config.health.timeout_ms);
        Arc::new(Self {
            members: Mutex::new(Members {
                membership: Membership::new(rules),
                published: 0,
                published_at: Duration::ZERO,
                publishing_took: Duration::ZERO,
            }),
            checks: AtomicUsize::new(0),
            snapshot: ArcSwap::default(),
            changes: watch::Sender::new(0),
            origin: Instant::now(),
            own_id: identity.id.clone(),
            instance: identity.nonce.clone(),
            lease,
            interval,
            allowed_networks: config.registration.allowed_networks.clone(),
            loopback_only: config.registration.is_loopback_only(),
            client: OperationsClient::new(timeout).with_tls(tls),
            connected_peers,
            introductions,
        })
    }

    /// The members now; never blocks.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Changes with each snapshot, to its version.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Answers one registration. The proof follows at once, not at the next interval.
    ///
    /// # Errors
    /// [`Refusal`] says why it was not taken.
    pub async fn register(
        self: &Arc<Self>,
        registration: Registration,
    ) -> Result<Registered, Refusal> {
        if registration.id == self.own_id {
            return Err(self.conflict("this is the id of the proxy itself".into(), None));
        }
        let announcement = self.announcement(registration).await?;
        let id = announcement.id.clone();
        let again = announcement.clone();
        let mut outcome = self.change(|members, now| members.register(now, announcement));
        if let Err(Conflict::Contested(holder)) = outcome {
            Arc::clone(self).check(*holder).await;
            outcome = self.change(|members, now| members.register(now, again));
        }
        let accepted = outcome.map_err(|conflict| self.refusal(&conflict))?;
        if let Some(target) = self.unproved(&id) {
            tokio::spawn(Arc::clone(self).check(target));
        }
        let status = match accepted {
            Accepted::Registered => Status::Registered,
            Accepted::Updated => Status::Updated,
        };
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let peers = self.other_proxies(&id);
        Ok(Registered { status, lease_ms, instance: self.instance.clone(), peers })
    }

    /// A node leaves; the goodbye of an earlier incarnation than the known one is ignored.
    ///
    /// # Errors
    /// If that incarnation is not known.
    pub fn leave(&self, id: &str, goodbye: &Goodbye) -> Result<(), Refusal> {
        if self.change(|members, now| members.leave(now, id, goodbye)) {
            Ok(())
        } else {
            Err(Refusal::UnknownNode(id.into()))
        }
    }

    /// The data path could not connect to that incarnation: it is out until a check passes.
    pub fn report_connect_refused(&self, id: &str, generation: Generation) {
        self.change(|members, now| members.connect_refused(now, id, generation));
    }

    /// Everyone known, as `GET /peers` shows them.
    pub fn peers(&self) -> Peers {
        self.publish_if(|members, _| members.is_stale());
        let peers = self.snapshot().nodes.iter().map(|node| Peer::from(&**node)).collect();
        Peers { peers, proxies: self.introductions.shown() }
    }

    /// The proxies that a node called `id` should register with besides this one.
    fn other_proxies(&self, id: &str) -> Vec<Peer> {
        let snapshot = self.snapshot();
        let others = snapshot.proxies().filter(|proxy| proxy.id != id);
        others.map(|proxy| Peer::from(&**proxy)).collect()
    }

    /// Lets time pass and checks each node once an interval, side by side, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut beats = tokio::time::interval((self.interval / BEATS_PER_INTERVAL).max(BEAT_MIN));
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_tick = Duration::ZERO;
        loop {
            beats.tick().await;
            let now = self.now();
            if next_tick <= now {
                self.change(Membership::tick);
                next_tick = now + self.interval;
            }
            let room = CHECKS_MAX.saturating_sub(self.checks.load(Relaxed));
            let due = self.lock().membership.start_checks(now, room);
            for target in due {
                tokio::spawn(Arc::clone(&self).check(target));
            }
            self.publish_if(|members, now| members.is_stale() && members.may_publish(now));
        }
    }

    fn unproved(&self, id: &str) -> Option<Target> {
        let Members { membership, .. } = &*self.lock();
        let joining = membership.get(id).is_some_and(|node| node.state == NodeState::Joining);
        joining.then(|| membership.target(id)).flatten()
    }

    /// Reads one node's vitals and says what they prove.
    async fn check(self: Arc<Self>, target: Target) {
        let under_way = UnderWay::begin(&self.checks);
        let check = match self.client.vitals(target.operations.clone()).await {
            Ok(vitals) => judge(&target, &vitals),
            Err(ClientError::Refused) => Check::Refused,
            Err(error) => {
                tracing::debug!(node = %target.id, operations = %target.operations, %error, "check missed");
                Check::Missed
            }
        };
        drop(under_way);
        self.change(|members, now| {
            members.checked(now, &target.id, target.generation, check);
        });
    }

    /// Resolves and checks the addresses; everything else was checked when it was read.
    async fn announcement(&self, registration: Registration) -> Result<Announcement, Refusal> {
        let known = self.lock().membership.get(&registration.id).map(|node| node.address);
        let address = resolve::address(&registration.address, known).await?;
        let operations = SocketAddr::new(address.ip(), registration.metrics_port);
        for checked in [address, operations] {
            policy::check_address(checked, &self.allowed_networks, self.loopback_only)?;
        }
        let speaks_tls = registration.capabilities.iter().any(|word| word == CAPABILITY_TLS);
        let tls = speaks_tls.then(|| host_of(&registration.address).to_owned());
        Ok(Announcement {
            id: registration.id,
            node_type: registration.node_type.unwrap_or_default(),
            address,
            operations: Endpoint { address: operations, tls },
            generation: registration.generation,
            nonce: registration.nonce,
            token: registration.token,
            models: registration.models,
            capabilities: registration.capabilities,
            fingerprint: registration.fingerprint,
            max_concurrency: registration.max_concurrency,
            draining: registration.state == Some(NodeState::Draining),
        })
    }

    fn refusal(&self, conflict: &Conflict) -> Refusal {
        let message = conflict.to_string();
        match conflict {
            Conflict::OlderGeneration { current } => self.conflict(message, Some(*current)),
            Conflict::AlreadyHere { .. } => {
                Refusal::AlreadyHere { message, instance: self.instance.clone() }
            }
            Conflict::Contested(_) => self.conflict(message, None),
            Conflict::Full { .. } => Refusal::Full(message),
        }
    }

    fn conflict(&self, message: String, generation: Option<Generation>) -> Refusal {
        let instance = Some(self.instance.clone());
        Refusal::Conflict { message, generation, proxies: Vec::new(), instance }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies one event; publishes if it changed anything, and tells of it.
    fn change<T>(&self, event: impl FnOnce(&mut Membership, Duration) -> T) -> T {
        let mut members = self.lock();
        let now = self.now();
        let outcome = event(&mut members.membership, now);
        if members.is_stale() && members.may_publish(now) {
            self.publish(&mut members);
        }
        let transitions = members.membership.take_transitions();
        drop(members);
        for transition in &transitions {
            self.tell(transition);
        }
        outcome
    }

    fn publish_if(&self, wanted: impl FnOnce(&Members, Duration) -> bool) {
        let mut members = self.lock();
        if wanted(&members, self.now()) {
            self.publish(&mut members);
        }
    }

    fn publish(&self, members: &mut Members) {
        let began = self.now();
        let snapshot = members.membership.snapshot();
        members.published = snapshot.version;
        let peers = snapshot.nodes.iter().filter(|node| node.state.is_alive()).count();
        self.connected_peers.store(u32::try_from(peers).unwrap_or(u32::MAX), Relaxed);
        self.snapshot.store(Arc::new(snapshot));
        self.changes.send_replace(members.published);
        members.published_at = self.now();
        members.publishing_took = members.published_at - began;
    }

    /// One line in the log for each change of state; and a proxy that has proved itself becomes one
    /// to register with.
    fn tell(&self, transition: &Transition) {
        let Transition { id, address, generation, was, state, .. } = transition;
        let was = was.map_or("unknown", NodeState::as_str);
        let now = state.map_or("forgotten", NodeState::as_str);
        tracing::info!(node = %id, %address, %generation, was, state = now, "node state");
        if *state == Some(NodeState::Ready) && transition.node_type == NodeType::Proxy {
            self.introductions.introduce(transition.operations.clone());
        }
    }
}

/// A check that is counted until it is over, however it ends.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MetricsCollector, OperationsServer, registration::lease::introductions,
        vitals::ServiceState,
    };

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
        let own = NodeIdentity::new(&Config::default());
        let registry = Registry::new(
            &Config::default(),
            &own,
            ClientTls::default(),
            introductions().0,
            Arc::default(),
        );
        let registration = Registration {
            id: id.into(),
            address: "127.0.0.1:9".into(),
            metrics_port: operations.port(),
            nonce: Some(nonce.into()),
            ..Registration::default()
        };
        registry.register(registration).await.expect("taken");
        let target = registry.lock().membership.target(id).expect("known");
        Arc::clone(&registry).check(target).await;
        registry.peers().peers[0].state
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
