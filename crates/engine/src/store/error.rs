//! Why a model cannot be had, each with the way out.

use std::io;
use std::path::PathBuf;

/// Names further away than this are not worth suggesting (1 is equal, 0 nothing in common).
const NEAREST_SIMILARITY_MIN: f64 = 0.6;

/// Why a model cannot be had from the folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither `INFERNO_MODELS`, `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no folder for models: set INFERNO_MODELS to one")]
    NoFolder,
    /// Not a name, and not the path of a file.
    #[error("no model is called `{name}`{}; known: {}. A path to a .gguf file or to a directory with config.json and model.safetensors works too", did_you_mean(nearest), known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Known names near it, best first.
        nearest: Vec<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// A known name whose file is not there.
    #[error("model `{name}` is not at {}: run `inferno model pull {name}`", path.display())]
    NotPulled {
        /// The model.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// A path at which there is neither a regular file nor a directory with a `config.json`.
    #[error("no model file or directory at {}", path.display())]
    NoSuchFile {
        /// The path asked for.
        path: PathBuf,
    },
    /// The file is not as long as its manifest or the catalogue says.
    #[error("{} is damaged: {found} bytes instead of {expected}; `inferno model pull` fetches it again", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// What its size should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Nothing says what the file's hash should be.
    #[error("{} has no manifest, so there is nothing to verify it against", path.display())]
    NoManifest {
        /// The file.
        path: PathBuf,
    },
    /// A manifest that is not one.
    #[error("{} is not a manifest: {source}; remove it, or pull the model again", path.display())]
    BadManifest {
        /// The manifest's path.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The operating system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: `read`, `write`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Up to three of `known` that `name` may have meant, best first.
pub(super) fn nearest(name: &str, known: &[String]) -> Vec<String> {
    let name = name.to_lowercase();
    let mut scored: Vec<_> = known
        .iter()
        .map(|other| (strsim::jaro_winkler(&name, &other.to_lowercase()), other))
        .collect();
    scored.retain(|(similarity, _)| *similarity >= NEAREST_SIMILARITY_MIN);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, other)| other.clone()).collect()
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest.first() {
        Some(first) => format!(" (did you mean `{first}`?)"),
        None => String::new(),
    }
}
