//! The keys file: TOML that `inferno key` writes and people may edit.
//!
//! Nothing in it is ignored: what is unknown, double or without meaning is an error with its line.

use super::{
    KeyId, KeysError, Timestamp,
    pepper::{Digest, Pepper, unhex},
    private,
};
use crate::transform::Defaults;
use inferno_shared::config::{KeyLimits, nearest_hint};
use serde_json::Value;
use std::{
    collections::HashMap,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};
use toml_edit::{Document, Item, Table, TableLike};

/// Most keys in a file.
pub(super) const KEYS_MAX: usize = 10_000;
/// Largest file.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Longest name of a key, in characters.
const NAME_MAX: usize = 64;
/// Most models that one key may list, and the longest name of one in bytes.
const MODELS_MAX: usize = 256;
const MODEL_BYTES_MAX: usize = 256;

/// The fields of the file, and of each key in it.
const FIELDS: [&str; 3] = ["pepper_file", "pepper_check", "key"];
const KEY_FIELDS: [&str; 13] = [
    "id",
    "name",
    "hmac_sha256",
    "created",
    "expires",
    "revoked",
    "models",
    "priority",
    "explain",
    CONCURRENCY_MAX,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    "defaults",
];
pub(super) const CONCURRENCY_MAX: &str = "concurrency_max";
pub(super) const REQUESTS_PER_MINUTE: &str = "requests_per_minute";
pub(super) const TOKENS_PER_MINUTE: &str = "tokens_per_minute";
/// The priorities that a key may have.
pub const PRIORITIES: RangeInclusive<i32> = -100..=100;

/// One key, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its public part.
    pub id: KeyId,
    /// What people call it; no two that are not revoked have the same.
    pub name: String,
    /// HMAC-SHA-256 of the whole key under the pepper.
    pub(super) digest: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// The models it may use, at least one; none: every model.
    pub models: Option<Vec<String>>,
    /// Whose requests a backend computes first: those with the highest. 0 if nothing is said.
    pub priority: i32,
    /// Whether it may have its requests' routing explained.
    pub explain: bool,
    /// How much of everything it may; where nothing is said, `proxy.key_limits.*` decides.
    pub limits: KeyLimits,
    /// Fields for its requests that do not have them.
    pub defaults: Defaults,
}

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It opens the door.
    Usable,
    /// It was good until a time that is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl KeyEntry {
    /// What it is good for at `now`.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked.is_some() {
            KeyState::Revoked
        } else if self.expires.is_some_and(|expires| expires <= now) {
            KeyState::Expired
        } else {
            KeyState::Usable
        }
    }
}

/// What a keys file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysFile {
    /// Where the pepper is.
    pub pepper_file: PathBuf,
    /// [`Pepper::check`] of the pepper that the keys were made with.
    pub(super) pepper_check: String,
    /// In the file's order.
    pub keys: Vec<KeyEntry>,
}

impl KeysFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is over 8 MiB or 10,000 keys, can be written by every user, or says
    /// anything that is not understood.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        Self::parse(path, &private::read(path, FILE_BYTES_MAX)?.text)
    }

    /// What `text`, the content of `path`, says.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, KeysError> {
        let reader = Reader { path, text };
        let document =
            Document::parse(text).map_err(|error| reader.wrong(error.span(), error.message()))?;
        reader.file(document.as_table())
    }

    /// The pepper that the keys were made with.
    pub(super) fn pepper(&self, path: &Path) -> Result<Pepper, KeysError> {
        let pepper = Pepper::read(&self.pepper_file)?;
        if pepper.check() == self.pepper_check {
            return Ok(pepper);
        }
        Err(KeysError::OtherPepper { pepper: self.pepper_file.clone(), keys: path.into() })
    }
}

/// What is wrong with `name` as the name of a key.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = !name.chars().any(char::is_control) && name.trim() == name;
    match name.chars().count() {
        1..=NAME_MAX if is_plain => Ok(()),
        _ => Err(format!(
            "a name has 1 to {NAME_MAX} characters, none of them a control character, and no space at its ends"
        )),
    }
}

/// What is wrong with `models` as those of a key.
pub(super) fn check_models(models: &[String]) -> Result<(), String> {
    let is_name = |model: &String| (1..=MODEL_BYTES_MAX).contains(&model.len());
    if !(1..=MODELS_MAX).contains(&models.len()) || !models.iter().all(is_name) {
        return Err(format!(
            "models has 1 to {MODELS_MAX} names of 1 to {MODEL_BYTES_MAX} bytes; without it a key may use all"
        ));
    }
    Ok(())
}

/// A value as JSON has it; null, if it is no text, number, true or false, or a number that JSON does not have.
fn scalar(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(switch) => Value::from(*switch.value()),
        _ => Value::Null,
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn file(&self, table: &Table) -> Result<KeysFile, KeysError> {
        self.check_fields(table, &FIELDS)?;
        let pepper_file = Path::new(self.required(table, "pepper_file", None)?);
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let keys = match table.get("key") {
            None => Vec::new(),
            Some(Item::ArrayOfTables(tables)) => {
                tables.iter().map(|table| self.key(table)).collect::<Result<_, _>>()?
            }
            Some(item) => return Err(self.wrong(item.span(), "write each key as a table [[key]]")),
        };
        let file = KeysFile {
            pepper_file: folder.join(pepper_file),
            pepper_check: self.required(table, "pepper_check", None)?.to_owned(),
            keys,
        };
        self.check_keys(&file.keys, table)?;
        Ok(file)
    }

    /// What no two keys may share.
    fn check_keys(&self, keys: &[KeyEntry], table: &Table) -> Result<(), KeysError> {
        let span = |at: usize| table.get("key")?.as_array_of_tables()?.get(at)?.span();
        if keys.len() > KEYS_MAX {
            return Err(self.wrong(span(KEYS_MAX), format!("more than {KEYS_MAX} keys")));
        }
        let (mut ids, mut names) = (HashMap::new(), HashMap::new());
        for (at, key) in keys.iter().enumerate() {
            if ids.insert(key.id, at).is_some() {
                return Err(self.wrong(span(at), format!("the id {} is there twice", key.id)));
            }
            if key.revoked.is_none() && names.insert(&key.name, at).is_some() {
                let why = format!("the name `{}` is there twice, and neither is revoked", key.name);
                return Err(self.wrong(span(at), why));
            }
        }
        Ok(())
    }

    fn key(&self, table: &Table) -> Result<KeyEntry, KeysError> {
        self.check_fields(table, &KEY_FIELDS)?;
        let span = table.span();
        let required = |field| self.required(table, field, span.clone());
        let id = KeyId::parse(required("id")?)
            .ok_or_else(|| self.wrong_field(table, "id", "is not 8 letters and digits"))?;
        let name = required("name")?.to_owned();
        check_name(&name)
            .map_err(|why| self.wrong_field(table, "name", &format!("is none: {why}")))?;
        let digest = unhex(required("hmac_sha256")?).ok_or_else(|| {
            self.wrong_field(table, "hmac_sha256", "is not 64 hexadecimal digits")
        })?;
        let created = self.time(table, "created")?;
        Ok(KeyEntry {
            id,
            name,
            digest,
            created: created.ok_or_else(|| self.missing("created", span))?,
            expires: self.time(table, "expires")?,
            revoked: self.time(table, "revoked")?,
            models: self.models(table)?,
            priority: self.priority(table)?,
            explain: self.explain(table)?,
            limits: KeyLimits {
                concurrency_max: self.limit(table, CONCURRENCY_MAX)?,
                requests_per_minute: self.limit(table, REQUESTS_PER_MINUTE)?,
                tokens_per_minute: self.limit(table, TOKENS_PER_MINUTE)?,
            },
            defaults: self.defaults(table)?,
        })
    }

    fn priority(&self, table: &Table) -> Result<i32, KeysError> {
        const FIELD: &str = "priority";
        let Some(item) = table.get(FIELD) else { return Ok(0) };
        let number = item.as_integer().and_then(|number| i32::try_from(number).ok());
        number.filter(|number| PRIORITIES.contains(number)).ok_or_else(|| {
            let (least, most) = (PRIORITIES.start(), PRIORITIES.end());
            self.wrong_field(table, FIELD, &format!("is not a whole number from {least} to {most}"))
        })
    }

    fn explain(&self, table: &Table) -> Result<bool, KeysError> {
        const FIELD: &str = "explain";
        let Some(item) = table.get(FIELD) else { return Ok(false) };
        item.as_bool().ok_or_else(|| self.wrong_field(table, FIELD, "is not true or false"))
    }

    fn limit(&self, table: &Table, field: &str) -> Result<Option<u64>, KeysError> {
        let Some(item) = table.get(field) else { return Ok(None) };
        let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|&number| number > 0);
        let wrong = || self.wrong_field(table, field, "is not a whole number, at least 1");
        number.map(Some).ok_or_else(wrong)
    }

    fn defaults(&self, table: &Table) -> Result<Defaults, KeysError> {
        const FIELD: &str = "defaults";
        let mut defaults = Defaults::default();
        let Some(item) = table.get(FIELD) else { return Ok(defaults) };
        let fields = item.as_table_like().ok_or_else(|| {
            self.wrong_field(table, FIELD, "is not a table: { max_tokens = 256, top_p = 0.9 }")
        })?;
        for (name, item) in fields.iter() {
            let added = defaults.add(name, item.as_value().map_or(Value::Null, scalar));
            added.map_err(|why| {
                let span = fields.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
                self.wrong(span, format!("`{FIELD}` is wrong: {why}"))
            })?;
        }
        Ok(defaults)
    }

    fn models(&self, table: &Table) -> Result<Option<Vec<String>>, KeysError> {
        const FIELD: &str = "models";
        let Some(item) = table.get(FIELD) else { return Ok(None) };
        let names = item.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        let names = names.ok_or_else(|| self.wrong_field(table, FIELD, "is not a list of text"))?;
        check_models(&names)
            .map_err(|why| self.wrong_field(table, FIELD, &format!("is wrong: {why}")))?;
        Ok(Some(names))
    }

    fn time(&self, table: &Table, field: &str) -> Result<Option<Timestamp>, KeysError> {
        let Some(item) = table.get(field) else { return Ok(None) };
        let time = item.as_datetime().and_then(Timestamp::of);
        let wrong = || {
            self.wrong_field(
                table,
                field,
                "is not a date, or a date and time with an offset: 2027-01-31T18:00:00Z, without quotes",
            )
        };
        time.map(Some).ok_or_else(wrong)
    }

    fn required<'t>(
        &self,
        table: &'t Table,
        field: &str,
        span: Option<Range<usize>>,
    ) -> Result<&'t str, KeysError> {
        let item = table.get(field).ok_or_else(|| self.missing(field, span))?;
        item.as_str().ok_or_else(|| self.wrong_field(table, field, "is not text in quotes"))
    }

    fn check_fields(&self, table: &dyn TableLike, known: &[&str]) -> Result<(), KeysError> {
        for (name, item) in table.iter() {
            if !known.contains(&name) {
                let hint = nearest_hint(name, known.iter().copied());
                let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
                return Err(self.wrong(span, format!("unknown field `{name}`{hint}")));
            }
        }
        Ok(())
    }

    fn missing(&self, field: &str, span: Option<Range<usize>>) -> KeysError {
        self.wrong(span, format!("`{field}` is missing"))
    }

    fn wrong_field(&self, table: &Table, field: &str, why: &str) -> KeysError {
        self.wrong(table.get(field).and_then(Item::span), format!("`{field}` {why}"))
    }

    fn wrong(&self, span: Option<Range<usize>>, why: impl Into<String>) -> KeysError {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        KeysError::Form { path: self.path.into(), line, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "pepper_file = \"p\"\npepper_check = \"0011223344556677\"\n";

    fn key(more: &str) -> String {
        let digest = "ab".repeat(32);
        format!(
            "[[key]]\nid = \"abcDEF12\"\nname = \"n\"\nhmac_sha256 = \"{digest}\"\ncreated = 2026-11-25T21:00:00Z\n{more}"
        )
    }

    fn parse(text: &str) -> Result<KeysFile, String> {
        KeysFile::parse(Path::new("/etc/inferno/keys.toml"), text)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_who_may_what() {
        let more = "expires = 2027-01-31\nrevoked = 2026-12-01T00:00:00+01:00\nmodels = [\"m\", \"org/n\"]\npriority = -5\nexplain = true\nconcurrency_max = 2\nrequests_per_minute = 60\ntokens_per_minute = 9000\ndefaults = { max_tokens = 256, top_p = 0.5, user = \"u\", logprobs = true }\n";
        let file = parse(&format!("# ours\n{HEAD}{}", key(more))).expect("valid");
        assert_eq!(file.pepper_file, Path::new("/etc/inferno/p"));
        let [key] = file.keys.as_slice() else { panic!("one key") };
        assert_eq!((key.id.as_str(), key.name.as_str()), ("abcDEF12", "n"));
        assert_eq!(key.digest, [0xab; 32]);
        assert_eq!(key.created.to_string(), "2026-11-25T21:00:00Z");
        assert_eq!(key.expires.map(|at| at.to_string()).as_deref(), Some("2027-01-31T00:00:00Z"));
        assert_eq!(key.revoked.map(|at| at.to_string()).as_deref(), Some("2026-11-30T23:00:00Z"));
        assert_eq!(key.models.as_deref(), Some(&["m".to_owned(), "org/n".to_owned()][..]));
        assert_eq!((key.priority, key.explain), (-5, true));
        let limits = &key.limits;
        assert_eq!((limits.concurrency_max, limits.requests_per_minute), (Some(2), Some(60)));
        assert_eq!(limits.tokens_per_minute, Some(9_000));
        let defaults = "max_tokens=256 top_p=0.5 user=\"u\" logprobs=true";
        assert_eq!(key.defaults.to_string(), defaults);
        let table = "[key.defaults]\nmax_tokens = 256";
        let file =
            parse(&format!("{HEAD}{}", super::tests::key(table))).expect("a table of its own");
        assert_eq!(file.keys[0].defaults.to_string(), "max_tokens=256");
        assert_eq!(parse(HEAD).expect("valid").keys, [], "nobody yet");
        let elsewhere = parse("pepper_file = \"/run/p\"\npepper_check = \"x\"").expect("valid");
        assert_eq!(elsewhere.pepper_file, Path::new("/run/p"));
    }

    #[test]
    fn what_has_no_meaning_is_an_error_with_its_line() {
        let with = |more: &str| format!("{HEAD}{}", key(more));
        let without = |line: &str| {
            let good = with("");
            good.lines().filter(|l| !l.starts_with(line)).collect::<Vec<_>>().join("\n")
        };
        for (text, line, why) in [
            ("pepper_file = ".into(), 1, ""),
            ("pepper_check = \"x\"".into(), 1, "`pepper_file` is missing"),
            (format!("{HEAD}peper = 1"), 3, "unknown field `peper`"),
            (with("modles = [\"m\"]"), 8, "unknown field `modles`; did you mean `models`?"),
            (format!("{HEAD}keys = []"), 3, "did you mean `key`?"),
            (format!("{HEAD}key = []"), 3, "[[key]]"),
            (without("id"), 3, "`id` is missing"),
            (without("created"), 3, "`created` is missing"),
            (without("hmac"), 3, "`hmac_sha256` is missing"),
            (with("").replace("abcDEF12", "abc_EF12"), 4, "`id` is not 8 letters"),
            (with("").replace("abab", "xyxy"), 6, "64 hexadecimal digits"),
            (with("").replace("\"n\"", "\" n\""), 5, "`name` is none: a name has"),
            (with("").replace("\"n\"", "7"), 5, "`name` is not text"),
            (with("models = []"), 8, "`models` is wrong: models has 1 to 256"),
            (with("models = \"m\""), 8, "not a list of text"),
            (with("models = [1]"), 8, "not a list of text"),
            (with("priority = 101"), 8, "`priority` is not a whole number from -100 to 100"),
            (with("priority = \"1\""), 8, "not a whole number"),
            (with("explain = 1"), 8, "`explain` is not true or false"),
            (with("defaults = 1"), 8, "`defaults` is not a table"),
            (
                with("defaults = { top_p = [1] }"),
                8,
                "`defaults` is wrong: `top_p` is not text, a number",
            ),
            (with("defaults = { top_p = nan }"), 8, "`top_p` is not text, a number"),
            (
                with("[key.defaults]\ntop_p = 1\nmodel = \"m\""),
                10,
                "`model` is for the client alone",
            ),
            (with("expires = \"2027-01-31\""), 8, "without quotes"),
            (with("expires = 2027-01-31T00:00:00"), 8, "with an offset"),
            (with(&key("")), 8, "the id abcDEF12 is there twice"),
            (with(&key("").replace("abcD", "bbcD")), 8, "the name `n` is there twice"),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(
                error.starts_with(&format!("/etc/inferno/keys.toml:{line}: ")),
                "{error}\n{text}"
            );
            assert!(error.contains(why), "{error}\n{text}");
        }
        let revoked = key("revoked = 2026-12-01\n").replace("abcD", "bbcD");
        assert!(parse(&with(&revoked)).is_ok(), "a name is free again once its key is revoked");
    }

    #[test]
    fn the_number_of_keys_has_a_limit() {
        let many = (0..=KEYS_MAX).map(|n| {
            key("").replace("abcDEF12", &format!("{n:08}")).replace("\"n\"", &format!("\"{n}\""))
        });
        let many = many.collect::<String>();
        let error = parse(&format!("{HEAD}{many}")).expect_err("too many");
        assert!(error.contains("more than 10000 keys"), "{error}");
    }
}
