//! The edge: asks every proxy, side by side.

use std::time::Duration;

use futures_util::future::join_all;
use inferno_shared::NodeVitals;
use inferno_shared::config::{Config, ConfigArgs};
use inferno_shared::endpoint::{Endpoint, Location};
use inferno_shared::operations_client::{self, ClientError, OperationsClient};
use inferno_shared::registration::{
    secrets::Secrets,
    wire::{Peer, Peers},
};
use inferno_shared::tls::ClientTls;

/// Which proxies are looked at.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    /// Operations address of a proxy; several, with commas or again, make one view. A name stands
    /// for every address it has [default: operations.addr of the configuration, 127.0.0.1:6100]
    #[arg(long, value_name = "[https://]HOST:PORT", value_delimiter = ',')]
    operations: Vec<Location>,
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

    fn of(error: &ClientError, proxy: &Endpoint) -> Self {
        let kind = match error {
            ClientError::Answer { status, .. } if *status == http::StatusCode::UNAUTHORIZED => {
                SilenceKind::Unauthorized
            }
            ClientError::Refused
            | ClientError::Timeout(_)
            | ClientError::Connection(_)
            | ClientError::Tls(_) => SilenceKind::Unreachable,
            _ => SilenceKind::Stranger,
        };
        Self::new(proxy.address.to_string(), kind, error.to_string())
    }

    /// In a few words, for whoever sees the address beside them.
    pub(crate) fn brief(&self) -> &str {
        match self.kind {
            SilenceKind::Unauthorized => {
                "it wants its registration secret (registration.secret_file)"
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
                "the proxy at {asked} wants its registration secret: --set registration.secret_file=FILE"
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
    targets: Vec<Target>,
    client: OperationsClient,
    secrets: Secrets,
}

/// Where to ask.
#[derive(Clone, Debug)]
enum Target {
    /// Every address behind it; TLS if it says so or, where it does not, if we speak it ourselves.
    Named(Location, bool),
    /// The proxy that this configuration describes.
    Own(Endpoint),
}

impl Asker {
    /// The proxies of the command line, else of the configuration; each may take `patience` to answer.
    ///
    /// # Errors
    /// If the configuration, a secret file or a certificate cannot be used.
    pub(crate) fn new(
        args: &ProxyArgs,
        config: &ConfigArgs,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let config = Config::load(config)?;
        let secrets = Secrets::load(&config.registration.secret_sources())?;
        if args.operations.is_empty() {
            let (client, endpoint) = operations_client::own(&config.operations, patience)?;
            return Ok(Self { targets: vec![Target::Own(endpoint)], client, secrets });
        }
        // What the file is wrong with is told before anything is asked.
        ClientTls::load(&config.operations.tls)?;
        Ok(Self::named(args.operations.iter().cloned(), &config, secrets, patience))
    }

    /// The proxies that a configuration lists; what is no address is told elsewhere.
    pub(crate) fn of(
        listed: &[String],
        config: &Config,
        secrets: Secrets,
        patience: Duration,
    ) -> Self {
        Self::named(listed.iter().filter_map(|text| text.parse().ok()), config, secrets, patience)
    }

    fn named(
        locations: impl Iterator<Item = Location>,
        config: &Config,
        secrets: Secrets,
        patience: Duration,
    ) -> Self {
        let tls = &config.operations.tls;
        let trust = ClientTls::load(tls).unwrap_or_default();
        let client = OperationsClient::new(patience).with_tls(trust);
        let targets = locations.map(|location| Target::Named(location, tls.cert_file.is_some()));
        Self { targets: targets.collect(), client, secrets }
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
    async fn ask_target(&self, target: &Target) -> Vec<Sighting> {
        let (location, default_tls) = match target {
            Target::Own(endpoint) => return vec![self.ask_endpoint(endpoint.clone()).await],
            Target::Named(location, default_tls) => (location, *default_tls),
        };
        match tokio::net::lookup_host(&location.host_port).await {
            Ok(addresses) => {
                let endpoints = addresses.map(|address| location.endpoint(address, default_tls));
                join_all(endpoints.map(|endpoint| self.ask_endpoint(endpoint))).await
            }
            Err(error) => {
                let (asked, kind) = (location.host_port.clone(), SilenceKind::Unresolved);
                let silence = Silence::new(asked.clone(), kind, error.to_string());
                vec![Sighting { asked, answer: Err(silence) }]
            }
        }
    }

    async fn ask_endpoint(&self, proxy: Endpoint) -> Sighting {
        let secret = self.secrets.first();
        let vitals = self.client.vitals(proxy.clone());
        let peers = self.client.peers(proxy.clone(), secret.as_deref());
        let answer = match tokio::try_join!(vitals, peers) {
            Ok((vitals, Peers { peers, .. })) => Ok(Answer { vitals, peers }),
            Err(error) => Err(Silence::of(&error, &proxy)),
        };
        Sighting { asked: proxy.address.to_string(), answer }
    }
}
