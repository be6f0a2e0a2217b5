//! `inferno key create|list|revoke`: the keys file of a proxy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use inferno_proxy::keys::{self, Created, KeyEntry, KeyState, KeysFile, NewKey, Timestamp};
use inferno_proxy::transform::Defaults;
use inferno_shared::config::{Config, ConfigArgs, KeyLimits};
use serde_json::{Map, Value, json};

use crate::console::{BAD, BOLD, DIM, GOOD, Styled, WARN, harmless, note, print};

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno key create 'mobile app' --file /etc/inferno/keys.toml
  inferno key create ci --models smollm2-135m-instruct --expires 90d
  inferno key create free --concurrency-max 2 --tokens-per-minute 20000
  inferno key create bob > bob.key          the key alone is on standard output
  inferno key create trial --default max_tokens=256 --default temperature=0.2
  inferno key list
  inferno key revoke 'mobile app'
  inferno chat --api-key-file bob.key Hello

A proxy asks for keys once proxy.keys_file names the file; one that runs reads
the file again on SIGHUP. docs/keys.md has the rest.";

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it, this once
    Create(CreateArgs),
    /// List the keys there are, without what is secret of them
    List {
        #[command(flatten)]
        file: FileArgs,
    },
    /// Take a key back
    Revoke {
        /// The key's id or name
        key: String,
        #[command(flatten)]
        file: FileArgs,
    },
}

/// The arguments of `key create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What to call it: who or what uses it
    name: String,
    /// The models it may use: a,b; every model if left out
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,
    /// When it ends: 90d, 12h, 2027-01-31 or 2027-01-31T18:00:00Z; never if left out
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Timestamp>,
    /// Whose requests are computed first: -100 to 100, the highest before others
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = priority)]
    priority: i32,
    /// It may ask what routing does with its requests, by the header x-inferno-explain: 1
    #[arg(long)]
    explain: bool,
    /// Requests it may have in progress at once; proxy.key_limits.concurrency_max if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    concurrency_max: Option<u64>,
    /// Requests it may send within a minute; proxy.key_limits.requests_per_minute if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_minute: Option<u64>,
    /// Tokens it may take within a minute; proxy.key_limits.tokens_per_minute if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_minute: Option<u64>,
    /// A field for its requests that do not have it: max_tokens=256; may be repeated
    #[arg(long = "default", value_name = "FIELD")]
    defaults: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
}

/// Which keys file, and how to tell of it.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The keys file; proxy.keys_file of the configuration if left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
}

pub(crate) fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::Create(args) => create(args),
        KeyCommand::List { file } => list(&file),
        KeyCommand::Revoke { key, file } => revoke(&key, &file),
    }
}

fn create(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let path = args.file.path()?;
    let models = (!args.models.is_empty()).then_some(args.models);
    let CreateArgs { name, expires, priority, explain, .. } = args;
    let limits = KeyLimits {
        concurrency_max: args.concurrency_max,
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
    };
    let mut defaults = Defaults::default();
    for pair in &args.defaults {
        defaults.add_pair(pair).map_err(|why| anyhow!("--default {pair}: {why}"))?;
    }
    let new = NewKey { name, models, expires, priority, explain, limits, defaults };
    let Created { key, entry, new_pepper } = keys::create(&path, new, Timestamp::now())?;
    if args.file.json {
        let mut object = object(&entry);
        object["key"] = key.expose().into();
        print(object)?;
    } else {
        print(key.expose())?;
    }
    if let Some(pepper) = new_pepper {
        let (keys, pepper) = (path.display(), pepper.display());
        note(format_args!("made {keys} and its pepper {pepper}: a proxy needs both"));
    }
    let kept = format_args!("{} in {}", Styled(BOLD, entry.id), path.display());
    note(format_args!(
        "This is the only time the key is shown; {kept} has no more than a digest of it.\n\
         Clients send it as `authorization: Bearer KEY`; OpenAI's read OPENAI_API_KEY."
    ));
    note(Styled(DIM, takes_effect(&path)));
    Ok(ExitCode::SUCCESS)
}

fn list(args: &FileArgs) -> anyhow::Result<ExitCode> {
    let path = args.path()?;
    let file = KeysFile::read(&path).context("no list of keys")?;
    if args.json {
        let keys: Vec<_> = file.keys.iter().map(object).collect();
        print(json!({ "file": path, "pepper_file": file.pepper_file, "keys": keys }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names = file.keys.iter().map(|key| key.name.chars().count()).max().unwrap_or_default();
    for key in &file.keys {
        print(line(key, names, Timestamp::now()))?;
    }
    let count = file.keys.len();
    let keys = if count == 1 { "key" } else { "keys" };
    print(Styled(DIM, format_args!("{count} {keys} in {}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn revoke(which: &str, args: &FileArgs) -> anyhow::Result<ExitCode> {
    let path = args.path()?;
    let entry = keys::revoke(&path, which, Timestamp::now())?;
    if args.json {
        print(object(&entry))?;
    } else {
        let (id, name) = (Styled(BOLD, entry.id), harmless(&entry.name));
        print(format_args!("revoked {id} ({name}) in {}", path.display()))?;
    }
    note(Styled(DIM, takes_effect(&path)));
    Ok(ExitCode::SUCCESS)
}

/// When a proxy acts on what was changed.
fn takes_effect(path: &Path) -> String {
    format!(
        "A proxy with proxy.keys_file = \"{}\" that runs already takes it on SIGHUP (kill -HUP PID).",
        path.display()
    )
}

/// One line of the list.
fn line(key: &KeyEntry, names: usize, now: Timestamp) -> String {
    let state = match (key.state(now), key.revoked, key.expires) {
        (KeyState::Revoked, Some(at), _) => Styled(BAD, format!("revoked {at}")),
        (KeyState::Expired, _, Some(at)) => Styled(WARN, format!("expired {at}")),
        (_, _, Some(at)) => Styled(GOOD, format!("until {at}")),
        _ => Styled(GOOD, "usable".to_owned()),
    };
    let models = key.models.as_ref().map_or("every model".to_owned(), |models| models.join(", "));
    let models = match key.priority {
        0 => models,
        priority => format!("{models}, priority {priority}"),
    };
    let models = if key.explain { format!("{models}, explain") } else { models };
    let models = limits(&key.limits).fold(models, |told, limit| format!("{told}, {limit}"));
    let models = match key.defaults.is_empty() {
        true => models,
        false => format!("{models}, defaults {}", key.defaults),
    };
    let (id, created) = (Styled(BOLD, key.id), key.created);
    let name = harmless(&key.name);
    format!("{id}  {name:<names$}  made {created}  {state}  {}", Styled(DIM, harmless(&models)))
}

/// The limits of its own in words.
fn limits(limits: &KeyLimits) -> impl Iterator<Item = String> + use<> {
    let told = |limit: Option<u64>, of: &'static str| limit.map(|limit| format!("{limit} {of}"));
    [
        told(limits.concurrency_max, "at once"),
        told(limits.requests_per_minute, "requests a minute"),
        told(limits.tokens_per_minute, "tokens a minute"),
    ]
    .into_iter()
    .flatten()
}

fn object(key: &KeyEntry) -> Value {
    let state = match key.state(Timestamp::now()) {
        KeyState::Usable => "usable",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
    };
    json!({
        "id": key.id.as_str(),
        "name": key.name,
        "state": state,
        "created": key.created.to_string(),
        "expires": key.expires.map(|at| at.to_string()),
        "revoked": key.revoked.map(|at| at.to_string()),
        "models": key.models,
        "priority": key.priority,
        "explain": key.explain,
        "limits": key.limits,
        "defaults": key.defaults.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect::<Map<_, _>>(),
    })
}

impl FileArgs {
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let config = Config::load(&self.config)?;
        config.proxy.keys_file.context(
            "which keys file? name it with --file FILE, or set proxy.keys_file in the configuration",
        )
    }
}

fn priority(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| keys::PRIORITIES.contains(number));
    number.ok_or_else(|| {
        format!(
            "not a whole number from {} to {}",
            keys::PRIORITIES.start(),
            keys::PRIORITIES.end()
        )
    })
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let at = Timestamp::parse_expiry(text, now)?;
    if at > now { Ok(at) } else { Err(format!("{at} is over")) }
}
