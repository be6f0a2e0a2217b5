//! `inferno-backend`: one model, registered with its proxies.

use clap::Parser;
use inferno_shared::service::{self, ServiceArgs};

/// Serve one model through an OpenAI-compatible API, and register with the proxies of the configuration.
#[derive(Parser)]
#[command(name = "inferno-backend", version, after_help = service::BACKEND_HELP)]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

fn main() -> anyhow::Result<()> {
    Ok(service::run(
        inferno_backend::SERVICE,
        &Args::parse().service,
        inferno_backend::run_blocking,
    )?)
}
