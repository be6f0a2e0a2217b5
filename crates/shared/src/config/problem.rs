//! What can be wrong with a configuration, said so that one knows what to change.

use std::{fmt, path::PathBuf};

/// Why a configuration cannot be used: everything that was found, not only the first.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "{only}"),
            problems => {
                write!(f, "{} problems", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// One thing that is wrong. Each text names the offending key, variable or file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file that was asked for by name is not there, or one cannot be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("{}:{line}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{name}` in {origin}{hint}")]
    UnknownKey {
        /// The key as written.
        name: String,
        /// File and line, or flag.
        origin: String,
        /// The nearest known name.
        hint: String,
    },
    /// An `INFERNO_*` variable that does not exist.
    #[error("unknown environment variable {name}{hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest known name.
        hint: String,
    },
    /// Two ways of saying one thing.
    #[error("{one} and {two} say two things about one; remove one of them")]
    Conflict {
        /// One place.
        one: String,
        /// The other.
        two: String,
    },
    /// A value of the wrong form, or one that does not fit the others.
    #[error("{origin}: {why}")]
    Value {
        /// Variable, flag, or file and key.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--set` without an equals sign.
    #[error("--set takes KEY=VALUE, got `{0}`")]
    Set(String),
}
