//! Which addresses may register, and which callers.

use super::{secrets::Secrets, wire::Refusal};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Addresses of cloud metadata services: whoever registers one wants our requests sent there.
const METADATA: &[&str] = &["169.254.169.254", "fd00:ec2::254", "100.100.100.200"];

/// Whether `caller`, presenting `bearer`, may speak at all.
pub fn authorize(
    caller: IpAddr,
    bearer: Option<&str>,
    secrets: &Secrets,
    allow_unauthenticated: bool,
) -> Result<(), Refusal> {
    if secrets.is_empty() {
        return if caller.to_canonical().is_loopback() || allow_unauthenticated {
            Ok(())
        } else {
            Err(Refusal::Forbidden(
                "without a secret (registration.secret_file) only loopback callers may register"
                    .into(),
            ))
        };
    }
    match bearer {
        Some(presented) if secrets.accept(presented) => Ok(()),
        Some(_) => Err(Refusal::Unauthorized("the registration secret is wrong".into())),
        None => Err(Refusal::Unauthorized(
            "a registration secret is needed: Authorization: Bearer <secret>".into(),
        )),
    }
}

/// Whether traffic may be sent to `address` because someone registered it.
pub fn check_address(
    address: SocketAddr,
    allowed: &[IpNet],
    loopback_only: bool,
) -> Result<(), Refusal> {
    let ip = address.ip().to_canonical();
    let refuse = |why: &str| Err(Refusal::Forbidden(format!("address {address}: {why}")));
    if address.port() == 0 {
        return refuse("port 0");
    }
    if ip.is_unspecified() || ip.is_multicast() || is_link_local(ip) || is_metadata(ip) {
        return refuse("unspecified, multicast, link-local and metadata addresses are refused");
    }
    if loopback_only && !ip.is_loopback() {
        return refuse(
            "without a secret (registration.secret_file) only loopback addresses may register",
        );
    }
    if !allowed.iter().any(|network| network.contains(&ip)) {
        return refuse("outside registration.allowed_networks");
    }
    Ok(())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_metadata(ip: IpAddr) -> bool {
    METADATA.iter().filter_map(|text| text.parse::<IpAddr>().ok()).any(|metadata| metadata == ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistrationConfig;

    fn allowed(address: &str, loopback_only: bool) -> bool {
        let networks = RegistrationConfig::default().allowed_networks;
        check_address(address.parse().expect("an address"), &networks, loopback_only).is_ok()
    }

    #[test]
    fn private_and_loopback_addresses_may_register() {
        for address in ["127.0.0.1:1", "[::1]:1", "10.1.2.3:8080", "192.168.0.9:1", "[fd12::1]:1"] {
            assert!(allowed(address, false), "{address}");
        }
    }

    #[test]
    fn addresses_that_would_misuse_us_are_refused() {
        for address in [
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "169.254.1.1:1",
            "169.254.169.254:80",
            "[fe80::1]:1",
            "[fd00:ec2::254]:80",
            "8.8.8.8:1",
            "10.0.0.1:0",
            "[::ffff:169.254.169.254]:80",
            "255.255.255.255:1",
            "[ff02::1]:1",
            "100.100.100.200:80",
        ] {
            assert!(!allowed(address, false), "{address}");
        }
    }

    #[test]
    fn without_a_secret_only_loopback_may() {
        assert!(allowed("127.0.0.1:1", true) && !allowed("10.0.0.1:1", true));
        let none = Secrets::default();
        let local: IpAddr = [127, 0, 0, 1].into();
        let remote: IpAddr = [10, 0, 0, 1].into();
        assert!(authorize(local, None, &none, false).is_ok());
        assert!(authorize(remote, None, &none, false).is_err());
        assert!(authorize(remote, None, &none, true).is_ok());
    }

    #[test]
    fn with_a_secret_everyone_needs_it() {
        let secrets = Secrets::from_values(["first", "second"]);
        let local: IpAddr = [127, 0, 0, 1].into();
        assert!(authorize(local, None, &secrets, true).is_err());
        assert!(authorize(local, Some("wrong"), &secrets, true).is_err());
        assert!(authorize(local, Some("first"), &secrets, false).is_ok());
        assert!(authorize(local, Some("second"), &secrets, false).is_ok());
    }
}
