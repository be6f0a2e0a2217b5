//! The command line.

use anstream::ColorChoice;
use clap::{Parser, Subcommand, ValueEnum};
use inferno_shared::service::{BACKEND_HELP, PROXY_HELP, ServiceArgs};

use crate::command::{
    bench, chat, completions, config, docs, doctor, key, man, model, register, status, top, up,
    verify,
};

const EXAMPLES: &str = "\
Examples:
  inferno up                           a proxy and backends, the default model
  inferno up --model ./my.gguf         the same with a model file of yours
  inferno chat                         talk to it
  inferno chat 'Name three rivers.'    one answer, then the prompt again
  inferno status                       nodes, models, load
  inferno top                          the same, live
  inferno doctor                       what stands in the way on this machine

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 different,
4 another fingerprint, 130 interrupted.";

/// LLM inference on your own machines: one proxy, backends that find it by themselves, an
/// OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "inferno", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, global = true, display_order = 100, value_name = "WHEN", value_enum, default_value_t = Colour::Auto, hide_possible_values = true)]
    pub(crate) color: Colour,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When to use colours: `auto` is on a terminal, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Also into a file or pipe
    Always,
    /// Not even on a terminal
    Never,
}

impl Colour {
    /// What `--color` says in a command line that may be wrong otherwise.
    pub(crate) fn asked(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments.take_while(|argument| argument != "--");
        let value = arguments.find_map(|argument| match argument.as_str() {
            "--color" => Some(None),
            argument => argument.strip_prefix("--color=").map(|value| Some(value.to_owned())),
        })?;
        let value = value.or_else(|| arguments.next())?;
        Self::from_str(&value, false).ok()
    }
}

impl From<Colour> for ColorChoice {
    fn from(colour: Colour) -> Self {
        match colour {
            Colour::Auto => Self::Auto,
            Colour::Always => Self::Always,
            Colour::Never => Self::Never,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a proxy and backends on this machine until Ctrl-C
    #[command(after_help = up::EXAMPLES)]
    Up(up::UpArgs),
    /// Talk to a model in the terminal
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::ChatArgs),
    /// Put an OpenAI-compatible endpoint under load and measure it
    Bench(Box<bench::BenchArgs>),
    /// Show nodes, models and load
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Show nodes, models and load, live
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// Check this machine and its configuration, and say how to mend what stands in the way
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Bring, list, check and remove models
    #[command(subcommand, after_help = model::EXAMPLES)]
    Model(model::ModelCommand),
    /// Make, list and revoke the API keys that a proxy asks its clients for
    #[command(subcommand, after_help = key::EXAMPLES)]
    Key(key::KeyCommand),
    /// Keep an engine that is not ours registered with the proxies
    #[command(after_help = register::EXAMPLES)]
    Register(Box<register::RegisterArgs>),
    /// Ask for a saved answer again and say whether it is the same
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a script that makes a shell complete our commands
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Print or write man pages
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArgs),
    /// Print a page of documentation that is made from the code, as Markdown
    Docs(docs::DocsArgs),
    /// Run the proxy in the foreground, as the program inferno-proxy does
    #[command(after_help = PROXY_HELP)]
    Proxy(ServiceArgs),
    /// Run a backend in the foreground, as the program inferno-backend does
    #[command(after_help = BACKEND_HELP)]
    Backend(ServiceArgs),
}

#[cfg(test)]
mod tests {
    use super::{Cli, Colour};
    use clap::CommandFactory;

    #[test]
    fn colours_are_known_before_the_command_line_is() {
        let asked = |words: &str| Colour::asked(words.split_whitespace().map(str::to_owned));
        assert_eq!(asked("nonsense --color never"), Some(Colour::Never));
        assert_eq!(asked("--color=always top"), Some(Colour::Always));
        for none in ["top", "--color", "--color=blue", "chat -- --color never", "--colors never"] {
            assert_eq!(asked(none), None, "{none}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
