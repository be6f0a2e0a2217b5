//! What a process tells of itself beside its metrics: log lines, and spans for a collector.
//!
//! - [`filter`]: what is logged; a limit on libraries that no configuration moves.
//! - [`format`]: a line for people or as JSON. [`writer`]: its way to standard error, which nobody waits for.
//! - [`request`]: the line each request leaves. [`request_id`]: what it is called. [`panics`]: the line a panic leaves.
//! - [`trace_context`]: `traceparent` and `tracestate`. [`spans`]: a request's place in its trace.
//!   [`otlp`]: to a collector.
//! - [`metrics`]: what all of it counts.

mod filter;
mod format;
mod metrics;
mod otlp;
mod panics;
pub mod request;
pub mod request_id;
pub mod spans;
pub mod trace_context;
mod writer;

pub use metrics::{METRICS, register as register_metrics};
pub use panics::message as panic_message;

use crate::config::{Config, LogFormat};
use format::{Human, HumanFields, Json, JsonFields, Origin};
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};
use writer::LineWriter;

/// How long the end of the process waits for the last lines to be read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Logging or tracing cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is no filter.
    #[error("log.level (INFERNO_LOG) `{level}`: {why}")]
    Level {
        /// What it is.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused a thread.
    #[error("cannot start the log's thread: {0}")]
    Thread(io::Error),
    /// `telemetry.otlp.headers` cannot be read.
    #[error(
        "telemetry.otlp.headers: entry {nth} must be name=value, a header field's name and value"
    )]
    Header {
        /// Which, from 1.
        nth: usize,
    },
    /// `telemetry.otlp.endpoint` is HTTPS and nobody is trusted.
    #[error(
        "telemetry.otlp.endpoint is https, and this system has no certificate authorities; set SSL_CERT_FILE"
    )]
    NoCertificates,
}

/// Logging and tracing of this process. Dropping it writes what waits: keep it to the end.
#[must_use = "dropping it is the end of logging"]
pub struct Telemetry {
    lines: Option<LineWriter>,
}

/// Sets up logging and tracing for this process, which is a `service`, and says what was odd about
/// its configuration. Only the first call sets anything up.
///
/// # Errors
/// If it cannot be done as configured.
pub fn start(config: &Config, service: &'static str) -> Result<Telemetry, TelemetryError> {
    let node_id = config.node.id.clone().unwrap_or_default();
    let origin = Origin { service, node_id };
    let lines = subscribe(config, &origin)?;
    panics::catch();
    otlp::start(&config.telemetry.otlp, &origin)?;
    for notice in &config.notices.warnings {
        tracing::warn!("{notice}");
    }
    for directive in filter::refused(&config.log.level) {
        tracing::warn!(
            directive,
            "log.level: has no effect; libraries are logged at error, for below it they quote requests"
        );
    }
    if !config.notices.injected.is_empty() {
        tracing::debug!(variables = ?config.notices.injected, "ignored variables injected by the platform");
    }
    Ok(Telemetry { lines })
}

/// What [`start`] would refuse of `config`, as far as it shows without starting.
///
/// # Errors
/// The same.
pub fn check(config: &Config) -> Result<(), TelemetryError> {
    otlp::check(&config.telemetry.otlp)
}

/// Installs the subscriber; `None` if there is one already.
fn subscribe(config: &Config, origin: &Origin) -> Result<Option<LineWriter>, TelemetryError> {
    let level = &config.log.level;
    let directives = filter::directives(level)
        .map_err(|error| TelemetryError::Level { level: level.clone(), why: error.to_string() })?;
    let terminal = io::stderr().is_terminal();
    let lines = LineWriter::start(io::stderr(), writer::BUFFER_BYTES, writer::LINGER)
        .map_err(TelemetryError::Thread)?;
    let layer = fmt::layer().with_writer(lines.clone()).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(directives).with(filter::limit());
    let done = if wants_json(config.log.format, terminal) {
        let layer = layer.fmt_fields(JsonFields).event_format(Json::new(origin));
        registry.with(layer.with_ansi(false)).try_init()
    } else {
        let layer = layer.fmt_fields(HumanFields).event_format(Human);
        registry.with(layer.with_ansi(terminal && colours_wanted())).try_init()
    };
    Ok(done.is_ok().then_some(lines))
}

fn wants_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    }
}

/// <https://no-color.org>: any value but the empty one.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            otlp::finish();
            lines.flush(FLUSH_PATIENCE);
        }
    }
}
