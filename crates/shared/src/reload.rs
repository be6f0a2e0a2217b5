//! SIGHUP: read again what may change while a process runs.

use std::{error::Error, fmt, io};
use tokio::signal::unix::{SignalKind, signal};

/// What is read again. Each part by itself: what cannot be used changes nothing, and does not keep
/// the others from being read.
#[derive(Default)]
pub struct Reloadable {
    parts: Vec<Part>,
}

struct Part {
    what: &'static str,
    reload: Box<dyn Fn() -> Result<(), Box<dyn Error>> + Send + Sync>,
}

impl Reloadable {
    /// One part more: `what`, for the log, and how it is read. A failure must change nothing.
    #[must_use]
    pub fn with<E: Error + 'static>(
        mut self,
        what: &'static str,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.parts.push(Part { what, reload: Box::new(move || Ok(reload()?)) });
        self
    }

    /// Reads everything again and says in the log what came of it.
    pub fn reload(&self) {
        let mut read = Vec::new();
        for Part { what, reload } in &self.parts {
            match reload() {
                Ok(()) => read.push(*what),
                Err(error) => {
                    tracing::error!(%error, "reload: the {what} cannot be read; what was read before stays");
                }
            }
        }
        if read.len() == self.parts.len() {
            tracing::info!("reload: {} read again", read.join(", "));
        }
    }

    /// Reloads at each SIGHUP from now on, for ever.
    ///
    /// # Errors
    /// If the signal handler cannot be installed.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn on_hangup(self) -> io::Result<impl Future<Output = ()> + Send> {
        let mut hangups = signal(SignalKind::hangup())?;
        Ok(async move {
            while hangups.recv().await.is_some() {
                self.reload();
            }
        })
    }
}

impl fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.what)).finish()
    }
}
