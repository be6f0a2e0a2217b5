//! Variables that container platforms inject beside a service called `inferno-something`.
//!
//! Kubernetes puts the address of each service of the namespace into each container
//! (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>),
//! Docker the address and the whole environment of each linked container
//! (<https://docs.docker.com/engine/network/links/#environment-variables>). Nobody meant them for
//! us. Shape and value are both looked at, so that a mistyped variable of ours does not pass for one.

use std::{collections::BTreeMap, net::IpAddr};

/// Whether a platform put `name` into the environment `all`.
pub(super) fn is_injected(name: &str, all: &BTreeMap<String, String>) -> bool {
    let Some(value) = all.get(name) else { return false };
    // `__` separates levels of ours; no service's name makes one.
    !name.contains("__")
        && (is_service(name, value) || is_port(name, value) || is_docker_link(name, value, all))
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_SERVICE_PORT_<name>`
fn is_service(name: &str, value: &str) -> bool {
    let port = name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    (name.ends_with("_SERVICE_HOST") && value.parse::<IpAddr>().is_ok())
        || (port && value.parse::<u16>().is_ok())
}

/// `X_PORT`, `X_PORT_<n>_<PROTO>` and its parts.
fn is_port(name: &str, value: &str) -> bool {
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    let mut rests = name.match_indices("_PORT_").map(|(at, found)| &name[at + found.len()..]);
    rests.any(|rest| {
        let mut parts = rest.splitn(3, '_');
        let number = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        number && protocol && is_part(parts.next(), value)
    })
}

/// What follows `X_PORT_<n>_<PROTO>`; Docker adds `START` and `END` for ranges of ports.
fn is_part(part: Option<&str>, value: &str) -> bool {
    match part {
        None | Some("START" | "END") => is_url(value),
        Some("PORT" | "PORT_START" | "PORT_END") => value.parse::<u16>().is_ok(),
        Some("PROTO") => matches!(value, "tcp" | "udp" | "sctp"),
        Some("ADDR") => value.parse::<IpAddr>().is_ok(),
        Some(_) => false,
    }
}

fn is_url(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// `X_NAME=/us/them`, and beside it `X_ENV_<anything>`.
fn is_docker_link(name: &str, value: &str, all: &BTreeMap<String, String>) -> bool {
    let is_name = |value: &str| value.starts_with('/') && value[1..].contains('/');
    if name.ends_with("_NAME") {
        return is_name(value);
    }
    name.match_indices("_ENV_").any(|(at, _)| {
        all.get(&format!("{}_NAME", &name[..at])).is_some_and(|value| is_name(value))
    })
}
