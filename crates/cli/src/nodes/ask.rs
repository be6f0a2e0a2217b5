//! The edge: asks every proxy, side by side.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use inferno_shared::NodeVitals;
use inferno_shared::config::{Config, ConfigArgs};
use inferno_shared::operations_client::{ClientError, OperationsClient};
use inferno_shared::registration::{
    secrets::Secrets,
    wire::{Peer, Peers},
};

use crate::up::reachable;

/// Which proxies are looked at.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    /// Operations address of a proxy; several, with commas or again, make one view. A name stands
    /// for every address it has [default: operations.addr of the configuration, 127.0.0.1:6100]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_and_port)]
    operations: Vec<String>,
}

/// What a proxy said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) vitals: NodeVitals,
    pub(crate) peers: Vec<Peer>,
}

/// One proxy that was asked, by the address or name it was asked under.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) asked: String,
    pub(crate) answer: Result<Answer, Silence>,
}

/// Why a proxy did not say anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub(crate) struct Silence {
    pub(crate) asked: String,
    pub(crate) kind: SilenceKind,
    /// In the words of whoever noticed.
    reason: String,
}

/// What has to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SilenceKind {
    /// The name leads nowhere.
    Unresolved,
    /// Nobody listens, or the way is closed.
    Unreachable,
    /// It wants another secret than ours.
    Unauthorized,
    /// Something else answers there.
    Stranger,
}

impl Silence {
    pub(super) fn new(asked: String, kind: SilenceKind, reason: String) -> Self {
        Self { asked, kind, reason }
    }

    fn of(error: &ClientError, proxy: SocketAddr) -> Self {
        let kind = match error {
            ClientError::Answer { status, .. } if *status == http::StatusCode::UNAUTHORIZED => {
                SilenceKind::Unauthorized
            }
            ClientError::Refused | ClientError::Timeout(_) | ClientError::Connection(_) => {
                SilenceKind::Unreachable
            }
            _ => SilenceKind::Stranger,
        };
        Self::new(proxy.to_string(), kind, error.to_string())
    }

    /// In a few words, for whoever sees the address beside them.
    pub(crate) fn brief(&self) -> &str {
        match self.kind {
            SilenceKind::Unauthorized => {
                "it wants its registration secret (registration.secret_files)"
            }
            _ => &self.reason,
        }
    }

    /// What happened and what to look at, for somebody who sees nothing else.
    fn sentence(&self) -> String {
        let Self { asked, kind, reason } = self;
        match kind {
            SilenceKind::Unresolved => format!("{asked} cannot be resolved: {reason}"),
            SilenceKind::Unreachable => format!(
                "no proxy answers at {asked}: is it running (`inferno up`), and is this its operations address (--operations)?: {reason}"
            ),
            SilenceKind::Unauthorized => format!(
                "the proxy at {asked} wants its registration secret: --set registration.secret_files=FILE"
            ),
            SilenceKind::Stranger => {
                format!("{asked} does not answer like a proxy's operations server: {reason}")
            }
        }
    }
}

/// Asks the same proxies again and again, over connections that are kept.
#[derive(Debug)]
pub(crate) struct Asker {
    targets: Vec<String>,
    client: OperationsClient,
    secrets: Secrets,
}

impl Asker {
    /// The proxies of the command line, else of the configuration; each may take `patience` to answer.
    ///
    /// # Errors
    /// If the configuration or a secret file cannot be used.
    pub(crate) fn new(
        args: &ProxyArgs,
        config: &ConfigArgs,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let config = Config::load(config)?;
        let secrets = Secrets::load(&config.registration.secret_files)?;
        let own = || vec![reachable(config.operations.addr).to_string()];
        let targets = if args.operations.is_empty() { own() } else { args.operations.clone() };
        Ok(Self::of(targets, secrets, patience))
    }

    /// Those proxies, with these secrets.
    pub(crate) fn of(targets: Vec<String>, secrets: Secrets, patience: Duration) -> Self {
        Self { targets, client: OperationsClient::new(patience), secrets }
    }

    /// One look at all of them, in the order they were given.
    pub(crate) async fn ask(&self) -> Vec<Sighting> {
        let targets = self.targets.iter().map(|target| self.ask_target(target));
        let mut sightings: Vec<Sighting> = join_all(targets).await.into_iter().flatten().collect();
        // A name and an address of it, or two names of one machine.
        let mut seen = std::collections::HashSet::new();
        sightings.retain(|sighting| seen.insert(sighting.asked.clone()));
        sightings
    }

    /// Names are resolved each time: an installation's proxies come and go behind one.
    async fn ask_target(&self, target: &str) -> Vec<Sighting> {
        match tokio::net::lookup_host(target).await {
            Ok(addresses) => join_all(addresses.map(|address| self.ask_address(address))).await,
            Err(error) => {
                let (asked, kind) = (target.to_owned(), SilenceKind::Unresolved);
                let silence = Silence::new(asked.clone(), kind, error.to_string());
                vec![Sighting { asked, answer: Err(silence) }]
            }
        }
    }

    async fn ask_address(&self, proxy: SocketAddr) -> Sighting {
        let vitals = self.client.vitals(proxy);
        let peers = self.client.peers(proxy, self.secrets.first());
        let answer = match tokio::try_join!(vitals, peers) {
            Ok((vitals, Peers { peers })) => Ok(Answer { vitals, peers }),
            Err(error) => Err(Silence::of(&error, proxy)),
        };
        Sighting { asked: proxy.to_string(), answer }
    }
}

/// `HOST:PORT`, without asking whether the name exists.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_address = text.parse::<SocketAddr>().is_ok();
    let is_name = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_plain = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        host_is_plain && port.parse::<u16>().is_ok()
    });
    let explain = || "HOST:PORT expected, for example 127.0.0.1:6100 or proxy.internal:6100".into();
    if is_address || is_name { Ok(text.to_owned()) } else { Err(explain()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_a_port_are_taken() {
        for good in ["127.0.0.1:6100", "[::1]:6100", "proxy.internal:6100", "a_b-c:1"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["6100", "127.0.0.1", "::1:6100x", ":6100", "host:port", "http://h:1", "h:70000"]
        {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
