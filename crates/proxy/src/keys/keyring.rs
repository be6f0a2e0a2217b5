//! The keys as a proxy looks them up: one HMAC a request, a map by id, no lock.

use super::{KeyEntry, KeyId, KeyState, KeysError, KeysFile, Timestamp, pepper::Pepper};
use crate::transform::Defaults;
use arc_swap::ArcSwap;
use inferno_shared::config::KeyLimits;
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The keys of one file, which may be read again while requests look them up.
pub(crate) struct Keys {
    path: PathBuf,
    current: ArcSwap<Keyring>,
}

/// Whose key it is, and what it may.
#[derive(Debug)]
pub(crate) struct Holder {
    /// The key's id, for logs.
    pub(crate) id: Arc<str>,
    entry: KeyEntry,
}

/// Why a key does not open the door. The id is told only of keys that were shown whole.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such key, or it is another.
    Unknown,
    /// It was good until then.
    Expired(Arc<Holder>),
    /// It was taken back.
    Revoked(Arc<Holder>),
}

impl Keys {
    /// Reads the file at `path` and its pepper.
    pub(crate) fn load(path: &Path) -> Result<Self, KeysError> {
        let current = ArcSwap::from_pointee(Keyring::read(path)?);
        Ok(Self { path: path.into(), current })
    }

    /// Reads both again, for requests to come. What cannot be used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), KeysError> {
        self.current.store(Arc::new(Keyring::read(&self.path)?));
        Ok(())
    }

    /// Whose key `text` is.
    pub(crate) fn check(&self, text: &[u8], now: Timestamp) -> Result<Arc<Holder>, Refusal> {
        self.current.load().check(text, now)
    }

    /// How many keys there are, revoked and expired ones among them.
    pub(crate) fn count(&self) -> usize {
        self.current.load().by_id.len()
    }

    /// What is odd about the files, though they can be used.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let current = self.current.load();
        let open = current.pepper.is_readable_by_all.then(|| {
            format!(
                "every user of this machine can read {}, the pepper of the API keys; `chmod o-r` it",
                current.pepper_file.display()
            )
        });
        open.into_iter().collect()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} in {})", self.count(), self.path.display())
    }
}

/// What one reading of the file gave.
struct Keyring {
    pepper: Pepper,
    pepper_file: PathBuf,
    by_id: HashMap<KeyId, Arc<Holder>>,
}

impl Keyring {
    fn read(path: &Path) -> Result<Self, KeysError> {
        let file = KeysFile::read(path)?;
        let pepper = file.pepper(path)?;
        let holder =
            |entry: KeyEntry| (entry.id, Arc::new(Holder { id: entry.id.as_str().into(), entry }));
        let by_id = file.keys.into_iter().map(holder).collect();
        Ok(Self { pepper, pepper_file: file.pepper_file, by_id })
    }

    fn check(&self, text: &[u8], now: Timestamp) -> Result<Arc<Holder>, Refusal> {
        let id = KeyId::of_key(text).ok_or(Refusal::Unknown)?;
        let found = self.by_id.get(&id);
        // Computed for an unknown id too: the time an answer takes does not tell which ids there are.
        let digest = found.map_or(&[0; 32], |holder| &holder.entry.digest);
        let is_it = self.pepper.matches(text, digest);
        let holder = found.filter(|_| is_it).ok_or(Refusal::Unknown)?;
        match holder.entry.state(now) {
            KeyState::Usable => Ok(Arc::clone(holder)),
            KeyState::Expired => Err(Refusal::Expired(Arc::clone(holder))),
            KeyState::Revoked => Err(Refusal::Revoked(Arc::clone(holder))),
        }
    }
}

impl Holder {
    /// Whose requests are computed first.
    pub(crate) fn priority(&self) -> i32 {
        self.entry.priority
    }

    /// The limits of its own.
    pub(crate) fn limits(&self) -> KeyLimits {
        self.entry.limits.clone()
    }

    /// Whether routing is explained to it.
    pub(crate) fn may_have_explained(&self) -> bool {
        self.entry.explain
    }

    /// The fields that its requests get where they do not have them.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.entry.defaults
    }

    /// Whether it may use `model`.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        let models = self.entry.models.as_ref();
        models.is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }
}

/// Reads the keys file at `path` and its pepper as a proxy would: how many keys it has, and what is odd
/// about the files though they can be used.
///
/// # Errors
/// If a proxy would refuse them.
pub fn examine(path: &Path) -> Result<(usize, Vec<String>), KeysError> {
    let keys = Keys::load(path)?;
    Ok((keys.count(), keys.warnings()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{NewKey, create, revoke};
    use proptest::prelude::*;
    use std::fs;

    const NOW: Timestamp = Timestamp::from_unix(1_796_000_000);
    const LATER: Timestamp = Timestamp::from_unix(1_796_000_060);

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("keys.toml")
        }

        fn add(&self, name: &str, models: Option<&[&str]>, expires: Option<Timestamp>) -> String {
            let models = models.map(|models| models.iter().map(|&m| m.to_owned()).collect());
            let new = NewKey { name: name.into(), models, expires, ..NewKey::default() };
            create(&self.path(), new, NOW).expect("created").key.expose().to_owned()
        }
    }

    #[test]
    fn a_key_is_known_by_all_of_it() {
        let files = Files::new();
        let (one, two) = (files.add("one", None, None), files.add("two", Some(&["m"]), None));
        let keys = Keys::load(&files.path()).expect("valid");
        assert_eq!(keys.count(), 2);
        for (key, other_model) in [(&one, true), (&two, false)] {
            let holder = keys.check(key.as_bytes(), NOW).expect("known");
            assert_eq!(*holder.id, key[4..12]);
            assert!(holder.may_use("m"));
            assert_eq!(holder.may_use("n"), other_model);
        }
        let unknown = |key: &str| {
            assert!(matches!(keys.check(key.as_bytes(), NOW), Err(Refusal::Unknown)), "{key}");
        };
        unknown(&format!("{}{}", &one[..13], &two[13..]));
        unknown(&format!("inf_00000000{}", &one[12..]));
        for at in 0..one.len() {
            let mut wrong = one.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            unknown(&String::from_utf8(wrong).expect("ASCII"));
        }
        unknown(&one[..one.len() - 1]);
        unknown("");
        assert!(!format!("{keys:?}").contains(&one[13..]));
    }

    #[test]
    fn a_key_ends_when_it_expires_or_is_revoked() {
        let files = Files::new();
        let (short, long) = (files.add("s", None, Some(LATER)), files.add("l", None, None));
        let keys = Keys::load(&files.path()).expect("valid");
        assert!(keys.check(short.as_bytes(), Timestamp::from_unix(LATER.unix() - 1)).is_ok());
        assert!(matches!(keys.check(short.as_bytes(), LATER), Err(Refusal::Expired(_))));
        revoke(&files.path(), "l", NOW).expect("revoked");
        assert!(keys.check(long.as_bytes(), NOW).is_ok(), "not before it is read");
        keys.reload().expect("valid");
        assert!(matches!(keys.check(long.as_bytes(), NOW), Err(Refusal::Revoked(_))));
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let files = Files::new();
        let key = files.add("k", None, None);
        let keys = Keys::load(&files.path()).expect("valid");
        let good = fs::read_to_string(files.path()).expect("text");
        fs::write(files.path(), good.replace("name", "nam")).expect("written");
        let error = keys.reload().expect_err("broken").to_string();
        assert!(error.contains("did you mean `name`?"), "{error}");
        fs::write(files.path(), good).expect("written");
        fs::remove_file(files.folder.path().join("keys.pepper")).expect("removed");
        assert!(matches!(keys.reload(), Err(KeysError::Read { .. })));
        assert!(keys.check(key.as_bytes(), NOW).is_ok());
    }

    proptest! {
        #[test]
        fn no_key_is_too_odd(bytes: Vec<u8>, tail in "[0-9A-Za-z]{43}") {
            // A file a case would take long: one for all is enough.
            static KEYS: std::sync::LazyLock<Keys> = std::sync::LazyLock::new(|| {
                let files = Files::new();
                files.add("k", None, None);
                Keys::load(&files.path()).expect("valid")
            });
            prop_assert!(KEYS.check(&bytes, NOW).is_err());
            let formed = format!("inf_abcdefgh_{tail}");
            prop_assert!(KEYS.check(formed.as_bytes(), NOW).is_err());
        }
    }
}
