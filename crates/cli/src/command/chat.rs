//! `inferno chat`: a conversation in the terminal, or one answer.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::{Builder, Runtime};

use crate::api::{ApiClient, KeyArgs};
use crate::chat::{Conversation, End, Settings, Turn};
use crate::console::{BOLD, DIM, Styled, error, harmless, note};
use crate::exit::INTERRUPTED;

pub(crate) const EXAMPLES: &str = "\
Examples:
  inferno chat                                    a conversation; /help helps
  inferno chat 'Name three rivers.'               one answer
  git diff | inferno chat --system 'Summarise.'   asks what standard input says
  inferno chat --temperature 0 'Hi'               the same answer each time

Exit codes: 0 done, 1 failed, 130 interrupted by Ctrl-C while the answer came.";

const HELP: &str = "\
/new    forget the conversation so far
/exit   leave (so do Ctrl-D and Ctrl-C)
/help   this
Ctrl-C while an answer comes stops the answer.";

/// The proxy refuses longer bodies in any case.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;

/// The arguments of `chat`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// The proxy's address
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The model; the first that the proxy offers if left out
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// A system message before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 for the most likely answer, higher for more variety; small models need it low
    #[arg(long, default_value_t = 0.2)]
    temperature: f32,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// The same seed, the same answer
    #[arg(long)]
    seed: Option<u64>,
    /// Ask this, print the answer and leave; without it and off a terminal, what standard input
    /// says is asked
    message: Option<String>,
}

pub(crate) fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    // A thread of its own closes the connection of a stopped answer while we wait at the prompt.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = ApiClient::new(&args.url, args.key.read()?.as_deref())?;
    let message = match args.message {
        None if !io::stdin().is_terminal() => {
            Some(io::read_to_string(io::stdin().take(MESSAGE_BYTES_MAX))?)
        }
        message => message,
    };
    let settings = Settings {
        model: choose_model(&runtime, &client, args.model)?,
        temperature: Some(args.temperature),
        max_tokens: args.max_tokens,
        seed: args.seed,
    };
    let conversation = Conversation::new(settings, args.system);
    match message {
        Some(message) => answer_once(&runtime, &client, conversation, &message),
        None => converse(&runtime, &client, conversation, &args.url),
    }
}

fn choose_model(
    runtime: &Runtime,
    client: &ApiClient,
    asked: Option<String>,
) -> anyhow::Result<String> {
    if let Some(model) = asked {
        return Ok(model);
    }
    let models = runtime.block_on(client.models())?;
    models.into_iter().next().context("no model is ready yet: `inferno status` shows the backends")
}

fn answer_once(
    runtime: &Runtime,
    client: &ApiClient,
    mut conversation: Conversation,
    message: &str,
) -> anyhow::Result<ExitCode> {
    let message = message.trim().to_owned();
    if message.is_empty() {
        bail!("nothing to ask: the message is empty");
    }
    let turn = runtime.block_on(conversation.say(client, message, &mut show))?;
    writeln!(io::stdout())?;
    Ok(match turn.end {
        End::Complete => ExitCode::SUCCESS,
        End::Interrupted => ExitCode::from(INTERRUPTED),
    })
}

fn converse(
    runtime: &Runtime,
    client: &ApiClient,
    mut conversation: Conversation,
    url: &str,
) -> anyhow::Result<ExitCode> {
    let mut editor = DefaultEditor::new().context("cannot use this terminal")?;
    let model = harmless(&conversation.settings.model);
    note(format_args!("{} at {url}; /help for help", Styled(BOLD, model)));
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error).context("cannot read from this terminal"),
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(ExitCode::SUCCESS),
            "/help" => note(HELP),
            "/new" => {
                conversation.clear();
                note(Styled(DIM, "a new conversation"));
            }
            command if command.starts_with('/') => {
                note(format_args!("{command} is not a command; /help lists them"));
            }
            text => {
                editor.add_history_entry(text)?;
                let outcome =
                    runtime.block_on(conversation.say(client, text.to_owned(), &mut show));
                tell(outcome.map_err(anyhow::Error::from))?;
            }
        }
    }
}

/// Ends an answer's text and says how it went; a failed answer does not end the conversation.
fn tell(outcome: anyhow::Result<Turn>) -> io::Result<()> {
    writeln!(io::stdout())?;
    match outcome {
        Ok(turn) => note(format_args!("{}\n", Styled(DIM, turn.summary()))),
        Err(failure) => error(&failure),
    }
    Ok(())
}

/// Text of the model, at once. On a terminal it may not move the cursor or worse.
fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        stdout.write_all(harmless(text).as_bytes())?;
    } else {
        stdout.write_all(text.as_bytes())?;
    }
    stdout.flush()
}
