//! Logs: one line an event on standard error, for people or as JSON.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Libraries that report every client's disconnect as an error; ours says it once, as what it is.
const QUIET: &str = "pingora_core=off,pingora=off,rustls=warn,tokenizers=warn,hyper=warn";

/// Sets up logging for this process. A second call does nothing.
///
/// # Errors
/// If `log.level` is no filter.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{},{QUIET}", config.level))
        .map_err(|error| format!("log.level `{}`: {error}", config.level))?;
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
