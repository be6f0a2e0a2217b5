//! Whether a proxy can come to the engine and to this process.
//!
//! A proxy believes a node once it has found the node's operations server at the host that traffic is
//! to go to. So this process must be where the engine is, and both must be where the proxy can come: what
//! could not work is told at the start. Pure but for [`Machine`].

use std::net::{IpAddr, SocketAddr, UdpSocket};

use inferno_shared::endpoint::host_of;
use inferno_shared::registration::lease::local_ip_towards;

/// Of operations servers; what is proposed where no port was given.
const DEFAULT_PORT: u16 = 6100;

/// A proxy could not come to the engine, or not to us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReachError {
    #[error(
        "the engine at {engine} is on this machine's loopback, where the proxy {proxy} on another machine cannot come; \
         if it listens on other addresses too (most engines: --host 0.0.0.0), write http://0.0.0.0:{}, or \
         --advertise {advice}",
        engine.port()
    )]
    EngineHidden { engine: SocketAddr, proxy: SocketAddr, advice: String },
    #[error(
        "the engine at {engine} is not on this machine, and proxies look for `inferno register` on the engine's host, \
         at the port of operations.addr: run it there, beside the engine; or --advertise HOST:PORT if connections to \
         the engine come by way of this machine"
    )]
    EngineElsewhere { engine: SocketAddr },
    #[error(
        "the proxy {proxy} looks for this process on the host it sends requests to ({wanted}), and it listens on \
         {bound} only: set --operations (operations.addr, INFERNO_OPERATIONS_ADDR), e.g. to 0.0.0.0:{port}"
    )]
    Operations { proxy: SocketAddr, wanted: IpAddr, bound: IpAddr, port: u16 },
}

/// What this machine's network says.
pub(crate) trait Machine {
    /// Whether that is an address of this machine.
    fn has(&self, ip: IpAddr) -> bool;
    /// Our address on the way to `proxy`.
    fn towards(&self, proxy: SocketAddr) -> Option<IpAddr>;
}

/// The machine that this runs on.
pub(crate) struct ThisMachine;

impl Machine for ThisMachine {
    fn has(&self, ip: IpAddr) -> bool {
        UdpSocket::bind((ip, 0)).is_ok()
    }

    fn towards(&self, proxy: SocketAddr) -> Option<IpAddr> {
        local_ip_towards(proxy)
    }
}

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// The engine; unspecified if it listens on every address.
    pub(crate) engine: SocketAddr,
    /// Our operations server, as configured; port 0 is any.
    pub(crate) operations: SocketAddr,
    /// What proxies are told in the engine's place.
    pub(crate) advertise: Option<&'a str>,
}

impl Places<'_> {
    /// Whether `proxy` can come to both.
    ///
    /// # Errors
    /// What to change.
    pub(crate) fn check(
        &self,
        proxy: SocketAddr,
        machine: &impl Machine,
    ) -> Result<(), ReachError> {
        let Self { engine, operations, advertise } = *self;
        let is_here = proxy.ip().is_loopback() || machine.has(proxy.ip());
        // Who advertises a name knows what it stands for where the proxy is; we do not.
        let told: Option<IpAddr> = match advertise {
            Some(advertise) => advertise.parse().or_else(|_| host_of(advertise).parse()).ok(),
            None if engine.ip().is_unspecified() => machine.towards(proxy),
            None => Some(engine.ip()),
        };
        if let Some(told) = told
            && told.is_loopback()
            && !is_here
        {
            let ip = machine.towards(proxy).filter(|ip| !ip.is_loopback());
            let port = engine.port();
            let advice = ip
                .map_or_else(|| format!("HOST:{port}"), |ip| SocketAddr::new(ip, port).to_string());
            return Err(ReachError::EngineHidden { engine, proxy, advice });
        }
        let told_is_ours = told.is_some_and(|told| machine.has(told));
        if advertise.is_none() && told.is_some() && !told_is_ours {
            return Err(ReachError::EngineElsewhere { engine });
        }
        let bound = operations.ip();
        let port = if operations.port() == 0 { DEFAULT_PORT } else { operations.port() };
        let hidden = match told {
            Some(told) if told_is_ours => !bound.is_unspecified() && bound != told,
            _ => bound.is_loopback() && !is_here,
        };
        if hidden {
            let wanted = told.or_else(|| machine.towards(proxy)).unwrap_or(proxy.ip());
            return Err(ReachError::Operations { proxy, wanted, bound, port });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.7, which reaches other machines from there.
    struct Host;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    impl Machine for Host {
        fn has(&self, ip: IpAddr) -> bool {
            ip.is_loopback() || ip == OWN
        }

        fn towards(&self, proxy: SocketAddr) -> Option<IpAddr> {
            Some(if proxy.ip().is_loopback() { proxy.ip() } else { OWN })
        }
    }

    fn check(engine: &str, operations: &str, advertise: Option<&str>, proxy: &str) -> String {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let places = Places { engine: address(engine), operations: address(operations), advertise };
        let checked = places.check(address(proxy), &Host);
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn everything_on_one_machine_works() {
        for (engine, operations, proxy) in [
            ("127.0.0.1:8000", "127.0.0.1:6101", "127.0.0.1:6100"),
            ("0.0.0.0:8000", "127.0.0.1:6101", "127.0.0.1:6100"),
            ("0.0.0.0:8000", "0.0.0.0:6101", "10.0.0.1:6100"),
            ("10.0.0.7:8000", "10.0.0.7:6101", "10.0.0.1:6100"),
            ("10.0.0.7:8000", "0.0.0.0:6101", "127.0.0.1:6100"),
            // By its outer address, but here all the same.
            ("127.0.0.1:8000", "127.0.0.1:6101", "10.0.0.7:6100"),
        ] {
            assert_eq!(check(engine, operations, None, proxy), "", "{engine} {operations} {proxy}");
        }
    }

    #[test]
    fn a_hidden_engine_is_told_with_the_way_out() {
        let error = check("127.0.0.1:8000", "0.0.0.0:6101", None, "10.0.0.1:6100");
        assert!(
            error.contains("http://0.0.0.0:8000") && error.contains("--advertise 10.0.0.7:8000")
        );
        assert_eq!(
            check("127.0.0.1:8000", "0.0.0.0:6101", Some("10.0.0.7:8000"), "10.0.0.1:1"),
            ""
        );
        let error = check("127.0.0.1:8000", "0.0.0.0:6101", Some("127.0.0.1"), "10.0.0.1:6100");
        assert!(error.contains("cannot come"), "{error}");
    }

    #[test]
    fn an_engine_on_another_machine_needs_its_own_register() {
        let error = check("10.0.0.9:8000", "0.0.0.0:6101", None, "10.0.0.1:6100");
        assert!(error.contains("beside the engine"), "{error}");
        // A forwarded port, or a service name: who says so knows.
        assert_eq!(check("10.0.0.9:8000", "0.0.0.0:6101", Some("gw:80"), "10.0.0.1:6100"), "");
    }

    #[test]
    fn a_hidden_operations_server_is_told_with_the_way_out() {
        for (engine, operations, advertise, proxy) in [
            ("0.0.0.0:8000", "127.0.0.1:0", None, "10.0.0.1:6100"),
            ("10.0.0.7:8000", "127.0.0.1:6100", None, "127.0.0.1:9"),
            ("127.0.0.1:8000", "127.0.0.1:6100", Some("gpu-1:8000"), "10.0.0.1:6100"),
            ("127.0.0.1:8000", "10.0.0.7:6100", None, "127.0.0.1:9"),
        ] {
            let error = check(engine, operations, advertise, proxy);
            assert!(error.contains("INFERNO_OPERATIONS_ADDR"), "{engine} {operations}: {error}");
            assert!(error.contains("0.0.0.0:6100"), "{error}");
        }
    }
}
