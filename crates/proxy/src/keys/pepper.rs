//! The pepper: a secret beside the keys file, without which what stands there is worth nothing.

use super::{
    KeysError,
    form::random_text,
    private::{self, Folder},
};
use ring::hmac;
use std::{fmt, path::Path};

/// Characters of a pepper.
const LEAST: usize = 32;
const MOST: usize = 1_024;

/// What is signed to tell peppers apart.
const CHECK: &[u8] = b"inferno pepper check";

/// HMAC-SHA-256 of a key.
pub(super) type Digest = [u8; 32];

/// The pepper, ready to use.
pub(super) struct Pepper {
    key: hmac::Key,
    /// Every user of the machine can read its file.
    pub(super) is_readable_by_all: bool,
}

impl Pepper {
    /// Reads it: the file's one line, as it stands.
    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        // A line break at the end, of one or two bytes, is not part of it.
        let content = private::read(path, MOST as u64 + 2)?;
        let text = content.text.strip_suffix('\n').unwrap_or(&content.text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let is_one = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_one || !(LEAST..=MOST).contains(&text.len()) {
            return Err(KeysError::Pepper { path: path.into(), least: LEAST, most: MOST });
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        Ok(Self { key, is_readable_by_all: content.is_readable_by_all })
    }

    /// Makes a new one at `path` in `folder`, unless there is one.
    pub(super) fn make(folder: &Folder, path: &Path) -> Result<(), KeysError> {
        if path.exists() { Ok(()) } else { folder.replace(path, &format!("{}\n", random_text()?)) }
    }

    /// What the keys file keeps of a key.
    pub(super) fn digest(&self, key: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(hmac::sign(&self.key, key).as_ref());
        digest
    }

    /// Whether `digest` is that of `key`, in a time that does not tell how nearly.
    pub(super) fn matches(&self, key: &[u8], digest: &Digest) -> bool {
        hmac::verify(&self.key, key, digest).is_ok()
    }

    /// 64 bits that tell this pepper from another, and nothing of what it is.
    pub(super) fn check(&self) -> String {
        hex(&self.digest(CHECK)[..8])
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(hidden)")
    }
}

/// Two lower-case digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] wrote.
pub(super) fn unhex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != digest.len() * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    /// RFC 4231, test case 2.
    #[test]
    fn the_digest_is_hmac_sha_256() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let pepper = Pepper { key, is_readable_by_all: false };
        let digest = pepper.digest(b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&digest), expected);
        assert_eq!(unhex(expected), Some(digest));
        assert!(pepper.matches(b"what do ya want for nothing?", &digest));
        assert!(!pepper.matches(b"what do ya want for nothing!", &digest));
    }

    #[test]
    fn hex_is_read_strictly() {
        let good = "0f".repeat(32);
        assert!(unhex(&good).is_some() && unhex(&good.to_uppercase()).is_some());
        for text in ["", "0f", &good[1..], &good.replace("0f0f", "+f0f"), &"ß".repeat(32)] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn a_pepper_is_one_long_line_that_not_everybody_can_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pepper");
        let locked = Folder::lock_of(&path).expect("locked");
        Pepper::make(&locked, &path).expect("made");
        let made = fs::read_to_string(&path).expect("text");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        Pepper::make(&locked, &path).expect("kept");
        assert_eq!(fs::read_to_string(&path).expect("text"), made, "the one there is");
        let check = Pepper::read(&path).expect("read").check();
        fs::write(&path, made.trim_end()).expect("written");
        assert_eq!(Pepper::read(&path).expect("read").check(), check, "the break is no part");
        for bad in ["", "short\n", &format!("{made}{made}"), &"x".repeat(MOST + 1)] {
            fs::write(&path, bad).expect("written");
            let error = Pepper::read(&path).expect_err("refused").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        fs::write(&path, &made).expect("written");
        for (mode, open) in [(0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(Pepper::read(&path).expect("read").is_readable_by_all, open);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).expect("set");
        assert!(matches!(Pepper::read(&path), Err(KeysError::Writable { mode: 0o602, .. })));
    }
}
