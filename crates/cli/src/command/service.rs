//! `inferno proxy` and `inferno backend`: the services themselves, in the foreground.

use inferno_shared::service::{self, ServiceArgs};
use std::process::ExitCode;

/// Runs the proxy until it is told to stop.
pub(crate) fn proxy(args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    service::run(inferno_proxy::SERVICE, args, inferno_proxy::run_blocking)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a backend until it is told to stop.
pub(crate) fn backend(args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    service::run(inferno_backend::SERVICE, args, inferno_backend::run_blocking)?;
    Ok(ExitCode::SUCCESS)
}
