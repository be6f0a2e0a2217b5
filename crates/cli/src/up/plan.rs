//! What to run: names and command lines. Pure, but for looking whether the ports are free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use inferno_shared::config::{ConfigArgs, OperationsConfig, TlsConfig};
use inferno_shared::listener;
use inferno_shared::registration::secrets::Secrets;

/// An installation on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where clients go.
    pub(crate) listen: SocketAddr,
    /// The proxy's operations server.
    pub(crate) operations: SocketAddr,
    /// A catalogue name or a path, for the backends.
    pub(crate) model: String,
    /// What the API calls it.
    pub(crate) model_id: String,
    /// Whether it makes embeddings, and not text.
    pub(crate) embeds: bool,
    pub(crate) backends: usize,
    /// Threads of each backend.
    pub(crate) threads: usize,
    /// The user's own `--config` and `--set`, handed on.
    pub(crate) config: ConfigArgs,
    /// To ask the proxy for its members.
    pub(crate) secrets: Secrets,
    /// Of the operations ports.
    pub(crate) tls: TlsConfig,
    /// Clients need an API key.
    pub(crate) needs_key: bool,
    /// Log lines for people instead of JSON.
    pub(crate) human_logs: bool,
}

/// One child process: its name, which is also its node id, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessPlan {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
}

impl Plan {
    /// The operations server of the proxy, for who asks it.
    pub(super) fn operations_config(&self) -> OperationsConfig {
        OperationsConfig {
            addr: self.operations,
            tls: self.tls.clone(),
            ..OperationsConfig::default()
        }
    }

    /// The proxy first, then the backends.
    pub(super) fn processes(&self) -> Vec<ProcessPlan> {
        let backends = (1..=self.backends).map(|number| self.backend(number));
        std::iter::once(self.proxy()).chain(backends).collect()
    }

    fn proxy(&self) -> ProcessPlan {
        let keys = [
            ("proxy.listen", self.listen.to_string()),
            ("operations.addr", self.operations.to_string()),
        ];
        self.process("proxy", "proxy".to_owned(), &keys)
    }

    /// Backends take any free ports: they say where they are when they register.
    fn backend(&self, number: usize) -> ProcessPlan {
        let any_port = SocketAddr::new(loopback_like(self.operations.ip()), 0).to_string();
        let keys = [
            ("backend.listen", any_port.clone()),
            ("operations.addr", any_port),
            ("backend.proxies", reachable(self.operations).to_string()),
            ("backend.model", self.model.clone()),
            ("backend.threads", self.threads.to_string()),
        ];
        self.process("backend", format!("backend-{number}"), &keys)
    }

    /// Our keys come after the user's, and the last `--set` of a key wins: a port of ours that is
    /// somewhere else would never be found.
    fn process(&self, service: &str, name: String, keys: &[(&str, String)]) -> ProcessPlan {
        let mut arguments = vec![service.to_owned(), "--exit-with-parent".to_owned()];
        if let Some(file) = &self.config.config {
            arguments.push(format!("--config={}", file.display()));
        }
        let logs = self.human_logs.then(|| ("log.format", "human".to_owned()));
        let own = [("node.id", name.clone())].into_iter().chain(logs);
        let own = own.chain(keys.iter().cloned()).map(|(key, value)| format!("{key}={value}"));
        for setting in self.config.set.iter().cloned().chain(own) {
            arguments.push("--set".to_owned());
            arguments.push(setting);
        }
        ProcessPlan { name, arguments }
    }
}

/// The address at which this machine reaches what listens on `address`.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(loopback_like(address.ip()));
    }
    address
}

fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Looks whether both of the proxy's ports can be had, before anything is started, and chooses
/// where the port is 0. Returns the traffic and the operations address.
///
/// # Errors
/// A sentence that names the address, who has it, and the flag that chooses another.
pub(crate) fn free_addresses(
    listen: SocketAddr,
    operations: SocketAddr,
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    // Both are held until both are known, so that they differ.
    let traffic = listener::bind(listen, "proxy.listen")
        .context("the port for clients is not free; choose another with --listen HOST:PORT")?;
    let control = listener::bind(operations, "operations.addr")
        .context("the operations port is not free; choose another with --operations HOST:PORT")?;
    Ok((traffic.local_addr()?, control.local_addr()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            listen: "0.0.0.0:8080".parse().expect("an address"),
            operations: "0.0.0.0:6100".parse().expect("an address"),
            model: "m".to_owned(),
            model_id: "m".to_owned(),
            embeds: false,
            backends: 2,
            threads: 3,
            config: ConfigArgs { config: None, set: vec!["backend.queue_max=7".to_owned()] },
            secrets: Secrets::default(),
            tls: TlsConfig::default(),
            needs_key: false,
            human_logs: false,
        }
    }

    #[test]
    fn backends_take_any_port_and_register_where_the_proxy_can_be_reached() {
        let processes = plan().processes();
        let names: Vec<_> = processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["proxy", "backend-1", "backend-2"]);
        let arguments = processes[2].arguments.join(" ");
        assert_eq!(
            arguments,
            "backend --exit-with-parent --set backend.queue_max=7 --set node.id=backend-2 \
             --set backend.listen=127.0.0.1:0 --set operations.addr=127.0.0.1:0 \
             --set backend.proxies=127.0.0.1:6100 --set backend.model=m --set backend.threads=3"
        );
    }

    #[test]
    fn a_taken_port_is_refused_with_the_flag_that_helps() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let (one, two) = free_addresses(any, any).expect("free ports");
        assert!(one.port() != 0 && two.port() != 0 && one != two);
        let held = std::net::TcpListener::bind(any).expect("a free port");
        let taken = held.local_addr().expect("bound");
        let error = format!("{:#}", free_addresses(any, taken).expect_err("it is taken"));
        assert!(error.contains("--operations HOST:PORT"), "{error}");
        assert!(error.contains(&taken.to_string()), "{error}");
    }
}
