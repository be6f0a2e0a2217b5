//! Defaults, then files, then the environment, then `--set`: later layers win.

use super::{
    Config, env,
    keys::{self, KEYS},
    nearest,
};
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use std::path::{Path, PathBuf};

/// The files read when neither `--config` nor `INFERNO_CONFIG` names one; both may be absent.
const DEFAULT_FILES: &[&str] = &["/etc/inferno/inferno.toml", "inferno.toml"];

/// A shorter lease would be renewed without end.
const LEASE_MS_MIN: u64 = 1_000;

/// Names of the layers that are no files.
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "--set";

/// The flags that every program of ours takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file, instead of /etc/inferno/inferno.toml and ./inferno.toml
    #[arg(long, value_name = "FILE", env = "INFERNO_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, over files and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Why a configuration cannot be used. Each text names the offending key, variable or file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was asked for by name is not there or cannot be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A key that does not exist.
    #[error("unknown key `{name}` in {origin}{hint}")]
    UnknownKey {
        /// The key as written.
        name: String,
        /// File or flag it stands in.
        origin: String,
        /// The nearest known name.
        hint: String,
    },
    /// An `INFERNO_*` variable that does not exist.
    #[error("unknown environment variable {name}{hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest known name.
        hint: String,
    },
    /// A flat and a nested variable that disagree.
    #[error("{one} and {two} set the same key to different values; remove one")]
    Conflict {
        /// The nested name.
        one: String,
        /// The flat name.
        two: String,
    },
    /// A value of the wrong form.
    #[error("{origin}: {why}")]
    Value {
        /// Variable, flag or key.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--set` without an equals sign.
    #[error("--set takes KEY=VALUE, got `{0}`")]
    Set(String),
    /// A value that figment or serde refused, with its key and source.
    #[error("{0}")]
    Layer(#[from] Box<figment::Error>),
}

/// One key as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted name.
    pub name: &'static str,
    /// Its value, as JSON; none: not set, and without a fixed default.
    pub value: Option<String>,
    /// `default`, a file, a variable or `--set`.
    pub origin: String,
}

impl Config {
    /// Loads the configuration of this process: files, environment and flags over the defaults.
    pub fn load(args: &ConfigArgs) -> Result<Config, ConfigError> {
        Self::from_layers(args, &env::read_own()?)
    }

    /// The same, with the environment given.
    pub fn from_layers(
        args: &ConfigArgs,
        environment: &env::Environment,
    ) -> Result<Config, ConfigError> {
        let mut config: Config = layered(args, environment)?.extract().map_err(Box::new)?;
        config.notices = environment.notices.clone();
        config.validate()?;
        Ok(config)
    }

    /// Every key with its value and where that came from, if the whole is valid.
    pub fn settings(
        args: &ConfigArgs,
        environment: &env::Environment,
    ) -> Result<Vec<Setting>, ConfigError> {
        let config = Self::from_layers(args, environment)?;
        let figment = layered(args, environment)?;
        let values = serde_json::to_value(&config).unwrap_or_default();
        let setting = |key: &keys::Key| {
            let pointer = format!("/{}", key.name.replace('.', "/"));
            let value = values.pointer(&pointer).filter(|value| !value.is_null());
            let origin = origin(&figment, key.name, environment);
            Setting { name: key.name, value: value.map(ToString::to_string), origin }
        };
        Ok(KEYS.iter().map(setting).collect())
    }

    /// What no type can express.
    fn validate(&self) -> Result<(), ConfigError> {
        let positive: &[(&str, u64)] = &[
            ("health.interval_ms", self.health.interval_ms),
            ("health.timeout_ms", self.health.timeout_ms),
            ("proxy.timeouts.connect_ms", self.proxy.timeouts.connect_ms),
            ("proxy.timeouts.first_byte_ms", self.proxy.timeouts.first_byte_ms),
            ("proxy.timeouts.idle_ms", self.proxy.timeouts.idle_ms),
            ("proxy.timeouts.request_read_ms", self.proxy.timeouts.request_read_ms),
            ("backend.max_concurrency", self.backend.max_concurrency as u64),
            ("backend.threads", self.backend.threads.unwrap_or(1) as u64),
            ("backend.context_max", self.backend.context_max.unwrap_or(1) as u64),
        ];
        for (name, value) in positive {
            if *value == 0 {
                return Err(value_error(name, "must be greater than 0"));
            }
        }
        if self.registration.lease_ms < LEASE_MS_MIN {
            let why = format!("must be at least {LEASE_MS_MIN}");
            return Err(value_error("registration.lease_ms", &why));
        }
        if let Some(id) = &self.node.id
            && !crate::registration::wire::is_valid_id(id)
        {
            return Err(value_error("node.id", "must be 1-128 of [A-Za-z0-9._-]"));
        }
        Ok(())
    }
}

/// Defaults, files, environment, flags; later ones win.
fn layered(args: &ConfigArgs, environment: &env::Environment) -> Result<Figment, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    for path in files(args)? {
        let layer = Figment::from(Toml::file_exact(&path));
        refuse_unknown_keys(&layer, &path)?;
        figment = figment.merge(layer);
    }
    let environment = Layer { name: ENVIRONMENT, values: environment.values.clone() };
    Ok(figment.merge(environment).merge(flags(&args.set)?))
}

/// Where the value of `name` came from, in a word that leads there.
fn origin(figment: &Figment, name: &str, environment: &env::Environment) -> String {
    let Some(metadata) = figment.find_metadata(name) else { return "default".into() };
    let file = metadata.source.as_ref().and_then(figment::Source::file_path);
    match (file, metadata.name.as_ref()) {
        (Some(file), _) => file.display().to_string(),
        (None, ENVIRONMENT) => environment.origins.get(name).cloned().unwrap_or_default(),
        (None, FLAGS) => FLAGS.into(),
        (None, _) => "default".into(),
    }
}

fn value_error(key: &str, why: &str) -> ConfigError {
    ConfigError::Value { origin: key.into(), why: why.into() }
}

/// The files to read. One that was named must exist; the default ones need not.
fn files(args: &ConfigArgs) -> Result<Vec<PathBuf>, ConfigError> {
    let named = args.config.clone().filter(|path| !path.as_os_str().is_empty());
    match named {
        Some(path) => {
            std::fs::File::open(&path)
                .map_err(|source| ConfigError::File { path: path.clone(), source })?;
            Ok(vec![path])
        }
        None => Ok(DEFAULT_FILES.iter().map(PathBuf::from).filter(|path| path.exists()).collect()),
    }
}

/// `--set` flags as a layer.
fn flags(set: &[String]) -> Result<Layer, ConfigError> {
    let mut layer = Layer { name: FLAGS, values: Default::default() };
    for pair in set {
        let (name, text) = pair.split_once('=').ok_or_else(|| ConfigError::Set(pair.clone()))?;
        let key = keys::find(name.trim()).ok_or_else(|| unknown_key(name, "--set"))?;
        let value = env::parse(key, text)
            .map_err(|why| ConfigError::Value { origin: format!("--set {name}"), why })?;
        layer.values.insert(key.name, value);
    }
    Ok(layer)
}

/// Refuses what serde would refuse too, but with the nearest known name.
fn refuse_unknown_keys(layer: &Figment, path: &Path) -> Result<(), ConfigError> {
    let data = layer.data().map_err(Box::new)?;
    let mut names = Vec::new();
    for dict in data.values() {
        flatten(dict, "", &mut names);
    }
    match names.iter().find(|name| keys::find(name).is_none()) {
        Some(name) => Err(unknown_key(name, &path.display().to_string())),
        None => Ok(()),
    }
}

fn unknown_key(name: &str, origin: &str) -> ConfigError {
    ConfigError::UnknownKey {
        name: name.into(),
        origin: origin.into(),
        hint: nearest::hint(name, KEYS.iter().map(|key| key.name)),
    }
}

/// Dotted names of all leaves.
pub(super) fn flatten(dict: &Dict, prefix: &str, names: &mut Vec<String>) {
    for (name, value) in dict {
        let dotted = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) => flatten(inner, &dotted, names),
            _ => names.push(dotted),
        }
    }
}

/// Values by dotted key as a figment provider.
struct Layer {
    name: &'static str,
    values: std::collections::BTreeMap<&'static str, Value>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (name, value) in &self.values {
            env::insert(&mut dict, name, value.clone());
        }
        Ok(Profile::Default.collect(dict))
    }
}
