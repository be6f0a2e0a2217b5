//! What the shell offers for values: models, configuration keys, files. Names and flags complete by
//! themselves, from the same tree as `--help`.

use std::ffi::OsStr;

use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::env::CompleteEnv;
use clap_complete::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, engine::ValueCompleter,
};
use inferno_engine::store::{ModelState, ModelStore};
use inferno_shared::config::keys::KEYS;

use crate::args::Cli;

/// Set by the shell's completion function, and by nobody else: then the program answers with
/// candidates instead of running.
pub(crate) const VARIABLE: &str = "_INFERNO_COMPLETE";

/// Answers the shell if it asks, and then ends the process.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The command line, dressed with what its values complete to.
fn command() -> Command {
    dressed(Cli::command(), "")
}

fn dressed(command: Command, parent: &str) -> Command {
    let name = command.get_name().to_owned();
    let place = format!("{parent} {name}");
    let command = command.mut_args(|arg| dressed_arg(arg, &place));
    command.mut_subcommands(|sub| dressed(sub, &name))
}

fn dressed_arg(arg: Arg, place: &str) -> Arg {
    match (place, arg.get_id().as_str()) {
        (_, "set") => arg.add(ArgValueCompleter::new(keys)),
        (_, "config") => arg.value_hint(ValueHint::FilePath),
        (" man" | "inferno man", "dir") => arg.value_hint(ValueHint::DirPath),
        ("inferno up", "model") | ("model pull", "name") => {
            arg.add(ArgValueCompleter::new(|current: &OsStr| {
                let mut candidates = models(current, |_| true);
                candidates.extend(PathCompleter::file().complete(current));
                candidates
            }))
        }
        ("inferno chat", "model") | ("model verify" | "model remove", "name") => {
            arg.add(ArgValueCompleter::new(|current: &OsStr| models(current, is_there)))
        }
        // Files of this folder are no addresses and no numbers.
        _ if arg.get_value_hint() == ValueHint::Unknown => arg.value_hint(ValueHint::Other),
        _ => arg,
    }
}

/// Keys of the configuration, up to their equals sign.
fn keys(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let matching = KEYS.iter().filter(|key| key.name.starts_with(current));
    let candidate = |key: &inferno_shared::config::keys::Key| {
        CompletionCandidate::new(format!("{}=", key.name)).help(Some(key.about.into()))
    };
    matching.map(candidate).collect()
}

fn is_there(state: &ModelState) -> bool {
    *state != ModelState::Absent
}

/// Names of models in a wanted state. A folder that cannot be read offers nothing.
fn models(current: &OsStr, wanted: impl Fn(&ModelState) -> bool) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let models = ModelStore::open_default().and_then(|store| store.list()).unwrap_or_default();
    let matching =
        models.into_iter().filter(|model| model.name.starts_with(current) && wanted(&model.state));
    matching
        .map(|model| {
            let about = model.description.map(Into::into);
            CompletionCandidate::new(model.name).help(about)
        })
        .collect()
}
