//! `inferno status`: the nodes as proxies see them, once.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use inferno_shared::config::ConfigArgs;
use inferno_shared::identity::unix_ms;
use tokio::time::sleep;

use super::runtime;
use crate::console::{note, print, terminal_width};
use crate::nodes::{Asker, Fleet, ProxyArgs, Sighting, Spans, Tone, headline, report, table};

/// How long a proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks of `--wait`.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno status                                the proxy of this machine
  inferno status --operations a:6100,b:6100     two proxies, one view
  inferno status --ready --wait 60              wait for the first backend
  inferno status --json | jq '.totals.ready'    for programs

Exit code 0: a proxy answered and, with --ready, so many backends are ready;
else 1. Without a terminal the table has every column in full width.";

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    proxies: ProxyArgs,
    /// Fail unless at least N backends are ready
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    ready: Option<usize>,
    /// Ask again until it is as wanted, for at most so long
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let asker = Asker::new(&args.proxies, &args.config, PATIENCE)?;
    let sightings = runtime()?.block_on(look(&asker, args));
    let fleet = Fleet::merge(answers(&sightings));
    if args.json {
        print(report(&sightings, unix_ms()))?;
    } else {
        show(&sightings)?;
    }
    verdict(&sightings, &fleet, args.ready)?;
    Ok(ExitCode::SUCCESS)
}

/// Looks once, or until it is as wanted or the time is up.
async fn look(asker: &Asker, args: &StatusArgs) -> Vec<Sighting> {
    let deadline = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0));
    loop {
        let sightings = asker.ask().await;
        let fleet = Fleet::merge(answers(&sightings));
        if verdict(&sightings, &fleet, args.ready).is_ok() || Instant::now() >= deadline {
            return sightings;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn answers(sightings: &[Sighting]) -> impl Iterator<Item = (&crate::nodes::Answer, bool)> {
    sightings.iter().filter_map(|sighting| Some((sighting.answer.as_ref().ok()?, true)))
}

/// Whether this is a success: somebody answers, and enough backends are ready.
fn verdict(sightings: &[Sighting], fleet: &Fleet, wanted: Option<usize>) -> anyhow::Result<()> {
    let mut silent = sightings.iter().filter_map(|sighting| sighting.answer.as_ref().err());
    if !sightings.iter().any(|sighting| sighting.answer.is_ok()) {
        match silent.next() {
            Some(silence) => return Err(silence.clone().into()),
            None => bail!("no proxy was asked"),
        }
    }
    let ready = fleet.totals().ready;
    match wanted {
        Some(wanted) if ready < wanted => bail!("{ready} of {wanted} wanted backends are ready"),
        _ => Ok(()),
    }
}

/// Prints who answers, who does not, and the nodes.
pub(crate) fn show(sightings: &[Sighting]) -> std::io::Result<()> {
    let mut answered = false;
    for sighting in sightings {
        match &sighting.answer {
            Ok(answer) => {
                answered = true;
                print(headline::identity(&sighting.asked, &answer.vitals))?;
                print(headline::requests(&answer.vitals))?;
            }
            // The only one's silence is the command's failure, told at its end.
            Err(_) if sightings.len() == 1 => {}
            Err(silence) => note(Spans::of(Tone::Bad, silence.to_string())),
        }
    }
    if answered {
        lines(&Fleet::merge(answers(sightings)), terminal_width())
            .into_iter()
            .try_for_each(print)?;
    }
    Ok(())
}

/// The table, and what stands below it.
fn lines(fleet: &Fleet, width: Option<usize>) -> Vec<Spans> {
    if fleet.backends.is_empty() {
        return vec![Spans::of(Tone::Dim, "no backend has registered yet")];
    }
    let layout = table::Layout::of(fleet, width);
    let mut lines = vec![layout.head(None)];
    lines.extend(fleet.backends.iter().map(|node| layout.row(node)));
    if fleet.backends.len() > 1 {
        lines.push(layout.total(fleet));
    }
    lines.extend(headline::other_proxies(fleet));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{peer, sighting, silent};

    fn verdict_of(sightings: &[Sighting], wanted: Option<usize>) -> Result<(), String> {
        let fleet = Fleet::merge(answers(sightings));
        verdict(sightings, &fleet, wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn success_is_an_answer_and_enough_ready_backends() {
        let silent = silent("a:1");
        let one = sighting(vec![peer("a", "ready", 1), peer("b", "joining", 1)]);
        let nobody = verdict_of(std::slice::from_ref(&silent), None).expect_err("nobody is there");
        assert!(nobody.contains("no proxy answers at a:1"), "{nobody}");
        let both = [silent, one];
        assert_eq!(verdict_of(&both, None), Ok(()));
        assert_eq!(verdict_of(&both, Some(1)), Ok(()));
        assert_eq!(verdict_of(&both, Some(2)), Err("1 of 2 wanted backends are ready".into()));
    }

    #[test]
    fn the_table_ends_with_a_total_where_there_is_more_than_one() {
        let fleet = |peers| {
            let sightings = [sighting(peers)];
            Fleet::merge(answers(&sightings))
        };
        let text = |lines: Vec<Spans>| {
            lines
                .iter()
                .map(|line| anstream::adapter::strip_str(&line.to_string()).to_string())
                .collect::<Vec<_>>()
        };
        let one = text(lines(&fleet(vec![peer("a", "ready", 1)]), None));
        assert_eq!(one.len(), 2);
        assert_eq!(
            one[1].split_whitespace().collect::<Vec<_>>(),
            [
                "a",
                "ready",
                "10.0.0.1:8080",
                "smollm2-135m-instruct",
                "3",
                "2",
                "40.5",
                "12",
                "50",
                "25"
            ]
        );
        let two = text(lines(&fleet(vec![peer("a", "ready", 1), peer("b", "gone", 1)]), Some(40)));
        assert_eq!(two[0], "NODE     STATE    IN FLIGHT  TOKENS/S");
        assert!(two[3].starts_with("2 nodes  1 ready"), "{two:?}");
    }
}
