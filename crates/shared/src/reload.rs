//! SIGHUP: read again what may change while a process runs.

use crate::{
    registration::secrets::Secrets,
    tls::{ClientTls, ServerTls},
};
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// What is read again. Each part by itself: what cannot be used changes nothing, and does not keep
/// the others from being read.
#[derive(Clone, Debug, Default)]
pub struct Reloadable {
    /// The registration secrets.
    pub secrets: Secrets,
    /// The certificate of the operations port.
    pub server_tls: Option<ServerTls>,
    /// Whom to trust at other operations ports.
    pub client_tls: ClientTls,
}

impl Reloadable {
    /// Reads everything again and says in the log what came of it.
    pub fn reload(&self) {
        let server_tls = self.server_tls.as_ref().map_or(Ok(()), ServerTls::reload);
        let outcomes = [
            ("registration secrets", self.secrets.reload().map_err(|error| error.to_string())),
            ("certificate", server_tls.map_err(|error| error.to_string())),
            ("trusted certificates", self.client_tls.reload().map_err(|error| error.to_string())),
        ];
        let mut kept = 0;
        for (what, outcome) in outcomes {
            if let Err(error) = outcome {
                kept += 1;
                tracing::error!(%error, "reload: the {what} cannot be read; what was read before stays");
            }
        }
        if kept == 0 {
            tracing::info!("reload: secrets and certificates read again");
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
