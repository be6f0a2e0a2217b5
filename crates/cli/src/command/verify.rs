//! `inferno verify`: asks for a saved answer again, and says whether it is the same.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::api::{ApiClient, KeyArgs};
use crate::console::{self, BAD, DIM, GOOD, Styled, WARN, harmless};
use crate::exit::{ANOTHER_FINGERPRINT, DIFFERENT};
use crate::verify::{Answer, Difference, Saved, Verdict, compare};

pub(crate) const EXAMPLES: &str = "\
Save an answer, whole or streamed, and its request:
  curl -sN http://localhost:8080/v1/chat/completions \\
    --json @request.json > answer

Examples:
  inferno verify answer --request request.json   ask again, compare
  inferno verify saved.json                      {\"request\", \"response\"} in one
  inferno verify saved.json --url http://b:8080  does another fleet agree?
  inferno verify saved.json --json               the verdict for a program

Compared are the fingerprint first, then text, finish_reason, tokens and, if
they were asked for, log-probabilities to the last bit. The request is sent with
the seed that the answer tells. A chat template that writes today's date gives
another prompt tomorrow.

Exit codes: 0 the same, 1 it could not be asked or read, 2 wrong usage,
3 different, 4 another fingerprint.";

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The saved answer: {"request", "response"}, or an answer's JSON or events alone
    file: PathBuf,
    /// The request that it answers, where FILE has only the answer
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The proxy to ask
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(flatten)]
    key: KeyArgs,
    /// One JSON object: verdict, fingerprints, seed, differences
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let saved = read(&args.file)?;
    let request = args.request.as_deref().map(read).transpose()?;
    let saved = Saved::read(&saved, request.as_deref())
        .with_context(|| format!("{} is of no use", args.file.display()))?;
    let client = ApiClient::new(&args.url, args.key.read()?.as_deref())?;
    let body = saved.again()?.to_string();
    let answer = super::runtime()?.block_on(client.object(saved.path, body.into()))?;
    let now = Answer::of(&[answer]).context("the answer cannot be compared")?;
    let verdict = compare(&saved.answer, &now);
    match args.json {
        true => console::print(report(&verdict, &saved.answer, &now))?,
        false => tell(&verdict, &saved.answer, &now)?,
    }
    Ok(match verdict {
        Verdict::Same { .. } => ExitCode::SUCCESS,
        Verdict::Different(_) => ExitCode::from(DIFFERENT),
        Verdict::AnotherFingerprint => ExitCode::from(ANOTHER_FINGERPRINT),
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(cannot)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is larger than {FILE_BYTES_MAX} bytes", path.display());
    }
    Ok(text)
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Same { .. } => "same",
        Verdict::Different(_) => "different",
        Verdict::AnotherFingerprint => "another_fingerprint",
    }
}

fn report(verdict: &Verdict, saved: &Answer, now: &Answer) -> Value {
    let (differences, scored) = match verdict {
        Verdict::Same { scored } => (json!([]), json!(scored)),
        Verdict::Different(differences) => (json!(differences), Value::Null),
        Verdict::AnotherFingerprint => (json!([]), Value::Null),
    };
    json!({
        "verdict": word(verdict),
        "fingerprint": { "saved": saved.fingerprint, "now": now.fingerprint },
        "seed": now.seed,
        "choices": now.choices.len(),
        "completion_tokens": now.completion_tokens,
        "scored_tokens": scored,
        "differences": differences,
    })
}

fn tell(verdict: &Verdict, saved: &Answer, now: &Answer) -> anyhow::Result<()> {
    let name = |fingerprint: &Option<String>| {
        harmless(fingerprint.as_deref().unwrap_or("unknown fingerprint"))
    };
    match verdict {
        Verdict::Same { scored } => {
            let tokens = now.completion_tokens.map(|count| format!("{count} tokens, "));
            let logprobs = match scored {
                0 => "no log-probabilities to compare".to_owned(),
                scored => format!("log-probabilities of {scored} tokens to the last bit"),
            };
            let (same, by) = (Styled(GOOD, "same"), name(&now.fingerprint));
            console::print(format_args!(
                "{same}: {}{logprobs}, by {by}",
                tokens.unwrap_or_default()
            ))?;
        }
        Verdict::AnotherFingerprint => {
            let (then, today) = (name(&saved.fingerprint), name(&now.fingerprint));
            let words = Styled(WARN, "another fingerprint");
            console::print(format_args!(
                "{words}: it was made by {then}, and {today} answers now; nothing says that they agree"
            ))?;
        }
        Verdict::Different(differences) => {
            let by = name(&now.fingerprint);
            console::print(format_args!("{}: by {by}", Styled(BAD, "different")))?;
            for difference in differences {
                show(difference)?;
            }
        }
    }
    if saved.fingerprint.is_none() {
        console::note("the saved answer tells no fingerprint: who made it cannot be said");
    }
    Ok(())
}

fn show(difference: &Difference) -> std::io::Result<()> {
    let Difference { choice, what, at, saved, now } = difference;
    console::print(format_args!("  choice {choice}, {what} at {at}"))?;
    for (when, value) in [("saved", saved), ("now", now)] {
        let label = Styled(DIM, format!("{when:>9}"));
        console::print(format_args!("{label} {}", harmless(&value.to_string())))?;
    }
    Ok(())
}
