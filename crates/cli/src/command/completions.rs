//! `inferno completions`: what a shell needs to complete our command lines.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::aot;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use inferno_shared::service::ServiceArgs;

use crate::completion::VARIABLE;
use crate::console::print;

pub(crate) const EXAMPLES: &str = "\
Examples, for the shell's start file:
  source <(inferno completions bash)          in ~/.bashrc
  source <(inferno completions zsh)           in ~/.zshrc, after compinit
  inferno completions fish | source           in ~/.config/fish/config.fish

The script asks the program itself, so that names of models and keys of the
configuration complete as well, and a new version needs no new script.";

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
    /// For which of our programs
    #[arg(long, value_enum, default_value_t = Program::Inferno)]
    program: Program,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A program that can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Program {
    Inferno,
    InfernoProxy,
    InfernoBackend,
}

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let script = match args.program {
        Program::Inferno => dynamic(args.shell, &completer()?)?,
        Program::InfernoProxy => fixed(args.shell, "inferno-proxy"),
        Program::InfernoBackend => fixed(args.shell, "inferno-backend"),
    };
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// How the script calls us: by name where we were called by name, else where we are.
fn completer() -> io::Result<String> {
    let called = std::env::args().next().filter(|called| !called.contains('/'));
    match called {
        Some(name) => Ok(name),
        None => Ok(std::env::current_exe()?.display().to_string()),
    }
}

/// A script that asks the program.
fn dynamic(shell: Shell, completer: &str) -> io::Result<Vec<u8>> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "inferno", "inferno", completer, &mut script)?;
    Ok(script)
}

/// A script that knows the flags of a service, which are few and without values to look up.
fn fixed(shell: Shell, program: &'static str) -> Vec<u8> {
    // Any version: what counts is that there is a --version.
    let mut command = <ServiceArgs as Args>::augment_args(Command::new(program).version("any"));
    let mut script = Vec::new();
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    aot::generate(shell, &mut command, program, &mut script);
    script
}
