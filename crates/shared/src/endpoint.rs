//! Where an operations server answers, and whether it speaks TLS.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// An operations server: where to connect, and the name its certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// It speaks TLS with a certificate for this host name or address; none: plain HTTP.
    pub tls: Option<String>,
}

impl Endpoint {
    /// A server that speaks plain HTTP.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// `ADDRESS:PORT` or `https://ADDRESS:PORT`, where nothing has to be resolved.
    pub fn parse_literal(text: &str) -> Option<Self> {
        let location: Location = text.parse().ok()?;
        let address = location.host_port.parse().ok()?;
        Some(location.endpoint(address, false))
    }

    /// What [`Endpoint::parse_literal`] reads.
    pub fn to_literal(&self) -> String {
        let scheme = if self.tls.is_some() { "https://" } else { "" };
        format!("{scheme}{}", self.address)
    }

    /// A server at `address` that speaks TLS as `host`.
    pub fn tls(address: SocketAddr, host: impl Into<String>) -> Self {
        Self { address, tls: Some(host.into()) }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::plain(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls {
            None => self.address.fmt(f),
            Some(host) if host.parse::<IpAddr>().is_ok() => write!(f, "https://{}", self.address),
            Some(host) => write!(f, "https://{host} ({})", self.address),
        }
    }
}

/// An operations server as configured: `host:port`, `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `host:port`, to be resolved.
    pub host_port: String,
    /// Whether to speak TLS; none: as this node's own operations server does.
    pub tls: Option<bool>,
}

/// Not a place where an operations server could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT or https://HOST:PORT")]
pub struct LocationError(String);

impl std::str::FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let (tls, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => return Err(LocationError(text.into())),
        };
        let host_port = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_port.rsplit_once(':').ok_or_else(|| LocationError(text.into()))?;
        let port_is_one = port.parse::<u16>().is_ok_and(|port| port != 0);
        // An address of version 6 without its brackets would lose its last group to the port.
        let host_is_one = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
        if !port_is_one || !host_is_one || host.contains(['/', '@', ' ']) {
            return Err(LocationError(text.into()));
        }
        Ok(Self { host_port: host_port.into(), tls })
    }
}

impl Location {
    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        host_of(&self.host_port)
    }

    /// One of the addresses behind it; `default_tls` where the text does not say.
    pub fn endpoint(&self, address: SocketAddr, default_tls: bool) -> Endpoint {
        let tls = self.tls.unwrap_or(default_tls).then(|| self.host().to_owned());
        Endpoint { address, tls }
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host_of(host_port: &str) -> &str {
    let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_host_and_a_port_with_or_without_a_scheme() {
        for (text, host, tls) in [
            ("proxy:6100", "proxy", None),
            ("https://proxy.internal:6100", "proxy.internal", Some(true)),
            ("http://10.0.0.1:6100/", "10.0.0.1", Some(false)),
            ("[fd00::1]:6100", "fd00::1", None),
        ] {
            let location: Location = text.parse().expect(text);
            assert_eq!((location.host(), location.tls), (host, tls), "{text}");
        }
        for text in [
            "proxy",
            "proxy:",
            ":6100",
            "proxy:0",
            "ftp://a:1",
            "fd00::1:6100",
            "a/b:1",
            "u@a:1",
            "",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_prints_what_to_look_for() {
        let address: SocketAddr = ([10, 0, 0, 1], 6100).into();
        assert_eq!(Endpoint::plain(address).to_string(), "10.0.0.1:6100");
        assert_eq!(Endpoint::tls(address, "10.0.0.1").to_string(), "https://10.0.0.1:6100");
        assert_eq!(Endpoint::tls(address, "a.b").to_string(), "https://a.b (10.0.0.1:6100)");
    }
}
