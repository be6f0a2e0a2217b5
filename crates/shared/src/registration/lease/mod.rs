//! A node's side of registration: one lease with each proxy, renewed until the process ends.
//!
//! [`book`] decides whom to tell and when, [`announcer`] what; here is the task that asks.

mod announcer;
pub mod book;
mod introductions;

pub use announcer::{Announcer, local_ip_towards};
pub use introductions::{Introduced, Introductions, introductions};

use super::{policy, wire::Peer};
use crate::{
    endpoint::{Endpoint, Location},
    identity::random_hex,
    membership::Goodbye,
    operations_client::{ClientError, OperationsClient},
    tls::ClientTls,
};
use arc_swap::ArcSwap;
use book::{Book, LeaseView, News, Outcome, Phase, Standing};
use futures_util::future::join_all;
use ipnet::IpNet;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// How long one registration may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A name is resolved again about as often as a lease of the default length is renewed.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(3);

/// Whom a node registers with.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// As configured: every address behind each of them.
    pub configured: Vec<Location>,
    /// Where proxies may live that others tell of.
    pub allowed_networks: Vec<IpNet>,
    /// Without a secret, only loopback is believed.
    pub loopback_only: bool,
    /// Whom to trust.
    pub tls: ClientTls,
    /// Speak TLS where a location does not say.
    pub default_tls: bool,
}

/// What the task is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orders {
    phase: Phase,
    /// Grows when the announcer has something new to say.
    edition: u64,
    leave: bool,
}

/// The running leases of one node.
#[derive(Debug)]
pub struct Leases {
    orders: watch::Sender<Orders>,
    /// The phase that every proxy with a lease of ours knows.
    told: watch::Receiver<Phase>,
    task: JoinHandle<()>,
}

impl Leases {
    /// Begins to register with `proxies` and with those that are `introduced`, and goes on until
    /// [`Leases::leave`]. `connected` counts the proxies that hold a lease of ours.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(
        announcer: Announcer,
        proxies: Proxies,
        introduced: Introduced,
        connected: Arc<AtomicU32>,
    ) -> Self {
        let serving = Orders { phase: Phase::Serving, edition: 0, leave: false };
        let (orders, ordered) = watch::channel(serving);
        let (telling, told) = watch::channel(Phase::Serving);
        let keeper = Keeper {
            book: Book::new(announcer.identity.nonce.clone()),
            client: OperationsClient::new(TIMEOUT).with_tls(proxies.tls.clone()),
            announcer: Arc::new(announcer),
            proxies,
            connected,
            view: introduced.view,
            telling,
            origin: Instant::now(),
            announcements: JoinSet::new(),
            resolutions: JoinSet::new(),
        };
        let task = tokio::spawn(keeper.run(ordered, introduced.receiver));
        Self { orders, told, task }
    }

    /// Tells every proxy, now, what the announcer says: that has changed.
    pub fn announce_anew(&self) {
        self.orders.send_modify(|orders| orders.edition += 1);
    }

    /// Tells every proxy, now, that no new requests are wanted.
    pub fn drain(&self) {
        self.orders.send_modify(|orders| orders.phase = Phase::Draining);
    }

    /// After [`Leases::drain`]: resolves when every proxy with a lease of ours has heard it, or could not be
    /// reached in time.
    pub async fn drained(&self) {
        let mut told = self.told.clone();
        let heard = told.wait_for(|phase| *phase == Phase::Draining);
        if tokio::time::timeout(TIMEOUT, heard).await.is_err() {
            tracing::debug!("not every proxy heard that this node drains");
        }
    }

    /// Tells every proxy goodbye; waits until they heard it, or could not be reached in time.
    pub async fn leave(self) {
        self.orders.send_modify(|orders| orders.leave = true);
        // An announcement under way, then the goodbye itself.
        if tokio::time::timeout(2 * TIMEOUT, self.task).await.is_err() {
            tracing::debug!("not every proxy heard the goodbye; the leases will end by themselves");
        }
    }
}

/// The task that keeps the leases.
struct Keeper {
    book: Book,
    client: OperationsClient,
    announcer: Arc<Announcer>,
    proxies: Proxies,
    connected: Arc<AtomicU32>,
    view: Arc<ArcSwap<Vec<LeaseView>>>,
    telling: watch::Sender<Phase>,
    origin: Instant,
    announcements: JoinSet<Announced>,
    resolutions: JoinSet<Resolved>,
}

/// An announcement that came back.
struct Announced {
    endpoint: Endpoint,
    standing: Standing,
    outcome: Result<Outcome, ClientError>,
}

/// A name that was looked up.
struct Resolved {
    name: usize,
    found: std::io::Result<Vec<SocketAddr>>,
}

impl Keeper {
    async fn run(
        mut self,
        mut orders: watch::Receiver<Orders>,
        mut introduced: mpsc::Receiver<Endpoint>,
    ) {
        for name in 0..self.proxies.configured.len() {
            self.resolve(name, Duration::ZERO);
        }
        loop {
            let Orders { phase, edition, leave } = *orders.borrow_and_update();
            if leave {
                break;
            }
            let generation = self.announcer.identity.generation();
            let standing = Standing { phase, generation, edition };
            self.announce(standing);
            self.show();
            if self.book.has_told(standing) {
                self.telling.send_replace(phase);
            }
            tokio::select! {
                Some(Ok(announced)) = self.announcements.join_next() => self.announced(announced),
                Some(Ok(resolved)) = self.resolutions.join_next() => self.resolved(resolved),
                Some(proxy) = introduced.recv() => self.learn(&proxy),
                () = sleep_until(self.book.next_due(standing).map(|due| self.origin + due)) => {}
                changed = orders.changed() => if changed.is_err() { break },
            }
        }
        self.leave().await;
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Looks a name up after a pause. While it does not resolve, the known addresses stay: a name
    /// server's failure must not cost a healthy node its lease.
    fn resolve(&mut self, name: usize, pause: Duration) {
        let host_port = self.proxies.configured[name].host_port.clone();
        self.resolutions.spawn(async move {
            tokio::time::sleep(pause).await;
            let found = tokio::net::lookup_host(&host_port).await;
            Resolved { name, found: found.map(Iterator::collect) }
        });
    }

    fn resolved(&mut self, Resolved { name, found }: Resolved) {
        let location = &self.proxies.configured[name];
        match found {
            Ok(addresses) => {
                let default_tls = self.proxies.default_tls;
                let endpoints: Vec<_> =
                    addresses.iter().map(|at| location.endpoint(*at, default_tls)).collect();
                self.book.resolved(self.origin.elapsed(), name, &endpoints);
            }
            Err(error) => {
                tracing::warn!(proxy = %location.host_port, %error, "the proxy's name does not resolve");
            }
        }
        self.resolve(name, RESOLVE_INTERVAL);
    }

    /// A proxy introduced itself, or someone else told of it.
    fn learn(&mut self, proxy: &Endpoint) {
        if self.may_be_asked(proxy) {
            self.book.learned(self.now(), proxy);
        }
    }

    /// Whom others tell of is believed within the allowed networks only.
    fn may_be_asked(&self, proxy: &Endpoint) -> bool {
        let Proxies { allowed_networks, loopback_only, .. } = &self.proxies;
        let allowed = policy::check_address(proxy.address, allowed_networks, *loopback_only);
        if let Err(refusal) = &allowed {
            tracing::debug!(%proxy, %refusal, "a proxy we were told of is not asked");
        }
        allowed.is_ok()
    }

    /// Registers with every proxy whose time has come, side by side: one that does not answer
    /// delays none that does.
    fn announce(&mut self, standing: Standing) {
        for announce in self.book.start_due(self.now(), standing) {
            let (announcer, client) = (Arc::clone(&self.announcer), self.client.clone());
            self.announcements.spawn(async move {
                let endpoint = announce.endpoint;
                let registration = announcer.registration(&endpoint, standing, announce.known);
                let secret = announcer.secrets.first();
                let answer =
                    client.register(endpoint.clone(), &registration, secret.as_deref()).await;
                let outcome = answer.map(|held| Outcome::Held {
                    instance: held.instance,
                    lease: Duration::from_millis(held.lease_ms),
                    peers: held.peers.iter().map(Peer::endpoint).collect(),
                });
                Announced { endpoint, standing, outcome }
            });
        }
    }

    fn announced(&mut self, Announced { endpoint, standing, outcome }: Announced) {
        let (mut outcome, error) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(error) => (self.meaning(&error), Some(error)),
        };
        if let Outcome::Held { peers, .. } = &mut outcome {
            peers.retain(|peer| self.may_be_asked(peer));
        }
        let now = self.now();
        match self.book.finished(now, endpoint.address, standing, outcome, chance()) {
            News::Registered => tracing::info!(proxy = %endpoint, "registered with proxy"),
            News::Nothing => {}
            News::Failure { retry, covered } => {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                // Who is leaving anyway, or is registered by another address, makes no noise.
                if standing.phase == Phase::Serving && !covered {
                    tracing::warn!(proxy = %endpoint, %error, retry_ms, "registration failed");
                } else {
                    tracing::debug!(proxy = %endpoint, %error, retry_ms, "registration failed");
                }
            }
        }
    }

    /// A refusal that names a newer generation of us (our clock went back) makes us newer; one that
    /// names proxies to use comes from a node that is none.
    fn meaning(&mut self, error: &ClientError) -> Outcome {
        let ClientError::Answer { status, answer } = error else { return Outcome::Failed };
        for proxy in answer.proxies.iter().filter_map(|text| Endpoint::parse_literal(text)) {
            self.learn(&proxy);
        }
        match answer.generation {
            Some(current) => {
                self.announcer.identity.outgrow(current);
                Outcome::Outgrown
            }
            None if *status == http::StatusCode::CONFLICT => {
                Outcome::Refused { instance: answer.instance.clone() }
            }
            None => Outcome::Failed,
        }
    }

    /// Publishes what is known of the proxies.
    fn show(&self) {
        let view = self.book.view();
        let held = view.iter().filter(|lease| lease.instance.is_some()).count();
        self.connected.store(u32::try_from(held).unwrap_or(u32::MAX), Relaxed);
        self.view.store(Arc::new(view));
    }

    async fn leave(mut self) {
        // What is under way would come after the goodbye and undo it.
        while self.announcements.join_next().await.is_some() {}
        let identity = &self.announcer.identity;
        let secret = self.announcer.secrets.first();
        let (generation, nonce) = (Some(identity.generation()), Some(identity.nonce.clone()));
        let goodbye = Goodbye { generation, nonce };
        let goodbyes = self.book.held().into_iter().map(|proxy| {
            let left = self.client.leave(proxy.clone(), &identity.id, &goodbye, secret.as_deref());
            async move { (proxy, left.await) }
        });
        for (proxy, left) in join_all(goodbyes).await {
            if let Err(error) = left {
                tracing::debug!(%proxy, %error, "could not say goodbye; the lease will end by itself");
            }
        }
    }
}

/// Until that moment; for ever if there is none.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// In `[0, 1)`.
fn chance() -> f64 {
    f64::from(u32::from_str_radix(&random_hex(2), 16).unwrap_or(0)) / 65_536.0
}

#[cfg(test)]
mod tests;
