//! `inferno man`: the man pages.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::console::print;
use crate::reference::{commands, man_file, man_page};

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno man | man -l -                      read the first page
  inferno man /usr/local/share/man/man1       one page for each command";

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write a page for each command; the page of `inferno` on standard output if left out
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let Some(dir) = &args.dir else {
        if let Some(root) = commands().first() {
            stdout().write_all(&man_page(root)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let commands = commands();
    for command in &commands {
        let path = dir.join(man_file(command));
        fs::write(&path, man_page(command)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(format_args!("{} pages in {}", commands.len(), dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
