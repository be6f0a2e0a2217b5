//! The command line.

use clap::{Parser, Subcommand};
use inferno_shared::service::ServiceArgs;

use crate::command::{bench, chat, config, docs, model, status, up};

const EXAMPLES: &str = "\
Examples:
  inferno up                         run a proxy and backends here, with the default model
  inferno up --model ./my.gguf       the same with a model file of yours
  inferno chat                       talk to it
  inferno chat 'Name three rivers.'  one answer, then the prompt again
  inferno status                     nodes, models, load
  inferno model pull https://host/my.gguf --sha256 HEX

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// LLM inference on your own machines: one proxy, backends that find it by themselves, an
/// OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "inferno", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a proxy and backends on this machine until Ctrl-C
    Up(up::UpArgs),
    /// Talk to a model in the terminal
    Chat(chat::ChatArgs),
    /// Put an OpenAI-compatible endpoint under load and measure it
    Bench(Box<bench::BenchArgs>),
    /// Show nodes, models and load
    Status(status::StatusArgs),
    /// Bring, list and check models
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a page of documentation that is made from the code, as Markdown
    Docs(docs::DocsArgs),
    /// Run the proxy in the foreground
    Proxy(ServiceArgs),
    /// Run a backend in the foreground
    Backend(ServiceArgs),
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
