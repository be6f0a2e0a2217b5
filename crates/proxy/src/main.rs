//! `inferno-proxy`: the gateway.

use clap::Parser;
use inferno_shared::service::{self, ServiceArgs};

/// Inferno's gateway: OpenAI-compatible traffic to backends that registered themselves.
#[derive(Parser)]
#[command(name = "inferno-proxy", version, after_help = service::PROXY_HELP)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

fn main() -> anyhow::Result<()> {
    Ok(service::run(inferno_proxy::SERVICE, &Args::parse().service, inferno_proxy::run_blocking)?)
}
