//! The operator's command `inferno`: one program that starts, feeds, watches and talks to an
//! Inferno installation. Thin by design: the proxy and the backend are libraries of their own, and
//! what they do does not depend on who started them.
//!
//! Exit codes: 0 done, 1 failed (one sentence on standard error), 2 wrong usage, 130 interrupted; `exit.rs` has all.

pub mod model;

mod api;
mod args;
mod bench;
mod chat;
mod command;
mod completion;
mod console;
mod doctor;
mod exit;
mod nodes;
mod reference;
mod register;
mod signals;
mod top;
mod up;
mod verify;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    completion::answer();
    // Before and after: what clap itself says about the command line has colours too.
    if let Some(colour) = args::Colour::asked(std::env::args().skip(1)) {
        anstream::ColorChoice::from(colour).write_global();
    }
    let cli = args::Cli::parse();
    anstream::ColorChoice::from(cli.color).write_global();
    let outcome = command::run(cli);
    outcome.unwrap_or_else(|error| {
        // The reader of our output went away (`inferno … | head`): nobody to tell, nothing wrong.
        if !console::is_broken_pipe(&error) {
            console::error(&error);
        }
        ExitCode::FAILURE
    })
}
