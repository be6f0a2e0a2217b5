//! The fingerprint: what two engines must share to give the same tokens.

use crate::error::LoadError;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread;

/// Raised whenever a change makes any logit differ in any bit; the golden-logits test says when.
pub const NUMERICS_VERSION: u32 = 3;

/// The class of arithmetic: activations of eight bits in blocks of 32, and one chain of single-precision sums over
/// the blocks. Scalar, AVX2 and AVX-512 instances of our kernels give the same bits, on any architecture.
pub const ARITHMETIC: &str = "cpu int8 blocks, f32 chain";

/// The type of keys and values in the cache.
pub(crate) const KV_TYPE: &str = "f16";

/// Equal for two engines exactly when the same request gives the same tokens on both: a hash of the numerics
/// version, the arithmetic class, the model file (weights, tokenizer and template), the context length and
/// the cache's type. Never of build, host, threads or batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 12]);

impl Fingerprint {
    /// The fingerprint of a model file with this sha256 under a context of `context_length` tokens.
    #[must_use]
    pub fn new(model_sha256: &[u8; 32], context_length: usize) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!(
            "inferno numerics {NUMERICS_VERSION}\n{ARITHMETIC}\n{KV_TYPE}\n{context_length}\n"
        ));
        hash.update(model_sha256);
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 12];
        bytes.copy_from_slice(&digest[..12]);
        Self(bytes)
    }
}

/// The fingerprint under `context_length`: at once where the hash is told, else set later by a thread that takes
/// `hash`, or never when there is none.
///
/// # Errors
/// When what is told is no hash, or the operating system refuses a thread.
pub(crate) fn known_or_later(
    sha256: Option<&str>,
    context_length: usize,
    hash: impl FnOnce() -> Option<[u8; 32]> + Send + 'static,
) -> Result<Arc<OnceLock<Fingerprint>>, LoadError> {
    let cell = Arc::new(OnceLock::new());
    if let Some(text) = sha256 {
        let hash = parse_sha256(text).ok_or_else(|| LoadError::Hash(text.to_owned()))?;
        cell.get_or_init(|| Fingerprint::new(&hash, context_length));
        return Ok(cell);
    }
    let later = Arc::clone(&cell);
    let work = move || {
        if let Some(hash) = hash() {
            later.get_or_init(|| Fingerprint::new(&hash, context_length));
        }
    };
    thread::Builder::new().name("model-hash".into()).spawn(work).map_err(LoadError::Threads)?;
    Ok(cell)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fp_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes of a sha256 in hexadecimal; `None` when it is not one.
#[must_use]
pub(crate) fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_context_make_the_fingerprint() {
        let base = Fingerprint::new(&[1; 32], 8192);
        assert_eq!(base, Fingerprint::new(&[1; 32], 8192));
        assert_ne!(base, Fingerprint::new(&[2; 32], 8192));
        assert_ne!(base, Fingerprint::new(&[1; 32], 4096));
        assert_eq!(base.to_string().len(), 3 + 24);
    }

    #[test]
    fn only_sha256_in_hexadecimal_is_one() {
        assert_eq!(parse_sha256(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(parse_sha256(&"0f".repeat(31)), None);
        assert_eq!(parse_sha256(&"0g".repeat(32)), None);
    }
}
