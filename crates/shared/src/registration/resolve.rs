//! From the address a node gave to one that can be connected to.

use super::wire::Refusal;
use std::net::SocketAddr;

/// An address behind `host:port`: the one the node is known by if that is among them, else the first.
pub(super) async fn address(
    host_port: &str,
    known: Option<SocketAddr>,
) -> Result<SocketAddr, Refusal> {
    if let Ok(literal) = host_port.parse() {
        return Ok(literal);
    }
    let unusable = |why: String| Refusal::Malformed(format!("address `{host_port}`: {why}"));
    let found: Vec<SocketAddr> = tokio::net::lookup_host(host_port)
        .await
        .map_err(|error| unusable(error.to_string()))?
        .collect();
    let same = known.filter(|known| found.contains(known));
    same.or(found.first().copied()).ok_or_else(|| unusable("has no address".into()))
}
