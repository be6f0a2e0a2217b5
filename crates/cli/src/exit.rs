//! Exit codes: the one list of them.

/// What a command that was interrupted returns, as shells do for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Every code a command of ours ends with, and what it says.
pub(crate) const CODES: &[(u8, &str, &str)] = &[
    (
        0,
        "done",
        "What was asked for was done; `top` was left by a key, `up` stopped by a signal and drained.",
    ),
    (
        1,
        "failed",
        "It could not be done, or what was checked is not so. Standard error has one sentence that says why.",
    ),
    (2, "wrong usage", "The command line was not understood: nothing was done."),
    (INTERRUPTED, "interrupted", "A signal ended it before it was done."),
];

#[cfg(test)]
mod tests {
    use super::CODES;
    use clap::CommandFactory;

    #[test]
    fn help_names_every_code() {
        let help = crate::args::Cli::command().render_long_help().to_string();
        let codes = CODES.iter().map(|(code, name, _)| format!("{code} {name}"));
        let sentence = format!("Exit codes: {}.", codes.collect::<Vec<_>>().join(", "));
        assert!(help.contains(&sentence), "{sentence} is not in {help}");
    }
}
