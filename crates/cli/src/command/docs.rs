//! `inferno docs`: the pages of documentation that are made from the code, so that they cannot lie.

use crate::{console, reference};
use clap::{Args, ValueEnum};
use inferno_shared::{
    config,
    metrics::{self, Section},
    operations_server, telemetry,
};
use std::process::ExitCode;

/// The arguments of `docs`.
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// Which page
    page: Page,
}

/// A page that is made from the code.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Page {
    /// Every configuration key: docs/configuration.md
    Configuration,
    /// A configuration file with every key, commented out at its default
    #[value(name = "inferno.toml")]
    Sample,
    /// Every metric, by process: docs/metrics.md
    Metrics,
    /// Every command, exit code and variable: docs/cli.md
    Cli,
    /// Every route and field of the API: docs/api.md
    Api,
}

/// Every metric there is, in the tables that register them.
const METRICS: [Section; 4] = [
    Section {
        title: "The operations server, in every process",
        metrics: operations_server::METRICS,
    },
    Section { title: "Log and traces, in every process", metrics: telemetry::METRICS },
    Section { title: "Proxy", metrics: inferno_proxy::METRICS },
    Section { title: "Backend", metrics: inferno_backend::metrics::METRICS },
];

pub(crate) fn run(args: &DocsArgs) -> anyhow::Result<ExitCode> {
    let page = match args.page {
        Page::Configuration => config::reference(),
        Page::Sample => config::sample(),
        Page::Metrics => metrics::reference(&METRICS),
        Page::Cli => reference::page(),
        Page::Api => inferno_backend::openai::reference::page(),
    };
    console::print(page.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_metrics_in_docs_is_this_one() {
        let written = include_str!("../../../../docs/metrics.md");
        assert!(
            written == inferno_shared::metrics::reference(&super::METRICS),
            "run: inferno docs metrics > docs/metrics.md"
        );
    }
}
