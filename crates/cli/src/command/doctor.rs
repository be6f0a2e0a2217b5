//! `inferno doctor`: what stands in the way on this machine.

use std::process::ExitCode;

use inferno_shared::config::ConfigArgs;

use super::runtime;
use crate::console::{print, terminal_width};
use crate::doctor::{INDENT, Verdict, examine};

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno doctor                         with the configuration of this folder
  inferno doctor --config FILE           with that one
  inferno doctor --json | jq -c '.findings[] | select(.verdict != \"ok\")'

It changes nothing, and registers nowhere. Exit code 1: there is a problem;
warnings are none.";

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
}

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let findings = examine(&args.config, &runtime()?);
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    if args.json {
        let report = serde_json::json!({
            "problems": problems, "warnings": warnings, "findings": findings,
        });
        print(report)?;
    } else {
        // One line each; where a terminal would break it, it is broken between words.
        let width = terminal_width().unwrap_or(usize::MAX);
        let lines = findings.iter().flat_map(|finding| finding.line().wrapped(width, INDENT));
        lines.into_iter().try_for_each(print)?;
        print(summary(problems, warnings))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(problems: usize, warnings: usize) -> String {
    let count = |number: usize, what: &str| match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    format!("{}, {}", count(problems, "problem"), count(warnings, "warning"))
}
