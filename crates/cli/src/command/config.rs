//! `inferno config`: what is in effect, and whether it is valid.

use crate::console::{self, DIM, Styled};
use clap::Subcommand;
use inferno_shared::config::{Config, ConfigArgs, Setting};
use std::process::ExitCode;

/// Look at the configuration
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key, its effective value, and where that came from
    Show(ConfigArgs),
    /// Say whether the configuration is valid, and nothing else
    Check(ConfigArgs),
}

pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => show(&Config::settings(args, std::env::vars_os())?)?,
        ConfigCommand::Check(args) => {
            Config::load(args)?;
            console::print("the configuration is valid")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(settings: &[Setting]) -> std::io::Result<()> {
    let value = |setting: &Setting| {
        setting.value.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    let names = settings.iter().map(|setting| setting.key.name.len()).max().unwrap_or_default();
    let values = settings
        .iter()
        .map(|setting| value(setting).len())
        .filter(|n| *n < 40)
        .max()
        .unwrap_or_default();
    for setting in settings {
        let origin = Styled(DIM, &setting.origin);
        console::print(format_args!(
            "{:<names$}  {:<values$}  {origin}",
            setting.key.name,
            value(setting)
        ))?;
    }
    Ok(())
}
