//! The reference of the command line: `docs/cli.md` and the man pages, from the same tree as
//! `--help`.

use std::fmt::Write as _;
use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Cli;
use crate::exit::CODES;

/// Variables that matter to the operator's command; every configuration key has one besides.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("INFERNO_CONFIG", "The configuration file, as --config."),
    (
        "INFERNO_MODELS",
        "The folder that models live in. Default: inferno/models in $XDG_CACHE_HOME or ~/.cache.",
    ),
    ("INFERNO_LOG", "How much the services log, as log.level: error, warn, info, debug, trace."),
    (
        "INFERNO_…",
        "Every configuration key a.b has INFERNO_A__B; `inferno docs configuration` lists them.",
    ),
    (
        "OPENAI_API_KEY",
        "The API key that `inferno chat` and `inferno bench` send without --api-key-file.",
    ),
    ("NO_COLOR", "Set to anything: no colours, as --color never."),
    ("TERM", "Unset or dumb: `inferno top` prints lines instead of a full screen."),
    (
        "LC_ALL, LC_CTYPE, LANG",
        "Without UTF-8 in the first that is set, `inferno top` draws in ASCII.",
    ),
    ("SSL_CERT_FILE", "Certificates that `inferno model pull` trusts, instead of the system's."),
];

const HEAD: &str = "\
# The command line

Made by `inferno docs cli`; a test holds this file against the code. `inferno COMMAND --help` says the
same in the terminal, `inferno man DIR` writes it as man pages, and `inferno completions SHELL` makes
bash, zsh or fish complete it.

Standard output has results, standard error has everything else: progress, notes, and in one sentence
why something failed. Colours are for terminals; see `--color`.

";

const REPORT: &str = "\
## The report of `status` and `top`

`inferno status --json` prints one object, `inferno top --json` one a line, of this form:

| field | what |
|---|---|
| `at_unix_ms` | when it was made |
| `proxies[]` | each asked proxy: `asked` (its address), `error` (null, or why it did not answer), `vitals` (its `GET /metrics`, or null) and `peers` (its `GET /peers`) |
| `nodes[]` | each backend once, whatever number of proxies knows it: `id`, `state` (the best that a proxy says of its newest incarnation), `agreeing` of `asked` proxies that say so, `address`, `operations`, `generation`, `models[]`, `fingerprint`, `in_flight` (requests of all asked proxies), `reported` (its own figures at the last check; null once it is gone) |
| `other_proxies[]` | the same for proxies that the asked ones know |
| `totals` | `nodes`, `ready`, and sums (`in_flight`, `queue_depth`, `tokens_per_second`) or means (`kv_cache_usage`, `cpu_usage`, `memory_usage`, `gpu_usage`) |

";

/// The page `docs/cli.md`.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("## Exit codes\n\n| code | name | meaning |\n|---|---|---|\n");
    for (code, name, meaning) in CODES {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {code} | {name} | {meaning} |");
    }
    page.push_str("\n## Environment\n\n| variable | meaning |\n|---|---|\n");
    for (name, meaning) in ENVIRONMENT {
        let _ = writeln!(page, "| `{name}` | {meaning} |");
    }
    page.push('\n');
    page.push_str(REPORT);
    page.push_str("## Commands\n\n");
    for command in commands() {
        let mut wrapped = command.clone().term_width(80);
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let help = wrapped.render_help().to_string();
        let _ = write!(page, "### {name}\n\n```text\n{}\n```\n\n", help.trim_end());
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// Every command that is no secret, each after its parent; the values that variables have here left
/// out.
pub(crate) fn commands() -> Vec<Command> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut commands = Vec::new();
    collect(root, &mut commands);
    commands
}

fn collect(command: Command, commands: &mut Vec<Command>) {
    let subcommands: Vec<Command> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
    commands.push(command.mut_args(|arg| arg.hide_env_values(true)));
    for sub in subcommands {
        collect(sub, commands);
    }
}

/// The file name of a command's man page.
pub(crate) fn man_file(command: &Command) -> String {
    Man::new(command.clone()).get_filename()
}

/// The man page of one command.
pub(crate) fn man_page(command: &Command) -> io::Result<Vec<u8>> {
    let version = concat!("inferno ", env!("CARGO_PKG_VERSION"));
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone()).source(version).manual("Inferno");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    notes(&mut roff, &after);
    exit_status(&mut roff);
    environment(&mut roff);
    see_also(&mut roff, command);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// What follows the options in `--help`: its first block are examples, kept line by line.
fn notes(roff: &mut Roff, after: &str) {
    for block in after.split("\n\n").filter(|block| !block.starts_with("Exit codes")) {
        match block.split_once('\n') {
            Some((title, lines)) if title.ends_with(':') => {
                roff.control("SH", ["EXAMPLES"]);
                roff.control("nf", []);
                for line in lines.lines() {
                    roff.text([roman(line.trim_start())]);
                }
                roff.control("fi", []);
            }
            _ => {
                roff.control("PP", []);
                roff.text([roman(block)]);
            }
        }
    }
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, name, meaning) in CODES {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(format!("{name}. {meaning}"))]);
    }
}

fn environment(roff: &mut Roff) {
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in ENVIRONMENT {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

fn see_also(roff: &mut Roff, command: &Command) {
    let own = command.get_display_name().unwrap_or_default();
    let pages =
        commands().into_iter().filter_map(|other| other.get_display_name().map(str::to_owned));
    let others: Vec<String> =
        pages.filter(|page| page != own).map(|page| format!("{page}(1)")).collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_this_one() {
        let written = include_str!("../../../docs/cli.md");
        assert!(written == page(), "run: inferno docs cli > docs/cli.md");
    }

    #[test]
    fn every_command_says_what_it_does_and_its_examples_fit_eighty_columns() {
        for command in commands() {
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            assert!(command.get_about().is_some(), "{name}");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(line.chars().count() <= 80, "{name} --help: {line}");
            }
        }
    }

    #[test]
    fn a_man_page_has_its_sections_and_a_name_of_its_own() {
        let commands = commands();
        let mut files: Vec<_> = commands.iter().map(man_file).collect();
        assert!(
            files.contains(&"inferno.1".into()) && files.contains(&"inferno-model-pull.1".into())
        );
        files.sort();
        files.dedup();
        assert_eq!(files.len(), commands.len());
        for command in &commands {
            let page = String::from_utf8(man_page(command).expect("rendered")).expect("UTF-8");
            for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"]
            {
                let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
                assert!(
                    heading.iter().any(|heading| page.contains(heading)),
                    "{section} in {page}"
                );
            }
        }
    }
}
