//! Logs: one line an event on standard error, for people or as JSON.

use crate::config::{Config, LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Libraries that report every client's disconnect as an error; ours says it once, as what it is.
const QUIET: &str = "pingora_core=off,pingora_core::services::listening=error,rustls=warn,tokenizers=warn,hyper=warn";

/// `log.level` is no filter.
#[derive(Debug, thiserror::Error)]
#[error("log.level `{level}`: {why}")]
pub struct TelemetryError {
    level: String,
    why: String,
}

/// Sets up logging for this process, and says what was odd about its configuration. Only the first
/// call sets anything up.
///
/// # Errors
/// If `log.level` is no filter.
pub fn start(config: &Config) -> Result<(), TelemetryError> {
    subscribe(&config.log)?;
    for notice in &config.notices.warnings {
        tracing::warn!("{notice}");
    }
    if !config.notices.injected.is_empty() {
        tracing::debug!(variables = ?config.notices.injected, "ignored variables injected by the platform");
    }
    Ok(())
}

fn subscribe(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(format!("{},{QUIET}", config.level))
        .map_err(|error| TelemetryError { level: config.level.clone(), why: error.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let done = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_timer(fmt::time::ChronoUtc::new("%H:%M:%S%.3f".into()))).try_init()
    };
    drop(done);
    Ok(())
}
