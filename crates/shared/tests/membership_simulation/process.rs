//! A running process: the book of its leases, and in a proxy the members.

use crate::{network::Site, oracle::Oracle, world::Event};
use inferno_shared::{
    NodeVitals,
    endpoint::Endpoint,
    membership::{Announcement, Generation, Membership, ModelRef, NodeType, Rules, Target, Time},
    registration::lease::book::{Book, Phase, Standing},
    vitals::ServiceState,
};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// The lease that all proxies of the simulation give, as by default.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How long a proxy shows who is gone.
pub(crate) const RETENTION: Duration = Duration::from_secs(30);

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Of a book: it announced a phase to a proxy.
    Announcement { proxy: SocketAddr, standing: Standing },
    /// Of a proxy: an ordinary check.
    Check(Target),
    /// Of a proxy: the holder of an id is asked whether it lives, because another claims the id.
    Proof { holder: Target, claim: Box<Claim> },
}

/// A registration whose id is contested.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) from: Site,
    pub(crate) request: u64,
    pub(crate) announcement: Announcement,
}

/// One incarnation.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: String,
    pub(crate) node_type: NodeType,
    pub(crate) site: Site,
    pub(crate) generation: Generation,
    pub(crate) nonce: String,
    pub(crate) started: Time,
    pub(crate) book: Book,
    pub(crate) phase: Phase,
    /// It can serve.
    pub(crate) ready: bool,
    /// What came while it was paused; none: it runs.
    pub(crate) paused: Option<Vec<Event>>,
    pub(crate) pending: HashMap<u64, Pending>,
    /// When its next wake-up is planned.
    pub(crate) wake: Option<Time>,
    /// The members, in a proxy.
    pub(crate) members: Option<Box<Members>>,
}

/// A proxy's side, and the witness of it.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) membership: Membership,
    pub(crate) oracle: Oracle,
    pub(crate) next_tick: Time,
}

impl Members {
    pub(crate) fn new() -> Self {
        let interval = Duration::from_secs(1);
        let rules = Rules { lease: LEASE, interval, retention: RETENTION, nodes_max: 10_000 };
        Self {
            membership: Membership::new(rules),
            oracle: Oracle::default(),
            next_tick: Duration::ZERO,
        }
    }
}

impl Process {
    /// The time as this process tells it: since its start.
    pub(crate) fn local(&self, now: Time) -> Time {
        now - self.started
    }

    /// What proxies must know of it.
    pub(crate) fn standing(&self) -> Standing {
        Standing { phase: self.phase, generation: self.generation, edition: 0 }
    }

    /// What it registers with.
    pub(crate) fn announcement(&self) -> Announcement {
        Announcement {
            id: self.id.clone(),
            node_type: self.node_type,
            address: traffic(self.site),
            operations: Endpoint::plain(address(self.site)),
            generation: Some(self.generation),
            nonce: Some(self.nonce.clone()),
            token: None,
            models: vec![ModelRef { id: "m".into(), sha256: None }],
            capabilities: Vec::new(),
            fingerprint: None,
            max_concurrency: None,
            draining: self.phase == Phase::Draining,
        }
    }

    /// What it says of itself at `/metrics`.
    pub(crate) fn vitals(&self) -> NodeVitals {
        let draining = self.phase == Phase::Draining;
        let state = match self.ready {
            _ if draining => ServiceState::Draining,
            true => ServiceState::Ready,
            false => ServiceState::Loading,
        };
        NodeVitals {
            node_id: self.id.clone(),
            nonce: self.nonce.clone(),
            generation: self.generation,
            ready: self.ready && !draining,
            state,
            ..NodeVitals::default()
        }
    }
}

/// Where the operations server of whatever runs at `site` answers.
pub(crate) fn address(site: Site) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(site).expect("few sites").to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(10, 0, high, low).into(), 6100)
}

/// Where it takes traffic.
pub(crate) fn traffic(site: Site) -> SocketAddr {
    SocketAddr::new(address(site).ip(), 8080)
}

/// The site at that address.
pub(crate) fn site(address: SocketAddr) -> Site {
    match address.ip() {
        std::net::IpAddr::V4(ip) => {
            let [_, _, high, low] = ip.octets();
            usize::from(high) << 8 | usize::from(low)
        }
        std::net::IpAddr::V6(_) => unreachable!("no site has one"),
    }
}
