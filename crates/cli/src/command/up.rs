//! `inferno up`: a proxy and backends on this machine.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use inferno_engine::catalogue;
use inferno_engine::store::{ModelStore, ResolvedModel, StoreError};
use inferno_shared::config::{Config, ConfigArgs, LogFormat};
use inferno_shared::registration::secrets::Secrets;
use inferno_shared::resources::allowed_cores;
use tokio::task::LocalSet;

use super::runtime;
use crate::exit::INTERRUPTED;
use crate::model::{PullRequest, Tools, pull};
use crate::up::{Ended, Plan, Reporter, free_addresses, supervise};

const BACKENDS_MAX: u64 = 64;

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno up                                   the default model, pulled first
  inferno up --model ./my.gguf --backends 1    a file of yours, one backend
  inferno up --model all-minilm-l6-v2          embeddings instead of text
  inferno up --listen 0.0.0.0:8080             other machines may come
  inferno up --json | jq -r .event             one event a line, for programs

Ctrl-C drains and stops everything; a second one ends it at once (exit code
130). A process that ends is started again; one that never gets ready is given
up. Events go to standard output, the processes' lines to standard error.";

/// The arguments of `up`. What is left out comes from the configuration, then from the defaults.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// How many backends [default: 2, on a single core 1]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=BACKENDS_MAX))]
    backends: Option<usize>,
    /// Where clients go [default: proxy.listen, 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The proxy's operations server [default: operations.addr, 127.0.0.1:6100]
    #[arg(long, value_name = "ADDR")]
    operations: Option<SocketAddr>,
    /// A name from `inferno model list`, or the path of a GGUF file or of an encoder's directory [default:
    /// backend.model]
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// Threads of each backend [default: the cores divided by the backends]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    threads: Option<usize>,
    /// One JSON object a line for each event on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
}

pub(crate) fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    // Each process reads it again; a mistake in it is told here, once and before anything starts.
    let config = Config::load(&args.config)?;
    if config.proxy.tls.cert_file.is_some() {
        bail!(
            "`up` speaks plain HTTP to its proxy: run it with --set proxy.tls.cert_file= \
             --set proxy.tls.key_file= --set proxy.tls.client_ca_file=, or start inferno-proxy itself"
        );
    }
    let reporter = Reporter::new(args.json);
    let listen = args.listen.unwrap_or(config.proxy.listen);
    let operations = args.operations.unwrap_or(config.operations.addr);
    let (listen, operations) = free_addresses(listen, operations)?;
    let secrets = Secrets::load(&config.registration.secret_sources())?;
    let model = args.model.unwrap_or_else(|| config.backend.model.clone());
    let resolved = resolve(&model, &reporter)?;
    let cores = allowed_cores().max(1.0) as usize;
    let backends = args.backends.unwrap_or(cores.min(2));
    let plan = Plan {
        listen,
        operations,
        model,
        embeds: resolved.makes_embeddings(),
        model_id: resolved.id,
        backends,
        threads: args.threads.or(config.backend.threads).unwrap_or((cores / backends).max(1)),
        config: args.config,
        secrets,
        tls: config.operations.tls.clone(),
        needs_key: config.proxy.keys_file.is_some(),
        human_logs: !args.json && config.log.format == LogFormat::Auto,
    };
    let drain = config.proxy.drain_timeout_ms.max(config.backend.drain_timeout_ms);
    let drain = Duration::from_millis(drain);
    let ended = LocalSet::new().block_on(&runtime()?, supervise(&plan, &reporter, drain))?;
    match ended {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::Killed => Ok(ExitCode::from(INTERRUPTED)),
        Ended::Hopeless => bail!("the processes do not get ready; their lines above say why"),
    }
}

/// The model, brought first if it has a name and is not here.
fn resolve(model: &str, reporter: &Reporter) -> anyhow::Result<ResolvedModel> {
    let store = ModelStore::open_default()?;
    let absent = match store.resolve(model) {
        Err(absent @ (StoreError::NotPulled { .. } | StoreError::WrongSize { .. })) => absent,
        resolved => return Ok(resolved?),
    };
    let Some(entry) = catalogue::find(model) else { return Err(absent.into()) };
    let request = PullRequest::from(entry);
    pull(&store, &request, &Tools::of_this_machine(), &mut reporter.progress(entry.name))?;
    Ok(store.resolve(model)?)
}
