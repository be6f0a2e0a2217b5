//! `inferno register`: a foreign engine among the backends.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use inferno_shared::config::{Config, ConfigArgs};
use inferno_shared::endpoint::Location;
use inferno_shared::registration::wire::is_valid_id;
use inferno_shared::service::{self, ServiceArgs};

use crate::register::{Engine, EngineUrl, SERVICE, named, parse_name, run_blocking};

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno register http://127.0.0.1:8000 --proxy 127.0.0.1:6100
  inferno register http://0.0.0.0:8000 --proxy proxy-host:6100 \\
      --operations 0.0.0.0:6100 \\
      --set registration.secret_file=/etc/inferno/secret
  inferno register http://localhost:11434 --proxy 127.0.0.1:6100 \\
      --model qwen3:8b

The engine is llama-server, vLLM, SGLang, TGI, Ollama or whatever else speaks
OpenAI's API over plain HTTP; nothing is changed on it. Run this beside it, on
its machine or in its pod: proxies look for this process on the host that they
send requests to, at the port of operations.addr. Requests go from the proxy to
the engine and never pass here.

The engine is asked each second how it is (/health, else /v1/models), how busy
(/metrics: llama-server wants --metrics, SGLang --enable-metrics) and what it
serves. Proxies send it requests while it answers; a process that is gone is
noticed at once, one that hangs after --probe-failures rounds. It may start
after this command, stop and come back.

An engine on another machine than its proxy: write http://0.0.0.0:PORT if it
listens on every address, or say with --advertise where it is. Proxies send an
engine no API key and no x-inferno-* field; one that asks for a key cannot be
registered. https:// engines neither.

Every key has a variable as well: backend.proxies is INFERNO_BACKEND__PROXIES.
SIGTERM: the proxies are told, the lease is given back. What runs on the engine
goes on.

Exit codes: 0 left, or healthy; 1 failed (standard error says why); 2 usage.";

/// The arguments of `register`. What is left out comes from the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct RegisterArgs {
    /// The engine: http://HOST:PORT, with or without /v1
    #[arg(value_name = "URL")]
    engine: EngineUrl,
    /// Operations address of a proxy to register with; may be repeated [default: backend.proxies]
    #[arg(long, value_name = "HOST:PORT", value_parser = location)]
    proxy: Vec<String>,
    /// A model that the engine serves; may be repeated [default: what its /v1/models lists]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    model: Vec<String>,
    /// The node's name among the backends [default: node.id, the host's name and a random suffix]
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// Where proxies reach the engine, if that is not the URL [default: backend.advertise]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where this process answers the proxies [default: operations.addr; if that is not set either, a free port of
    /// 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    operations: Option<SocketAddr>,
    /// Requests that the engine computes together, for the policy `weighted`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_concurrency: Option<u32>,
    /// Milliseconds between two rounds of probes
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = RangedU64ValueParser::<u64>::new().range(50..=3_600_000))]
    probe_interval_ms: u64,
    /// Milliseconds that the engine has for each answer
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = RangedU64ValueParser::<u64>::new().range(50..=3_600_000))]
    probe_timeout_ms: u64,
    /// Failed rounds in a row that take the engine out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    probe_failures: u32,
    #[command(flatten)]
    service: ServiceArgs,
}

fn location(text: &str) -> Result<String, String> {
    let parsed: Result<Location, _> = text.parse();
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn id(text: &str) -> Result<String, String> {
    match is_valid_id(text) {
        true => Ok(text.into()),
        false => Err("an id is 1-128 of [A-Za-z0-9._-]".into()),
    }
}

pub(crate) fn run(mut args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let set = args.settings();
    args.service.config.set.extend(set);
    let has_port = is_set(&args.service.config, "operations.addr")?;
    if args.service.healthcheck && !has_port {
        bail!(
            "--healthcheck: operations.addr is not set, so that the port is another one at each start; set it for both \
             (--operations, INFERNO_OPERATIONS_ADDR)"
        );
    }
    let engine = args.watched();
    service::run(SERVICE, &args.service, |config| {
        let mut config = config.clone();
        if !has_port {
            // The default is that of the proxy, which may well be on this machine. Nobody needs to know
            // the port: proxies are told.
            config.operations.addr.set_port(0);
        }
        if config.backend.proxies.is_empty() {
            return Err(StartError::NoProxy);
        }
        Ok(run_blocking(&config, engine)?)
    })?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(
        "no proxy to register with: --proxy HOST:6100 (backend.proxies, INFERNO_BACKEND__PROXIES)"
    )]
    NoProxy,
    #[error(transparent)]
    Register(#[from] crate::register::RegisterError),
}

/// Whether `key` has another value than its default, from wherever.
fn is_set(args: &ConfigArgs, key: &str) -> anyhow::Result<bool> {
    let settings = Config::settings(args, std::env::vars_os())
        .map_err(|error| anyhow::anyhow!("configuration: {error}"))?;
    Ok(settings.iter().any(|setting| setting.key.name == key && setting.origin != "default"))
}

impl RegisterArgs {
    /// The flags that are keys of the configuration, as such.
    fn settings(&self) -> Vec<String> {
        let proxies = (!self.proxy.is_empty()).then(|| self.proxy.join(","));
        let keys = [
            ("backend.proxies", proxies),
            ("node.id", self.id.clone()),
            ("backend.advertise", self.advertise.clone()),
            ("operations.addr", self.operations.map(|at| at.to_string())),
        ];
        let given = keys.into_iter().filter_map(|(key, value)| Some((key, value?)));
        given.map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn watched(&self) -> Engine {
        Engine {
            url: self.engine.clone(),
            models: named(&self.model),
            max_concurrency: self.max_concurrency,
            interval: Duration::from_millis(self.probe_interval_ms),
            timeout: Duration::from_millis(self.probe_timeout_ms),
            failures_max: self.probe_failures,
        }
    }
}
