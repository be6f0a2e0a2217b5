//! `inferno top`: the nodes, live.

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::Duration;

use inferno_shared::config::ConfigArgs;
use tokio::task::LocalSet;

use super::runtime;
use crate::exit;
use crate::nodes::{Asker, ProxyArgs};
use crate::top::{Ended, Form, print_for_ever, watch};

/// A proxy may take as long to answer as there is between two looks, within these bounds: a silent
/// one must not hold up the others.
const PATIENCE_MS: (u64, u64) = (500, 5_000);

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno top                                 the proxy of this machine
  inferno top --operations a:6100,b:6100      two proxies, one view
  inferno top --operations proxies:6100       every address behind a name
  inferno top --interval 5 | tee nodes.log    no terminal: a table each 5 s
  inferno top --json | jq -c .totals          one JSON object a line

Keys: q quits, ? shows the others, the arrows sort and select, p pauses.
NO_COLOR and --color never turn colours off; states are always in words.";

/// The arguments of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    proxies: ProxyArgs,
    /// Time between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Lines instead of a full screen, as without a terminal
    #[arg(long)]
    plain: bool,
    /// One JSON object a line, as `inferno status --json` prints it
    #[arg(long, conflicts_with = "plain")]
    json: bool,
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
}

pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let every = args.interval;
    let (least, most) = PATIENCE_MS;
    let patience = every.clamp(Duration::from_millis(least), Duration::from_millis(most));
    let asker = Asker::new(&args.proxies, &args.config, patience)?;
    let runtime = runtime()?;
    let form = match (args.json, args.plain || !has_screen()) {
        (true, _) => Form::Json,
        (false, true) => Form::Table,
        (false, false) => {
            let ended = LocalSet::new().block_on(&runtime, watch(asker, every))?;
            return Ok(match ended {
                Ended::Quit => ExitCode::SUCCESS,
                Ended::Interrupted => ExitCode::from(exit::INTERRUPTED),
            });
        }
    };
    runtime.block_on(print_for_ever(&asker, every, form))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether there is a terminal that can do more than print lines.
fn has_screen() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stdout().is_terminal() && !is_dumb
}

/// Seconds, or parts of one.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.1..=3_600.0).contains(seconds));
    let seconds = seconds.ok_or("a number of seconds from 0.1 to 3600 expected")?;
    Ok(Duration::from_secs_f64(seconds))
}
