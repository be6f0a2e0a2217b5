//! What the main functions of proxy and backend have in common: flags, configuration, logging, and
//! the one-shot health check.

use crate::{
    config::{Config, ConfigArgs, ConfigError},
    identity, operations_client,
    operations_server::OperationsError,
    registration::secrets::Secrets,
    telemetry,
    tls::{ClientTls, ServerTls},
};
use nix::sys::signal::{Signal, raise};
use std::{error::Error, io::Read};

/// What `--help` of the proxy ends with.
pub const PROXY_HELP: &str = "\
Examples:
  inferno-proxy                    127.0.0.1:8080, operations on 127.0.0.1:6100
  inferno-proxy --set proxy.listen=0.0.0.0:8080 \\
                --set operations.addr=0.0.0.0:6100 \\
                --set registration.secret_file=/etc/inferno/secret
  inferno-proxy --healthcheck      for containers without a shell

Every key has a variable as well: proxy.listen is INFERNO_PROXY__LISTEN.
Backends find the proxy by its operations address. SIGTERM drains: running
requests finish, within proxy.drain_timeout_ms.

Exit codes: 0 drained, or healthy; 1 failed (standard error says why); 2 usage.";

/// What `--help` of a backend ends with.
pub const BACKEND_HELP: &str = "\
Examples:
  inferno-backend --set backend.proxies=proxy-host:6100 \\
                  --set backend.model=./my.gguf
  INFERNO_BACKEND__PROXIES=a:6100,b:6100 inferno-backend       with two proxies
  inferno-backend --healthcheck    for containers without a shell

Every key has a variable as well: backend.model is INFERNO_BACKEND__MODEL.
A proxy on another machine needs addresses it can reach (backend.listen,
operations.addr) and the shared secret (registration.secret_file); `inferno
doctor` checks both. SIGTERM drains: the proxies are told, running requests
finish, within backend.drain_timeout_ms.

Exit codes: 0 drained, or healthy; 1 failed (standard error says why); 2 usage.";

/// The flags of both services, whichever program runs them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServiceArgs {
    /// Ask the running service of this configuration whether it is alive, and exit 0 or 1
    #[arg(long)]
    pub healthcheck: bool,
    /// Stop when standard input ends: how `inferno up` makes sure to leave no orphans
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
    /// Where the configuration comes from.
    // The last: a heading goes on until the next.
    #[command(flatten, next_help_heading = "Configuration")]
    pub config: ConfigArgs,
}

/// Why a service ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// Logging cannot be set up as configured.
    #[error("configuration: {0}")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// `--healthcheck`: no runtime, or the answer is no.
    #[error("{0}")]
    Unhealthy(#[from] operations_client::HealthcheckError),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The service itself failed.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

/// Loads the configuration and runs `serve`, which is called `service`, until it returns; or answers
/// `--healthcheck`.
///
/// # Errors
/// If the configuration is unusable, the service fails, or the health check is negative.
pub fn run<E: Error + Send + Sync + 'static>(
    service: &'static str,
    args: &ServiceArgs,
    serve: impl FnOnce(&Config) -> Result<(), E>,
) -> Result<(), ServiceError> {
    let mut config = Config::load(&args.config)?;
    if args.healthcheck {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return Ok(runtime.block_on(operations_client::healthcheck(&config.operations))?);
    }
    // Named here, once: log lines and registration must agree.
    config.node.id.get_or_insert_with(identity::default_node_id);
    let _telemetry = telemetry::start(&config, service)?;
    if args.exit_with_parent {
        std::thread::Builder::new().name("parent".into()).spawn(stop_when_input_ends)?;
    }
    serve(&config).map_err(|error| ServiceError::Failed(Box::new(error)))
}

/// What either service would refuse of `config` at its start, as far as it shows without starting:
/// secrets that cannot be read, registration open to other machines, a collector's header fields.
pub fn check(config: &Config) -> Vec<String> {
    let sources = config.registration.secret_sources();
    let mut problems = Vec::new();
    for source in &sources {
        if let Err(error) = Secrets::load(std::slice::from_ref(source)) {
            problems.push(error.to_string());
        }
    }
    let tls = &config.operations.tls;
    problems.extend(ServerTls::load(tls).err().map(|error| error.to_string()));
    problems.extend(ClientTls::load(tls).err().map(|error| error.to_string()));
    let addr = config.operations.addr;
    let guarded = !sources.is_empty() || config.registration.allow_unauthenticated;
    if !guarded && !addr.ip().is_loopback() {
        problems.push(OperationsError::Open(addr).to_string());
    }
    problems.extend(telemetry::check(config).err().map(|error| error.to_string()));
    problems
}

/// The parent holds the other end of our standard input and never writes: its end is the parent's
/// end, however that came. Then we drain as after a SIGTERM.
fn stop_when_input_ends() {
    let mut nothing = [0; 64];
    while let Ok(1..) = std::io::stdin().read(&mut nothing) {}
    if raise(Signal::SIGTERM).is_err() {
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn what_would_be_refused_at_the_start_is_told_at_once() {
        let mut config = Config::default();
        assert!(check(&config).is_empty());
        config.operations.addr = ([0, 0, 0, 0], 6100).into();
        assert!(check(&config)[0].contains("registration has no secret"), "{:?}", check(&config));
        config.registration.secret = Some(Secret::new("two words"));
        assert!(check(&config)[0].starts_with("registration.secret must be"));
        config.registration.secret = None;
        config.registration.secret_files = vec!["/nonexistent/a".into(), "/nonexistent/b".into()];
        assert_eq!(check(&config).len(), 2, "each file: {:?}", check(&config));
        config.registration.secret = Some(Secret::new("good"));
        assert!(check(&config).is_empty());
    }
}
