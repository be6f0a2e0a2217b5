//! What a key looks like: `inf_<id>_<secret>`, e.g. `inf_9aK2bQ7x_` and 43 characters more.
//!
//! Letters and digits alone, so that a key goes into a URL, a shell or a header unquoted and is
//! selected by a double click. The id is no secret: it finds the key in the file and names it in logs.

use super::KeysError;
use std::fmt;

const PREFIX: &str = "inf_";
const ID_LENGTH: usize = 8;
/// Characters of 62 kinds: 43 hold 256 bits.
const SECRET_LENGTH: usize = 43;
/// Bytes of a key.
const LENGTH: usize = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key: 8 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LENGTH]);

impl KeyId {
    /// The id that `text` is.
    pub fn parse(text: &str) -> Option<Self> {
        let id: [u8; ID_LENGTH] = text.as_bytes().try_into().ok()?;
        id.iter().all(u8::is_ascii_alphanumeric).then_some(Self(id))
    }

    /// The id of the key `text`, if it has the form of one.
    pub(super) fn of_key(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX.as_bytes()).filter(|_| text.len() == LENGTH)?;
        let (id, rest) = rest.split_first_chunk::<ID_LENGTH>()?;
        let (b'_', secret) = rest.split_first()? else { return None };
        let is_plain = |part: &[u8]| part.iter().all(u8::is_ascii_alphanumeric);
        (is_plain(id) && is_plain(secret)).then_some(Self(*id))
    }

    /// The id that a person meant: an id, one with `inf_` before it, or a whole key.
    pub fn meant(text: &str) -> Option<Self> {
        let bare = text.strip_prefix(PREFIX).unwrap_or(text);
        Self::parse(bare).or_else(|| Self::of_key(text.as_bytes()))
    }

    /// A new one.
    pub(super) fn random() -> Result<Self, KeysError> {
        let mut id = [0; ID_LENGTH];
        fill_random(&mut id)?;
        Ok(Self(id))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        // Letters and digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A whole key. Never printed but where it is meant to be shown.
pub struct ApiKey(String);

impl ApiKey {
    /// A new key with this id, from the system's random numbers.
    pub(super) fn random(id: KeyId) -> Result<Self, KeysError> {
        Ok(Self(format!("{PREFIX}{id}_{}", random_text()?)))
    }

    /// The key itself, for the one time it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// 256 bits as letters and digits.
pub(super) fn random_text() -> Result<String, KeysError> {
    let mut text = [0; SECRET_LENGTH];
    fill_random(&mut text)?;
    Ok(text.iter().copied().map(char::from).collect())
}

/// Letters and digits, each as likely as any other: bytes beyond the last multiple of 62 are drawn
/// again.
fn fill_random(out: &mut [u8]) -> Result<(), KeysError> {
    const FAIR: u8 = (256 / ALPHABET.len() * ALPHABET.len()) as u8;
    for slot in out {
        let mut byte = [FAIR];
        while byte[0] >= FAIR {
            getrandom::fill(&mut byte).map_err(KeysError::Random)?;
        }
        *slot = ALPHABET[usize::from(byte[0]) % ALPHABET.len()];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_new_key_has_the_form_and_its_id_is_found() {
        let id = KeyId::random().expect("random numbers");
        let key = ApiKey::random(id).expect("random numbers");
        assert_eq!(key.expose().len(), LENGTH);
        assert_eq!(KeyId::of_key(key.expose().as_bytes()), Some(id));
        for meant in [id.to_string(), format!("inf_{id}"), key.expose().to_owned()] {
            assert_eq!(KeyId::meant(&meant), Some(id), "{meant}");
        }
        assert_eq!(format!("{key:?}"), "ApiKey(hidden)");
    }

    #[test]
    fn keys_differ_and_every_character_comes() {
        let texts: Vec<_> = (0..200).map(|_| random_text().expect("random numbers")).collect();
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
        // 8,600 draws of 62: the chance that one never comes is below 10^-58.
        let characters: HashSet<_> = texts.iter().flat_map(|text| text.bytes()).collect();
        assert_eq!(characters.len(), ALPHABET.len());
    }

    #[test]
    fn what_only_resembles_a_key_is_none() {
        let key = format!("inf_12345678_{}", "s".repeat(SECRET_LENGTH));
        assert!(KeyId::of_key(key.as_bytes()).is_some());
        for other in [
            key.replace("inf_", "INF_"),
            key.replace("inf_", "sk-_"),
            key.replace("8_", "89"),
            key.replace('1', "-"),
            format!("{key}s"),
            key[..LENGTH - 1].to_owned(),
            format!("{}ß", &key[..LENGTH - 2]),
        ] {
            assert_eq!(KeyId::of_key(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, tail in "[ -~]{0,60}") {
            let _ = KeyId::of_key(&bytes);
            let _ = KeyId::of_key(format!("inf_{tail}").as_bytes());
            let _ = KeyId::meant(&String::from_utf8_lossy(&bytes));
        }
    }
}
