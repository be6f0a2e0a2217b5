//! `inferno config`: what is in effect, and what a start would stumble over.

use crate::console::{self, BAD, BOLD, DIM, GOOD, Styled, WARN, harmless};
use anyhow::bail;
use clap::{Args, Subcommand};
use inferno_shared::config::{self, Config, ConfigArgs, Setting};
use serde_json::{Map, Value, json};
use std::{env::vars_os, io, process::ExitCode};

/// A longer value does not push what is beside the others away.
const VALUE_COLUMNS_MAX: usize = 32;

/// Look at the configuration
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key, its effective value, and where that came from
    Show(ShowArgs),
    /// Say what a start would stumble over: all of it at once, without starting anything
    Check(ConfigArgs),
}

/// The arguments of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Only these keys, or all keys of these tables: proxy.listen, proxy.timeouts
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    /// Only what differs from its default
    #[arg(long)]
    changed: bool,
    /// One JSON object, by key
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Check(args) => check(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let mut settings = Config::settings(&args.config, vars_os())?;
    if !args.keys.is_empty() {
        let mut chosen = Vec::new();
        for name in &args.keys {
            chosen.extend(config::keys_of(name)?);
        }
        settings.retain(|setting| chosen.contains(&setting.key));
    }
    settings.retain(|setting| setting.is_changed || !args.changed);
    if args.json {
        print_json(&settings)?;
    } else {
        print_table(&settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(settings: &[Setting]) -> io::Result<()> {
    let entry = |setting: &Setting| {
        let Setting { key, value, origin, is_changed } = setting;
        let entry = json!({ "value": value, "origin": origin, "changed": is_changed });
        (key.name.to_owned(), entry)
    };
    let all: Map<String, Value> = settings.iter().map(entry).collect();
    console::print(format_args!("{:#}", Value::from(all)))
}

/// Three columns; a list takes a line an item.
fn print_table(settings: &[Setting]) -> io::Result<()> {
    let rows: Vec<_> = settings.iter().map(|setting| (setting, lines(setting))).collect();
    let names = rows.iter().map(|(setting, _)| setting.key.name.len()).max().unwrap_or_default();
    let lengths = rows.iter().flat_map(|(_, lines)| lines).map(|line| line.chars().count());
    let values = lengths.filter(|n| *n <= VALUE_COLUMNS_MAX).max().unwrap_or_default();
    for (setting, lines) in &rows {
        let style = if setting.is_changed { BOLD } else { anstyle::Style::new() };
        let name = Styled(style, format!("{:<names$}", setting.key.name));
        let origin = Styled(DIM, harmless(&setting.origin));
        console::print(format_args!("{name}  {:<values$}  {origin}", lines[0]))?;
        for line in &lines[1..] {
            console::print(format_args!("{:<names$}  {line}", ""))?;
        }
    }
    Ok(())
}

/// A setting's value for people, at least one line.
fn lines(setting: &Setting) -> Vec<String> {
    match &setting.value {
        None => vec![setting.key.unset.unwrap_or("none").into()],
        Some(Value::Array(items)) if items.is_empty() => vec!["empty".into()],
        Some(Value::Array(items)) => items.iter().map(plain).collect(),
        Some(value) => vec![plain(value)],
    }
}

fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    harmless(&text).replace('\n', "\\n")
}

fn check(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let (config, unfit) = match Config::examine(args, vars_os()) {
        Ok(examined) => examined,
        Err(error) => return refuse(&error.problems),
    };
    for warning in &config.notices.warnings {
        note(warning)?;
    }
    let model = inferno_backend::check_model(&config);
    if let Err(error) = model {
        note(format!("a backend would not start here: {error}"))?;
    }
    for warning in inferno_proxy::warnings(&config) {
        note(warning)?;
    }
    let mut problems: Vec<_> = unfit.iter().map(ToString::to_string).collect();
    problems.extend(inferno_shared::service::check(&config));
    problems.extend(inferno_proxy::check(&config).iter().map(ToString::to_string));
    problems.extend(inferno_backend::check(&config).iter().map(ToString::to_string));
    if !problems.is_empty() {
        return refuse(&problems);
    }
    let settings = Config::settings(args, vars_os())?;
    let changed = settings.iter().filter(|setting| setting.is_changed).count();
    let keys = if changed == 1 {
        "key differs from its default"
    } else {
        "keys differ from their defaults"
    };
    let valid = Styled(GOOD, "the configuration is valid");
    console::print(format_args!("{valid}; {changed} {keys}"))?;
    Ok(ExitCode::SUCCESS)
}

fn note(text: impl std::fmt::Display) -> io::Result<()> {
    console::print(format_args!("{} {text}", Styled(WARN, "note:")))
}

fn refuse<P: std::fmt::Display>(problems: &[P]) -> anyhow::Result<ExitCode> {
    for problem in problems {
        console::print(format_args!("{} {problem}", Styled(BAD, "problem:")))?;
    }
    match problems.len() {
        1 => bail!("the configuration cannot be used"),
        count => bail!("the configuration cannot be used: {count} problems"),
    }
}
