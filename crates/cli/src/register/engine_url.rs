//! Where an engine is, as its user writes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use inferno_shared::endpoint::host_of;

/// What a proxy would have to speak, and does not.
const PLAIN_ONLY: &str = "proxies speak plain HTTP to engines: give the engine's http:// address \
     (without a certificate, on a private network), or one of something before it that ends TLS";

/// An engine: `http://host:port`, with or without the `/v1` that clients of the API write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineUrl {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// No address of an engine that a proxy could use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineUrlError {
    #[error("{PLAIN_ONLY}")]
    Https,
    #[error("give http://HOST:PORT, not {0}://")]
    Scheme(String),
    #[error(
        "proxies send /v1/… to the engine as clients wrote it: it cannot have the path /{0} before it"
    )]
    Path(String),
    #[error("proxies send engines no credentials: give http://HOST:PORT without a user")]
    Credentials,
    #[error("it is not http://HOST:PORT")]
    Malformed,
}

impl FromStr for EngineUrl {
    type Err = EngineUrlError;

    fn from_str(text: &str) -> Result<Self, EngineUrlError> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(EngineUrlError::Https);
            }
            Some((scheme, _)) => return Err(EngineUrlError::Scheme(scheme.into())),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(EngineUrlError::Credentials);
        }
        match path.trim_end_matches('/') {
            "" | "v1" => {}
            path => return Err(EngineUrlError::Path(path.into())),
        }
        let (host, port) = split(authority).ok_or(EngineUrlError::Malformed)?;
        Ok(Self { host: host.into(), port })
    }
}

/// Host and port, 80 without one.
fn split(authority: &str) -> Option<(&str, u16)> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let has_port = match authority.rsplit_once(':') {
        Some((host, _)) => !host.contains(':') || host.ends_with(']'),
        None => false,
    };
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if has_port => port.parse().ok().filter(|port| *port != 0)?,
        _ => 80,
    };
    let bracketed = authority.starts_with('[');
    let host = match has_port {
        true => host_of(authority),
        false => {
            authority.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(authority)
        }
    };
    let valid = match bracketed {
        true => host.parse::<Ipv6Addr>().is_ok(),
        false => !host.is_empty() && host.chars().all(of_name),
    };
    valid.then_some((host, port))
}

impl EngineUrl {
    /// Where it is, as far as that is certain before anybody looked: an address, or this machine's own name.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        let ip = match self.host.as_str() {
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            host => host.parse().ok()?,
        };
        Some(SocketAddr::new(ip, self.port))
    }

    /// It was written as 0.0.0.0 or [::], as engines print it that listen on every address they have.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// What to connect to from here.
    pub(crate) fn target(&self) -> (String, u16) {
        let host = match self.host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            _ => self.host.clone(),
        };
        (host, self.port)
    }

    /// What its requests name as their host.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_copy_from_their_engine_is_understood() {
        for (text, shown) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
            ("http://localhost:11434/v1", "http://localhost:11434"),
            ("HTTP://gpu-1.rack_3:30000/v1/", "http://gpu-1.rack_3:30000"),
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://engine", "http://engine:80"),
            ("http://[::1]:8000/v1", "http://[::1]:8000"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            let url: EngineUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_a_proxy_could_not_use_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<EngineUrl>().expect_err(text);
        assert_eq!(refused("https://engine:8000"), EngineUrlError::Https);
        assert!(refused("https://engine").to_string().contains("plain HTTP"));
        assert_eq!(refused("grpc://engine:1"), EngineUrlError::Scheme("grpc".into()));
        assert_eq!(refused("http://e:1/api/v1"), EngineUrlError::Path("api/v1".into()));
        assert_eq!(refused("http://user:key@e:1"), EngineUrlError::Credentials);
        for text in ["", "http://", "http://e:", "http://e:0", "http://e:99999", "http://:1"] {
            assert_eq!(refused(text), EngineUrlError::Malformed, "{text}");
        }
        for text in ["http://::1:8000", "http://[e]:1", "http://e?x=1", "http://a b:1"] {
            assert_eq!(refused(text), EngineUrlError::Malformed, "{text}");
        }
    }

    #[test]
    fn an_engine_everywhere_is_asked_on_loopback() {
        let url: EngineUrl = "http://0.0.0.0:8000".parse().expect("an address");
        assert!(url.is_everywhere());
        assert_eq!(url.target(), ("127.0.0.1".into(), 8000));
        let name: EngineUrl = "http://gpu-1:8000".parse().expect("a name");
        assert!(!name.is_everywhere() && name.literal().is_none());
    }
}
