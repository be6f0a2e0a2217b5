//! Exit codes: the one list of them.

/// What a command that was interrupted returns, as shells do for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// `verify` was answered otherwise than before.
pub(crate) const DIFFERENT: u8 = 3;
/// `verify` was answered by something that does not promise the same.
pub(crate) const ANOTHER_FINGERPRINT: u8 = 4;

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
    (DIFFERENT, "different", "`verify` asked again, and the answer is not the same."),
    (
        ANOTHER_FINGERPRINT,
        "another fingerprint",
        "`verify` asked again, and what answers now is not what made the answer: another model, tokenizer, context or numerics.",
    ),
    (INTERRUPTED, "interrupted", "A signal ended it before it was done."),
];

#[cfg(test)]
mod tests {
    use super::CODES;
    use clap::CommandFactory;

    #[test]
    fn help_names_every_code() {
        let help = crate::args::Cli::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let codes = CODES.iter().map(|(code, name, _)| format!("{code} {name}"));
        let sentence = format!("Exit codes: {}.", codes.collect::<Vec<_>>().join(", "));
        assert!(help.contains(&sentence), "{sentence} is not in {help}");
    }
}
