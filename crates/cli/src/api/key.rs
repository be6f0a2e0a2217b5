//! Where a client's API key comes from: a file or the environment, never the command line, which
//! others can see.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

/// As clients of OpenAI's API call it; ours all begin with INFERNO_ and configure services.
const VARIABLE: &str = "OPENAI_API_KEY";

/// The arguments of a command that needs a key.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// A file with the API key; without it, OPENAI_API_KEY if that is set
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, if there is one.
    pub(crate) fn read(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.api_key_file else {
            return Ok(std::env::var(VARIABLE).ok().filter(|key| !key.is_empty()));
        };
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        match text.trim() {
            "" => bail!("{} is empty", path.display()),
            key => Ok(Some(key.to_owned())),
        }
    }
}
