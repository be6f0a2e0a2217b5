//! When to stop: SIGTERM or SIGINT.

use std::{future::Future, io};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT after this call (not after the first poll: a signal that
/// comes while the process still starts is not lost). Ask again to hear of the next one.
///
/// # Errors
/// If the signal handlers cannot be installed.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn requested() -> impl Future<Output = io::Result<()>> {
    let handlers =
        signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
    async move {
        let (mut terminate, mut interrupt) = handlers?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }
}
