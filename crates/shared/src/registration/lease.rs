//! The backend's side of registration: one lease with each proxy, renewed until the process ends.

use super::{
    secrets::Secrets,
    wire::{Action, NodeType, PROTOCOL, Registered, Registration},
};
use crate::{
    identity::NodeIdentity,
    membership::{ModelRef, NodeState, Token},
    operations_client::{ClientError, OperationsClient},
};
use futures_util::future::join_all;
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// However short a proxy's lease, we do not renew more often.
const RENEWAL_MIN: Duration = Duration::from_millis(100);
/// How long one registration may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a backend says of itself.
pub struct Announcer {
    /// Who it is.
    pub identity: Arc<NodeIdentity>,
    /// Where its inference server is bound.
    pub traffic: SocketAddr,
    /// Where its operations server is bound.
    pub operations: SocketAddr,
    /// `backend.advertise`: overrides what each proxy is told.
    pub advertise: Option<String>,
    /// What it serves.
    pub models: Vec<ModelRef>,
    /// Equal fingerprints give equal tokens; none until the weights' hash is known.
    pub fingerprint: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Sequences it computes together.
    pub max_concurrency: u32,
    /// What it demands in each request.
    pub token: Token,
    /// The first is presented.
    pub secrets: Secrets,
}

/// The phases of a lease's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Leaving,
}

/// The running leases of one backend.
#[derive(Debug)]
pub struct Leases {
    phase: watch::Sender<Phase>,
    tasks: JoinSet<()>,
}

impl Leases {
    /// Begins to register with every address behind each of `proxies` (`host:port`), and goes on
    /// until [`Leases::leave`]. `connected` counts the proxies that hold a lease of ours.
    pub fn start(
        announcer: &Arc<Announcer>,
        proxies: &[String],
        connected: &Arc<AtomicU32>,
    ) -> Self {
        let (phase, _) = watch::channel(Phase::Serving);
        let mut tasks = JoinSet::new();
        for proxy in proxies {
            let keeper = Keeper {
                announcer: Arc::clone(announcer),
                proxy: proxy.clone(),
                client: OperationsClient::new(TIMEOUT),
                connected: Arc::clone(connected),
                proxies: HashMap::new(),
            };
            tasks.spawn(keeper.run(phase.subscribe()));
        }
        Self { phase, tasks }
    }

    /// Tells every proxy, now, that no new requests are wanted.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Tells every proxy goodbye; waits until they heard it, or could not be reached in time.
    pub async fn leave(mut self) {
        self.phase.send_replace(Phase::Leaving);
        let told = async { while self.tasks.join_next().await.is_some() {} };
        // An announcement under way, then the goodbye itself.
        if tokio::time::timeout(2 * TIMEOUT, told).await.is_err() {
            tracing::debug!("not every proxy heard the goodbye; the leases will end by themselves");
        }
    }
}

/// Keeps the leases with every address behind one `host:port`.
struct Keeper {
    announcer: Arc<Announcer>,
    proxy: String,
    client: OperationsClient,
    connected: Arc<AtomicU32>,
    proxies: HashMap<SocketAddr, Lease>,
}

/// What is known of one proxy.
#[derive(Debug)]
struct Lease {
    /// The proxy's incarnation, while it holds a lease of ours.
    instance: Option<String>,
    failures: u32,
    /// When to announce ourselves again.
    due: Instant,
}

impl Keeper {
    async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let mut announced = Phase::Serving;
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Leaving {
                return self.leave().await;
            }
            // Every proxy hears of a new phase at once; otherwise each in its own time.
            let everyone = now != announced;
            announced = now;
            self.resolve().await;
            self.announce(now, everyone).await;
            tokio::select! {
                () = tokio::time::sleep_until(self.next_due()) => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// The addresses behind the name now. While it does not resolve, the known ones stay: a name
    /// server's failure must not cost a healthy node its lease.
    async fn resolve(&mut self) {
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(&self.proxy).await {
            Ok(found) => found.collect(),
            Err(error) => {
                tracing::warn!(proxy = %self.proxy, %error, "the proxy's name does not resolve");
                return;
            }
        };
        self.proxies.retain(|address, lease| {
            let keep = addresses.contains(address);
            if !keep && lease.instance.is_some() {
                self.connected.fetch_sub(1, Relaxed);
            }
            keep
        });
        for address in addresses {
            self.proxies.entry(address).or_insert_with(|| Lease {
                instance: None,
                failures: 0,
                due: Instant::now(),
            });
        }
    }

    /// Registers with every proxy whose time has come, side by side: one that does not answer
    /// delays none that does.
    async fn announce(&mut self, phase: Phase, everyone: bool) {
        let now = Instant::now();
        let due = self.proxies.iter().filter(|(_, lease)| everyone || lease.due <= now);
        let announcements = due.map(|(proxy, lease)| {
            let registration = self.announcer.registration(*proxy, phase, lease.instance.is_some());
            let (client, announcer) = (&self.client, &self.announcer);
            async move {
                let secret = announcer.secrets.first();
                (*proxy, client.register(*proxy, &registration, secret).await)
            }
        });
        for (proxy, outcome) in join_all(announcements).await {
            let Some(lease) = self.proxies.get_mut(&proxy) else { continue };
            let pause = match outcome {
                Ok(answer) => lease.held(proxy, &answer, &self.connected),
                Err(error) => {
                    let outgrown = outgrown(&error, &self.announcer.identity);
                    let pause = lease.failed(proxy, &error, &self.connected, phase);
                    // Once: two processes that outgrow each other must not do so in a hot loop.
                    if outgrown && lease.failures == 1 { Duration::ZERO } else { pause }
                }
            };
            lease.due = Instant::now() + pause;
        }
    }

    /// When to look again: a name without addresses is asked again after the shortest pause.
    fn next_due(&self) -> Instant {
        let earliest = self.proxies.values().map(|lease| lease.due).min();
        earliest.unwrap_or_else(|| Instant::now() + backoff(0))
    }

    async fn leave(self) {
        let identity = &self.announcer.identity;
        let secret = self.announcer.secrets.first();
        let held = self.proxies.iter().filter(|(_, lease)| lease.instance.is_some());
        let goodbyes = held.map(|(proxy, _)| async {
            let generation = identity.generation();
            (*proxy, self.client.leave(*proxy, &identity.id, generation, secret).await)
        });
        for (proxy, left) in join_all(goodbyes).await {
            if let Err(error) = left {
                tracing::debug!(%proxy, %error, "could not say goodbye; the lease will end by itself");
            }
        }
    }
}

impl Lease {
    /// The proxy took it. Renew after a third, give or take a tenth of that.
    fn held(&mut self, proxy: SocketAddr, answer: &Registered, connected: &AtomicU32) -> Duration {
        if self.instance.as_deref() != Some(&answer.instance) {
            tracing::info!(%proxy, lease_ms = answer.lease_ms, "registered with proxy");
        }
        if self.instance.replace(answer.instance.clone()).is_none() {
            connected.fetch_add(1, Relaxed);
        }
        self.failures = 0;
        jittered(Duration::from_millis(answer.lease_ms / 3).max(RENEWAL_MIN))
    }

    /// It did not work: 1, 2, 4, 8 seconds, for ever. Who is leaving anyway makes no noise.
    fn failed(
        &mut self,
        proxy: SocketAddr,
        error: &ClientError,
        connected: &AtomicU32,
        phase: Phase,
    ) -> Duration {
        if self.instance.take().is_some() {
            connected.fetch_sub(1, Relaxed);
        }
        let pause = backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        if phase == Phase::Serving {
            tracing::warn!(%proxy, %error, retry_s = pause.as_secs(), "registration failed");
        } else {
            tracing::debug!(%proxy, %error, "the proxy did not hear that this backend drains");
        }
        pause
    }
}

fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(BACKOFF_MAX)
}

/// Spreads renewals, so that a fleet started together does not stay together.
fn jittered(base: Duration) -> Duration {
    let random = u32::from_str_radix(&crate::identity::random_hex(2), 16).unwrap_or(0);
    let spread = f64::from(random) / 65_536.0;
    base.mul_f64(0.9 + 0.2 * spread)
}

/// The proxy knows a newer generation of us (our clock went back): become newer, and try again.
fn outgrown(error: &ClientError, identity: &NodeIdentity) -> bool {
    let ClientError::Answer { answer, .. } = error else { return false };
    answer.generation.inspect(|current| identity.outgrow(*current)).is_some()
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Announcer {
    fn registration(&self, proxy: SocketAddr, phase: Phase, known: bool) -> Registration {
        Registration {
            id: self.identity.id.clone(),
            address: self.address_for(proxy),
            metrics_port: self.operations.port(),
            action: Some(if known { Action::Update } else { Action::Register }),
            node_type: Some(NodeType::Backend),
            capabilities: Vec::new(),
            models: self.models.clone(),
            generation: Some(self.identity.generation()),
            fingerprint: (self.fingerprint)(),
            max_concurrency: Some(self.max_concurrency),
            nonce: Some(self.identity.nonce.clone()),
            token: Some(self.token.clone()),
            state: (phase != Phase::Serving).then_some(NodeState::Draining),
            protocol: Some(PROTOCOL),
        }
    }

    /// `backend.advertise`; else the bound address; else, bound to all, the one on the way to `proxy`.
    fn address_for(&self, proxy: SocketAddr) -> String {
        if let Some(advertise) = &self.advertise {
            return match advertise.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, self.traffic.port()).to_string(),
                Err(_) if has_port(advertise) => advertise.clone(),
                Err(_) => format!("{advertise}:{}", self.traffic.port()),
            };
        }
        let ip = match self.traffic.ip() {
            ip if ip.is_unspecified() => local_ip_towards(proxy).unwrap_or(ip),
            ip => ip,
        };
        SocketAddr::new(ip, self.traffic.port()).to_string()
    }
}

fn has_port(advertise: &str) -> bool {
    advertise.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The local address that the route to `peer` starts from. Connecting a datagram socket sends nothing.
fn local_ip_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn announcer(traffic: &str, advertise: Option<&str>) -> Announcer {
        Announcer {
            identity: Arc::new(NodeIdentity::new(&Config::default())),
            traffic: traffic.parse().expect("an address"),
            operations: ([127, 0, 0, 1], 6100).into(),
            advertise: advertise.map(String::from),
            models: Vec::new(),
            fingerprint: Box::new(|| None),
            max_concurrency: 1,
            token: Token::new("t"),
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn each_proxy_is_told_an_address_it_can_reach() {
        let proxy: SocketAddr = ([127, 0, 0, 1], 6100).into();
        let told = |traffic, advertise| announcer(traffic, advertise).address_for(proxy);
        assert_eq!(told("127.0.0.1:9", None), "127.0.0.1:9");
        assert_eq!(told("0.0.0.0:9", None), "127.0.0.1:9");
        assert_eq!(told("0.0.0.0:9", Some("gpu-1")), "gpu-1:9");
        assert_eq!(told("0.0.0.0:9", Some("gpu-1:80")), "gpu-1:80");
        assert_eq!(told("0.0.0.0:9", Some("[fd00::1]:80")), "[fd00::1]:80");
        assert_eq!(told("0.0.0.0:9", Some("fd00::1")), "[fd00::1]:9");
    }

    #[test]
    fn tries_are_spaced_1_2_4_8_for_ever() {
        let pauses: Vec<u64> = (0..6).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
        assert_eq!(backoff(u32::MAX).as_secs(), 8);
    }

    #[test]
    fn renewals_are_spread() {
        let third = Duration::from_millis(3_333);
        for _ in 0..100 {
            let pause = jittered(third);
            assert!(pause >= third.mul_f64(0.9) && pause <= third.mul_f64(1.1), "{pause:?}");
        }
    }

    /// A proxy that takes registrations, and its address.
    async fn proxy() -> crate::OperationsServer {
        let any = ([127, 0, 0, 1], 0).into();
        let server = crate::OperationsServer::new(crate::MetricsCollector::new(), any);
        let registry = crate::registration::registry::Registry::new(
            &Config::default(),
            server.connected_peers(),
        );
        let taken = crate::operations_server::Registrations::Taken(registry);
        server.with_registrations(taken).start().await.expect("starts")
    }

    fn keeper(proxies: &[SocketAddr]) -> Keeper {
        let lease = || Lease { instance: None, failures: 0, due: Instant::now() };
        Keeper {
            announcer: Arc::new(announcer("127.0.0.1:9", None)),
            proxy: "name.invalid:6100".into(),
            client: OperationsClient::new(Duration::from_millis(200)),
            connected: Arc::default(),
            proxies: proxies.iter().map(|proxy| (*proxy, lease())).collect(),
        }
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_answer_delays_no_other() {
        let healthy = proxy().await.bind_addr();
        // It accepts, by the kernel's queue, and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let silent = silent.local_addr().expect("bound");
        let mut keeper = keeper(&[healthy, silent]);
        keeper.announce(Phase::Serving, false).await;
        let due = keeper.proxies[&healthy].due;
        assert!(keeper.proxies[&healthy].instance.is_some());
        assert!(keeper.proxies[&silent].instance.is_none());
        assert_eq!(keeper.connected.load(Relaxed), 1);
        assert_eq!(keeper.next_due(), keeper.proxies[&silent].due, "each has its own time");
        keeper.proxies.get_mut(&silent).expect("known").due = Instant::now();
        keeper.announce(Phase::Serving, false).await;
        assert_eq!(keeper.proxies[&healthy].due, due, "the healthy one was not due");
        assert_eq!(keeper.proxies[&silent].failures, 2);
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_costs_no_lease() {
        let healthy = proxy().await.bind_addr();
        let mut keeper = keeper(&[healthy]);
        keeper.resolve().await;
        keeper.announce(Phase::Serving, false).await;
        assert!(keeper.proxies[&healthy].instance.is_some());
    }
}
