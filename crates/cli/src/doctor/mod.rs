//! `inferno doctor`: what of this machine and its configuration stands in the way, and how to mend it.
//!
//! Each check gathers facts (a function that looks, and changes nothing) and judges them (a pure
//! function with its own test). A finding is one line: what was looked at, how that is, and the fix
//! where one is needed.

mod configuration;
mod machine;
mod model;
mod network;

use inferno_shared::config::{Config, ConfigArgs};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::nodes::{Spans, Tone};

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// It works, but not as one would wish.
    Warning,
    /// It does not work.
    Problem,
}

/// Cells before a finding's text.
pub(crate) const INDENT: usize = 23;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, text: text.into(), fix: None }
    }

    fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    fn problem(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Problem, text: text.into(), fix: Some(fix.into()) }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> Spans {
        let (tone, word) = match self.verdict {
            Verdict::Ok => (Tone::Good, "ok"),
            Verdict::Warning => (Tone::Warn, "warning"),
            Verdict::Problem => (Tone::Bad, "problem"),
        };
        let line = Spans::of(tone, format!("{word:<8}"))
            .and(Tone::Bold, format!("{:<15}", self.check))
            .and(Tone::Plain, self.text.clone());
        match &self.fix {
            Some(fix) => line.and(Tone::Dim, format!("; {fix}")),
            None => line,
        }
    }
}

/// Looks at everything. What depends on a configuration that cannot be used is checked with the
/// defaults.
pub(crate) fn examine(args: &ConfigArgs, runtime: &Runtime) -> Vec<Finding> {
    let loaded = Config::load(args);
    let mut findings = machine::examine(&loaded);
    findings.extend(configuration::examine(&loaded));
    let config = loaded.unwrap_or_default();
    findings.extend(configuration::secrets(&config));
    findings.extend(configuration::keys(&config.proxy));
    findings.extend(model::examine(&config));
    findings.extend(network::ports(&config));
    findings.extend(runtime.block_on(network::proxies(&config)));
    findings
}
