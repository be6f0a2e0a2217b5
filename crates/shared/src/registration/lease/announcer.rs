//! What a node says of itself, to each proxy in the terms that it can use.

use super::book::{Phase, Standing};
use crate::{
    endpoint::Endpoint,
    identity::NodeIdentity,
    membership::{ModelRef, NodeState, NodeType, Token},
    registration::{
        secrets::Secrets,
        wire::{Action, PROTOCOL, Registration},
    },
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
};

/// What a node says of itself.
pub struct Announcer {
    /// Who it is.
    pub identity: Arc<NodeIdentity>,
    /// What kind of node.
    pub node_type: NodeType,
    /// Where it takes traffic.
    pub traffic: SocketAddr,
    /// Where its operations server is bound.
    pub operations: SocketAddr,
    /// `host:port`, or a host, that overrides what each proxy is told.
    pub advertise: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// What it serves; when that changes, [`super::Leases::announce_anew`] tells it.
    pub models: Box<dyn Fn() -> Vec<ModelRef> + Send + Sync>,
    /// Equal fingerprints give equal tokens; none until the weights' hash is known.
    pub fingerprint: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Sequences it computes together.
    pub max_concurrency: Option<u32>,
    /// What it demands in each request.
    pub token: Option<Token>,
    /// The first is presented.
    pub secrets: Secrets,
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Announcer {
    pub(super) fn registration(
        &self,
        proxy: &Endpoint,
        standing: Standing,
        known: bool,
    ) -> Registration {
        Registration {
            id: self.identity.id.clone(),
            address: self.address_for(proxy.address),
            metrics_port: self.operations.port(),
            action: Some(if known { Action::Update } else { Action::Register }),
            node_type: Some(self.node_type),
            capabilities: self.capabilities.clone(),
            models: (self.models)(),
            generation: Some(standing.generation),
            fingerprint: (self.fingerprint)(),
            max_concurrency: self.max_concurrency,
            nonce: Some(self.identity.nonce.clone()),
            token: self.token.clone(),
            state: (standing.phase == Phase::Draining).then_some(NodeState::Draining),
            protocol: Some(PROTOCOL),
        }
    }

    /// What was configured; else the bound address; else, bound to all, the one on the way to `proxy`.
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
pub fn local_ip_towards(peer: SocketAddr) -> Option<IpAddr> {
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

    /// An announcer bound to `traffic`.
    fn announcer(traffic: &str, advertise: Option<&str>) -> Announcer {
        Announcer {
            identity: Arc::new(NodeIdentity::new(&Config::default())),
            node_type: NodeType::Backend,
            traffic: traffic.parse().expect("an address"),
            operations: ([127, 0, 0, 1], 6100).into(),
            advertise: advertise.map(String::from),
            capabilities: Vec::new(),
            models: Box::new(Vec::new),
            fingerprint: Box::new(|| None),
            max_concurrency: None,
            token: None,
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
}
