//! The subcommands: from arguments to an exit code.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod key;
pub(crate) mod man;
pub(crate) mod model;
pub(crate) mod register;
mod service;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod verify;

use std::process::ExitCode;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Cli, Command};

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Model(command) => model::run(command),
        Command::Key(command) => key::run(command),
        Command::Register(args) => register::run(*args),
        Command::Verify(args) => verify::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Proxy(args) => service::proxy(&args),
        Command::Backend(args) => service::backend(&args),
    }
}

/// A runtime for one client or supervisor: it waits, it does not compute.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start")
}
