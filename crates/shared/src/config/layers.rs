//! Defaults, then files, then the environment, then `--set`: later layers win.

use super::{
    Config, Notices, env, file,
    keys::{self, KEYS, Key},
    kind::is_none,
    nearest,
    problem::{ConfigError, Problem},
    rules, secret,
};
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

/// The files read when neither `--config` nor `INFERNO_CONFIG` names one; both may be absent.
const DEFAULT_FILES: &[&str] = &["/etc/inferno/inferno.toml", "inferno.toml"];

/// The flags that every program of ours takes.
#[derive(Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file, instead of /etc/inferno/inferno.toml and ./inferno.toml
    #[arg(long, value_name = "FILE", env = "INFERNO_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, over files and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl fmt::Debug for ConfigArgs {
    /// Without the values: one of them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.set.iter().filter_map(|pair| pair.split('=').next()).collect();
        f.debug_struct("ConfigArgs").field("config", &self.config).field("set", &keys).finish()
    }
}

/// One key as it takes effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// Its value, a secret's hidden; none: not set, and without a fixed default.
    pub value: Option<serde_json::Value>,
    /// `default`, a file with its line, a variable or `--set`.
    pub origin: String,
    /// Whether something other than the default was asked for.
    pub is_changed: bool,
}

impl Config {
    /// Loads the configuration of this process: files, environment and flags over the defaults.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(args: &ConfigArgs) -> Result<Config, ConfigError> {
        Self::from_sources(args, std::env::vars_os())
    }

    /// The same, with the environment given.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn from_sources(
        args: &ConfigArgs,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        Ok(sourced(args, variables)?.0)
    }

    /// The configuration of these sources if each value by itself is understood, and what of it does not
    /// fit together: for who wants to look on and complain of everything at once.
    ///
    /// # Errors
    /// With everything that is not understood.
    pub fn examine(
        args: &ConfigArgs,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Config, Vec<Problem>), ConfigError> {
        let (config, _) = understood(args, variables)?;
        let problems = rules::broken(&config);
        Ok((config, problems))
    }

    /// Every key with its value and where that came from, if the whole is valid.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn settings(
        args: &ConfigArgs,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<Setting>, ConfigError> {
        let (config, layer) = sourced(args, variables)?;
        let (values, defaults) = (json(&config), json(&Config::default()));
        let setting = |key: &'static Key| {
            let of = |all: &serde_json::Value| all.pointer(&pointer(key.name)).cloned();
            let value = of(&values).filter(|value| !value.is_null());
            let is_changed = of(&values) != of(&defaults);
            let origin = layer.values.get(key.name).map(|placed| placed.origin.to_string());
            Setting { key, value, origin: origin.unwrap_or_else(|| "default".into()), is_changed }
        };
        Ok(KEYS.iter().map(setting).collect())
    }
}

/// The key called `name`, or all keys of the table called so.
///
/// # Errors
/// If there is neither; the nearest key is named.
pub fn keys_of(name: &str) -> Result<Vec<&'static Key>, Problem> {
    let inside =
        || keys::table(name).map(|names| names.into_iter().filter_map(keys::find).collect());
    match keys::find(name) {
        Some(key) => Ok(vec![key]),
        None => inside().ok_or_else(|| unknown_key(name, &Origin::Argument)),
    }
}

/// The configuration as JSON; secrets are hidden.
pub(super) fn json(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// Where [`json`] has the key `name` (RFC 6901).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('.', "/"))
}

/// The configuration, and where its values came from.
fn sourced(
    args: &ConfigArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Config, Layer), ConfigError> {
    let (config, layer) = understood(args, variables)?;
    match rules::broken(&config) {
        problems if problems.is_empty() => Ok((config, layer)),
        problems => Err(ConfigError { problems }),
    }
}

/// The same, of values that may not fit each other.
fn understood(
    args: &ConfigArgs,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Config, Layer), ConfigError> {
    let mut layer = Layer::default();
    for file in files(args, &mut layer.problems) {
        layer.extend(file);
    }
    layer.extend(env::read(variables));
    layer.extend(flags(&args.set));
    secret::read_twins(&mut layer);
    if !layer.problems.is_empty() {
        return Err(ConfigError { problems: layer.problems });
    }
    let mut config = layer.typed()?;
    config.notices = layer.notices.clone();
    Ok((config, layer))
}

/// The files to read. One that was named must exist; the default ones need not.
fn files(args: &ConfigArgs, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let named = args.config.clone().filter(|path| !path.as_os_str().is_empty());
    let is_named = named.is_some();
    let paths =
        named.map_or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).collect(), |path| vec![path]);
    let mut layers = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => layers.push(file::read(&path, &text)),
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound && !is_named => {}
            Err(source) => problems.push(Problem::File { path, source }),
        }
    }
    layers
}

/// `--set` flags as a layer.
fn flags(set: &[String]) -> Layer {
    let mut layer = Layer::default();
    for pair in set {
        let Some((name, text)) = pair.split_once('=') else {
            layer.problems.push(Problem::Set(pair.clone()));
            continue;
        };
        let name = name.trim();
        match keys::find(name) {
            Some(key) => layer.take(key, key.parse(text), Origin::Flag),
            None => layer.problems.push(unknown_key(name, &Origin::Flag)),
        }
    }
    layer
}

/// `name` stands where a key should, and is none.
pub(super) fn unknown_key(name: &str, origin: &Origin) -> Problem {
    if let Some(keys) = keys::table(name) {
        return Problem::Value { origin: origin.of(name), why: is_a_table(name, &keys) };
    }
    Problem::UnknownKey {
        name: name.into(),
        origin: origin.to_string(),
        hint: nearest::hint(name, keys::names(matches!(origin, Origin::Argument))),
    }
}

/// `proxy` was given a value.
pub(super) fn is_a_table(name: &str, keys: &[&str]) -> String {
    let some: Vec<_> = keys.iter().take(3).copied().collect();
    let more = if keys.len() > some.len() { ", …" } else { "" };
    format!("{name} is a table of keys, not a key; its keys are {}{more}", some.join(", "))
}

/// What one source says, or several over each other: values by dotted key.
#[derive(Debug, Default)]
pub(super) struct Layer {
    values: BTreeMap<&'static str, Placed>,
    pub(super) notices: Notices,
    pub(super) problems: Vec<Problem>,
}

/// A value, and where it stands.
pub(super) struct Placed {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl fmt::Debug for Placed {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placed({})", self.origin)
    }
}

/// A place where values stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A configuration file; lines count from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Variable(String),
    /// `--set`
    Flag,
    /// An argument that names a key.
    Argument,
    /// The file that a `_file` twin names.
    Secret { path: PathBuf },
}

impl Origin {
    /// The place of the key `name`, in a word that leads there.
    pub(super) fn of(&self, name: &str) -> String {
        match self {
            Self::File { .. } | Self::Secret { .. } => format!("{self}: {name}"),
            Self::Variable(variable) => variable.clone(),
            Self::Flag => format!("--set {name}"),
            Self::Argument => name.to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(variable) => f.write_str(variable),
            Self::Flag => f.write_str("--set"),
            Self::Argument => f.write_str("the arguments"),
            Self::Secret { path } => write!(f, "{}", path.display()),
        }
    }
}

impl Layer {
    /// What was said of `name`, unless that was nothing.
    pub(super) fn get(&self, name: &str) -> Option<&Placed> {
        self.values.get(name).filter(|placed| !is_none(&placed.value))
    }

    pub(super) fn set(&mut self, key: &Key, placed: Placed) {
        self.values.insert(key.name, placed);
    }

    /// A value that `origin` gives `key`, or why it cannot be used.
    pub(super) fn take(&mut self, key: &Key, value: Result<Value, String>, origin: Origin) {
        match value {
            Ok(value) => self.set(key, Placed { value, origin }),
            Err(why) => self.problems.push(Problem::Value { origin: origin.of(key.name), why }),
        }
    }

    /// Lays `later` over this one.
    fn extend(&mut self, later: Layer) {
        self.values.extend(later.values);
        self.notices.extend(later.notices);
        self.problems.extend(later.problems);
    }

    /// These values over the defaults.
    fn typed(&self) -> Result<Config, ConfigError> {
        let figment = Figment::from(Serialized::defaults(Config::default())).merge(self);
        figment.extract().map_err(|errors| {
            let problem = |error: figment::Error| {
                let name = error.path.join(".");
                let origin = self.values.get(name.as_str()).map(|placed| placed.origin.of(&name));
                Problem::Value { origin: origin.unwrap_or(name), why: error.kind.to_string() }
            };
            ConfigError { problems: errors.into_iter().map(problem).collect() }
        })
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("files, environment and flags")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (name, placed) in &self.values {
            insert(&mut dict, name, placed.value.clone());
        }
        Ok(Profile::Default.collect(dict))
    }
}

/// Puts `value` at the dotted `name` inside `dict`.
fn insert(dict: &mut Dict, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            dict.insert(name.into(), value);
        }
        Some((table, rest)) => {
            let entry = dict.entry(table.into()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}
