//! Changing a keys file: locked against a second writer, replaced as one step, comments kept.

use super::{
    ApiKey, KeyEntry, KeyId, KeysError, KeysFile, Timestamp,
    file::{
        CONCURRENCY_MAX, KEYS_MAX, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, check_models, check_name,
    },
    pepper::{Pepper, hex},
    private::{Folder, resolved},
};
use crate::transform::Defaults;
use inferno_shared::config::KeyLimits;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};

/// What a key is made with.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// The models it may use; none: every model.
    pub models: Option<Vec<String>>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// Whose requests are computed first, within [`PRIORITIES`](super::PRIORITIES).
    pub priority: i32,
    /// Whether routing is explained to it.
    pub explain: bool,
    /// How much of everything it may.
    pub limits: KeyLimits,
    /// Fields for its requests that do not have them.
    pub defaults: Defaults,
}

/// A key that was made.
#[derive(Debug)]
pub struct Created {
    /// The key itself. It is nowhere else.
    pub key: ApiKey,
    /// What the file has of it.
    pub entry: KeyEntry,
    /// The pepper file, if there was none before.
    pub new_pepper: Option<PathBuf>,
}

/// Makes a key and puts it into the keys file at `path`. A file that is not there is made, with a
/// pepper beside it (`keys.toml`: `keys.pepper`); its folder must be there.
///
/// # Errors
/// If the name is taken or no name, a model's is none, the file cannot be used or not be written, or it
/// has its 10,000 keys.
pub fn create(path: &Path, new: NewKey, now: Timestamp) -> Result<Created, KeysError> {
    check_name(&new.name).map_err(KeysError::Change)?;
    new.models.as_deref().map_or(Ok(()), check_models).map_err(KeysError::Change)?;
    let target = resolved(path);
    let folder = Folder::lock_of(&target)?;
    let pepper_file = target.with_extension("pepper");
    let is_new = !target.exists();
    let new_pepper = (is_new && !pepper_file.exists()).then(|| pepper_file.clone());
    let text = if is_new { empty(&folder, &pepper_file)? } else { read(&target)? };
    let file = KeysFile::parse(path, &text)?;
    let pepper = file.pepper(path)?;
    check_room(&file, &new.name, path)?;
    let id = free_id(&file)?;
    let key = ApiKey::random(id)?;
    let digest = pepper.digest(key.expose().as_bytes());
    let NewKey { name, models, expires, priority, explain, limits, defaults } = new;
    let entry = KeyEntry {
        id,
        name,
        digest,
        created: now,
        expires,
        revoked: None,
        models,
        priority,
        explain,
        limits,
        defaults,
    };
    change(&folder, path, &text, |keys| {
        keys.push(table(&entry));
        Ok(())
    })?;
    Ok(Created { key, entry, new_pepper })
}

/// Marks the key that `which` names (an id, or the name of one that is not revoked) as revoked.
///
/// # Errors
/// If there is none, it is revoked already, or the file cannot be used or not be written.
pub fn revoke(path: &Path, which: &str, now: Timestamp) -> Result<KeyEntry, KeysError> {
    let target = resolved(path);
    let folder = Folder::lock_of(&target)?;
    let text = read(&target)?;
    let file = KeysFile::parse(path, &text)?;
    let at = find(&file.keys, which, path)?;
    let mut entry = file.keys[at].clone();
    if let Some(since) = entry.revoked {
        let why = format!("{} ({}) was revoked at {since}", entry.id, entry.name);
        return Err(KeysError::Change(why));
    }
    entry.revoked = Some(now);
    change(&folder, path, &text, |keys| {
        let table = keys.get_mut(at).ok_or_else(|| KeysError::Change("no such key".into()))?;
        table.insert("revoked", value(now.datetime()));
        Ok(())
    })?;
    Ok(entry)
}

/// Where among `keys` the one stands that `which` names.
fn find(keys: &[KeyEntry], which: &str, path: &Path) -> Result<usize, KeysError> {
    let by_id = KeyId::meant(which).and_then(|id| keys.iter().position(|key| key.id == id));
    let live = |key: &KeyEntry| key.name == which && key.revoked.is_none();
    let found = by_id.or_else(|| keys.iter().position(live));
    // Of revoked ones with that name the last tells best what happened.
    let found = found.or_else(|| keys.iter().rposition(|key| key.name == which));
    found.ok_or_else(|| {
        // A whole key must not be repeated.
        let which = KeyId::meant(which).map_or(which.to_owned(), |id| id.to_string());
        KeysError::Change(format!("there is no key `{which}` in {}", path.display()))
    })
}

fn read(target: &Path) -> Result<String, KeysError> {
    // Whether it may be used at all is for this to say; a link's target is the same file.
    KeysFile::read(target)?;
    fs::read_to_string(target).map_err(|source| KeysError::Read { path: target.into(), source })
}

/// The text of a file without keys, and a pepper for it.
fn empty(folder: &Folder, pepper_file: &Path) -> Result<String, KeysError> {
    Pepper::make(folder, pepper_file)?;
    let check = Pepper::read(pepper_file)?.check();
    let name = pepper_file.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!(
        "# Who may use the traffic port of Inferno's proxies (proxy.keys_file), and for which models.\n\
         # `inferno key create|list|revoke` changes it, and so may you: docs/keys.md. A proxy reads it at\n\
         # its start and on SIGHUP. No key is in it, only its HMAC-SHA-256 under the pepper.\n\n\
         pepper_file = {}\npepper_check = \"{check}\"\n",
        toml_edit::Value::from(name.as_ref())
    ))
}

fn check_room(file: &KeysFile, name: &str, path: &Path) -> Result<(), KeysError> {
    let taken = |key: &&KeyEntry| key.revoked.is_none() && key.name == name;
    if let Some(key) = file.keys.iter().find(taken) {
        let why = format!(
            "{} has the name `{name}` in {}; revoke it or choose another",
            key.id,
            path.display()
        );
        return Err(KeysError::Change(why));
    }
    if file.keys.len() >= KEYS_MAX {
        let why =
            format!("{} has its {KEYS_MAX} keys; delete the tables of old ones", path.display());
        return Err(KeysError::Change(why));
    }
    Ok(())
}

/// An id that no key has, nor is called by.
fn free_id(file: &KeysFile) -> Result<KeyId, KeysError> {
    loop {
        let id = KeyId::random()?;
        if !file.keys.iter().any(|key| key.id == id || key.name == id.as_str()) {
            return Ok(id);
        }
    }
}

/// Changes the tables of the keys in `text` and puts the outcome in the file's place. It must be one
/// that a proxy would take.
fn change(
    folder: &Folder,
    path: &Path,
    text: &str,
    edit: impl FnOnce(&mut ArrayOfTables) -> Result<(), KeysError>,
) -> Result<(), KeysError> {
    let damaged = |why: String| KeysError::Change(format!("{}: {why}", path.display()));
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| damaged(error.message().into()))?;
    let keys = document.entry("key").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let keys = keys.as_array_of_tables_mut();
    edit(keys.ok_or_else(|| damaged("write each key as a table [[key]]".into()))?)?;
    let changed = document.to_string();
    KeysFile::parse(path, &changed)?;
    folder.replace(&resolved(path), &changed)
}

/// The table of one key.
fn table(entry: &KeyEntry) -> Table {
    let mut table = Table::new();
    // An empty line between keys.
    table.decor_mut().set_prefix("\n");
    table.insert("id", value(entry.id.as_str()));
    table.insert("name", value(entry.name.as_str()));
    table.insert("hmac_sha256", value(hex(&entry.digest)));
    table.insert("created", value(entry.created.datetime()));
    if let Some(expires) = entry.expires {
        table.insert("expires", value(expires.datetime()));
    }
    if let Some(models) = &entry.models {
        table.insert("models", value(models.iter().collect::<Array>()));
    }
    if entry.priority != 0 {
        table.insert("priority", value(i64::from(entry.priority)));
    }
    if entry.explain {
        table.insert("explain", value(true));
    }
    let limits = [
        (CONCURRENCY_MAX, entry.limits.concurrency_max),
        (REQUESTS_PER_MINUTE, entry.limits.requests_per_minute),
        (TOKENS_PER_MINUTE, entry.limits.tokens_per_minute),
    ];
    for (field, limit) in limits {
        if let Some(limit) = limit.and_then(|limit| i64::try_from(limit).ok()) {
            table.insert(field, value(limit));
        }
    }
    if !entry.defaults.is_empty() {
        let fields = entry.defaults.iter().map(|(name, value)| (name, toml(value)));
        table.insert("defaults", value(fields.collect::<InlineTable>()));
    }
    table
}

/// A default's value. Of numbers, those beyond TOML's are written as the nearest that it has.
fn toml(value: &Value) -> toml_edit::Value {
    match value {
        Value::String(text) => text.into(),
        Value::Bool(switch) => (*switch).into(),
        number => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        thread,
    };

    const NOW: u64 = 1_796_000_000;

    fn named(name: &str) -> NewKey {
        NewKey { name: name.into(), ..NewKey::default() }
    }

    fn make(path: &Path, name: &str) -> Created {
        create(path, named(name), Timestamp::from_unix(NOW)).expect("created")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_kept_as_a_digest_and_revoked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        let now = Timestamp::from_unix(NOW);
        let mut defaults = Defaults::default();
        for pair in ["max_tokens=256", "temperature=0.25", "effort=low", "logprobs=true"] {
            defaults.add_pair(pair).expect("a default");
        }
        let new = NewKey {
            defaults,
            models: Some(vec!["m".into()]),
            expires: Some(Timestamp::from_unix(NOW + 60)),
            priority: 7,
            explain: true,
            limits: KeyLimits {
                concurrency_max: Some(2),
                requests_per_minute: None,
                tokens_per_minute: Some(9_000),
            },
            ..named("mobile app")
        };
        let created = create(&path, new, now).expect("created");
        assert_eq!(created.new_pepper.as_deref(), Some(&*folder.path().join("keys.pepper")));
        assert_eq!((mode(&path), mode(&folder.path().join("keys.pepper"))), (0o600, 0o600));
        let text = fs::read_to_string(&path).expect("text");
        let (_, secret) = created.key.expose().rsplit_once('_').expect("its form");
        assert!(!text.contains(secret), "{text}");
        let file = KeysFile::read(&path).expect("valid");
        assert_eq!(file.keys, std::slice::from_ref(&created.entry));
        let pepper = file.pepper(&path).expect("the same");
        assert!(pepper.matches(created.key.expose().as_bytes(), &created.entry.digest));
        let revoked = revoke(&path, "mobile app", Timestamp::from_unix(NOW + 5)).expect("revoked");
        assert_eq!(KeysFile::read(&path).expect("valid").keys, [revoked]);
        assert!(!folder.path().join("keys.toml.new").exists());
    }

    #[test]
    fn comments_of_people_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        make(&path, "one");
        let text = fs::read_to_string(&path).expect("text").replace("name", "# Bob's\nname");
        fs::write(&path, &text).expect("written");
        make(&path, "two");
        revoke(&path, "one", Timestamp::from_unix(NOW)).expect("revoked");
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.contains("# Bob's") && text.starts_with("# Who may use"), "{text}");
        assert_eq!(text.matches("\n\n[[key]]").count(), 2, "{text}");
    }

    #[test]
    fn a_key_is_found_by_name_id_or_itself_and_told_of_without_its_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        let now = Timestamp::from_unix(NOW);
        let keys: Vec<_> = ["a", "b", "c"].map(|name| make(&path, name)).into_iter().collect();
        let whole = keys[2].key.expose();
        for (which, key) in
            [("a", &keys[0]), (&format!("inf_{}", keys[1].entry.id), &keys[1]), (whole, &keys[2])]
        {
            assert_eq!(revoke(&path, which, now).expect("revoked").id, key.entry.id);
            let error = revoke(&path, which, now).expect_err("again").to_string();
            assert!(error.contains("was revoked at 2026-"), "{error}");
        }
        let again = make(&path, "a");
        assert_eq!(revoke(&path, "a", now).expect("the live one").id, again.entry.id);
        let other = whole.replace("inf_", "inf_x").replacen(char::is_alphanumeric, "i", 1);
        for which in ["nobody", &other] {
            let error = revoke(&path, which, now).expect_err("unknown").to_string();
            assert!(error.contains("there is no key"), "{error}");
        }
        let stranger = format!("inf_00000000_{}", whole.rsplit_once('_').expect("its form").1);
        let error = revoke(&path, &stranger, now).expect_err("unknown").to_string();
        assert!(error.contains("`00000000`") && !error.contains(&stranger[13..]), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        let now = Timestamp::from_unix(NOW);
        let refused = |new: NewKey| create(&path, new, now).expect_err("refused").to_string();
        assert!(refused(named("")).contains("a name has"));
        assert!(!path.exists(), "nothing was made");
        make(&path, "taken");
        let before = fs::read_to_string(&path).expect("text");
        assert!(refused(named("taken")).contains("has the name `taken`"));
        assert!(refused(named("two\nlines")).contains("a name has"));
        assert!(refused(NewKey { models: Some(vec![]), ..named("n") }).contains("models has"));
        assert_eq!(fs::read_to_string(&path).expect("text"), before);
        let missing = folder.path().join("no/keys.toml");
        let error = create(&missing, named("n"), now).expect_err("no folder").to_string();
        assert!(error.contains("make it first"), "{error}");
        let pepper = folder.path().join("keys.pepper");
        fs::write(&pepper, "0".repeat(43)).expect("written");
        assert!(refused(named("n")).contains("is not the pepper"));
        fs::write(&path, format!("{before}\nnonsense = 1")).expect("written");
        assert!(refused(named("n")).contains("unknown field `nonsense`"));
        fs::write(&path, &before).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
        assert!(refused(named("n")).contains("can be written by every user"));
    }

    #[test]
    fn a_file_keeps_its_permissions_and_a_link_its_target() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("keys.toml"), folder.path().join("link.toml"));
        make(&path, "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        symlink(&path, &link).expect("linked");
        make(&link, "two");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!((mode(&path), KeysFile::read(&path).expect("valid").keys.len()), (0o640, 2));
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for n in 0..5 {
                        make(path, &format!("{writer}-{n}"));
                    }
                });
            }
        });
        assert_eq!(KeysFile::read(&path).expect("valid").keys.len(), 40);
    }
}
