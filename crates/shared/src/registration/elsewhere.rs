//! `/registration` of a node that takes no leases: proxies may introduce themselves, everyone else is
//! told where to go.

use super::{
    lease::Introductions,
    policy, resolve,
    wire::{CAPABILITY_TLS, NodeType, Peers, Refusal, Registered, Registration, Status},
};
use crate::{
    config::RegistrationConfig,
    endpoint::{Endpoint, host_of},
    identity::NodeIdentity,
};
use ipnet::IpNet;
use std::net::SocketAddr;

/// An introduction is repeated as a lease of this length is renewed, so that a node that restarts
/// soon hears of the proxy again.
const INTRODUCTION_MS: u64 = 10_000;

/// How a node answers that is no proxy.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    introductions: Option<Introductions>,
    instance: String,
    allowed_networks: Vec<IpNet>,
    loopback_only: bool,
}

impl Elsewhere {
    /// For the node `identity`: who introduces itself is told to `introductions`.
    pub fn new(
        config: &RegistrationConfig,
        identity: &NodeIdentity,
        introductions: Introductions,
    ) -> Self {
        Self {
            introductions: Some(introductions),
            instance: identity.nonce.clone(),
            allowed_networks: config.allowed_networks.clone(),
            loopback_only: config.is_loopback_only(),
        }
    }

    /// A proxy that introduces itself is registered with; anyone else gets the proxies to use.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn register(&self, registration: Registration) -> Result<Registered, Refusal> {
        let introductions =
            self.introductions.as_ref().filter(|_| registration.node_type == Some(NodeType::Proxy));
        let Some(introductions) = introductions else { return Err(self.refusal()) };
        let address = resolve::address(&registration.address, None).await?;
        let operations = SocketAddr::new(address.ip(), registration.metrics_port);
        policy::check_address(operations, &self.allowed_networks, self.loopback_only)?;
        let speaks_tls = registration.capabilities.iter().any(|word| word == CAPABILITY_TLS);
        let tls = speaks_tls.then(|| host_of(&registration.address).to_owned());
        introductions.introduce(Endpoint { address: operations, tls });
        Ok(Registered {
            status: Status::Registered,
            lease_ms: INTRODUCTION_MS,
            instance: self.instance.clone(),
            peers: Vec::new(),
        })
    }

    /// What every goodbye and every backend's registration gets.
    pub fn refusal(&self) -> Refusal {
        let proxies = self.peers().proxies.into_iter().map(|proxy| proxy.operations);
        Refusal::Conflict {
            message: "this node takes no registrations; register with a proxy".into(),
            generation: None,
            proxies: proxies.collect(),
            instance: Some(self.instance.clone()),
        }
    }

    /// No members, but the proxies that this node registers with.
    pub fn peers(&self) -> Peers {
        let proxies = self.introductions.as_ref().map(Introductions::shown).unwrap_or_default();
        Peers { peers: Vec::new(), proxies }
    }
}
