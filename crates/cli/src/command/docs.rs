//! `inferno docs`: the pages of documentation that are made from the code, so that they cannot lie.

use crate::{console, reference};
use clap::{Args, ValueEnum};
use inferno_shared::config;
use std::process::ExitCode;

/// The arguments of `docs`.
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// Which page
    page: Page,
}

/// A page that is made from the code.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Page {
    /// Every configuration key: docs/configuration.md
    Configuration,
    /// Every command, exit code and variable: docs/cli.md
    Cli,
}

pub(crate) fn run(args: &DocsArgs) -> anyhow::Result<ExitCode> {
    let page = match args.page {
        Page::Configuration => config::reference(),
        Page::Cli => reference::page(),
    };
    console::print(page.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
