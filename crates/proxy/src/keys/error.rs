//! What can be wrong with a keys file, its pepper, or a change of them.

use std::{io, path::PathBuf};

/// A keys file that cannot be used or changed. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is larger than any that is meant.
    #[error("{} is larger than {limit} bytes, the most that is read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Whoever can write it could let themselves in.
    #[error("{} can be written by every user (mode {mode:o}); `chmod o-w` it", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The keys file is not TOML, or says something that has no meaning there.
    #[error("{}:{line}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The pepper file has no pepper in it.
    #[error(
        "{} must hold one line of {least} to {most} printable ASCII characters, the pepper",
        path.display()
    )]
    Pepper {
        /// The file.
        path: PathBuf,
        /// Shortest pepper.
        least: usize,
        /// Longest pepper.
        most: usize,
    },
    /// The pepper is not the one that the keys were made with: none of them would be known.
    #[error(
        "{} is not the pepper that the keys in {} were made with (pepper_check differs)",
        pepper.display(), keys.display()
    )]
    OtherPepper {
        /// The pepper file.
        pepper: PathBuf,
        /// The keys file.
        keys: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file, or the folder it would stand in.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder that the file stands in cannot be opened, to keep other writers out.
    #[error("cannot open the folder {}: {source}; make it first", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Change(String),
    /// The system has no randomness.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}
