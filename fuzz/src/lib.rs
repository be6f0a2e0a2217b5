//! What the targets share.

use inferno_engine::gguf::GgufFile;
use std::io::Write;

/// The bytes as a file, opened as a user's would be.
pub fn open(bytes: &[u8]) -> Option<GgufFile> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("written");
    GgufFile::open(file.path()).expect("it is there").ok()
}
