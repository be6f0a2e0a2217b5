//! The completion scripts in the real shells, and the man pages in the real `man`. zsh and fish are
//! tried where they are installed, which the gate sees to.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a shell with `script`; `inferno` is on its path, and the model folder is empty.
fn shell(shell: &str, folder: &Path, script: &str) -> Option<Output> {
    let program = Path::new(env!("CARGO_BIN_EXE_inferno"));
    let bin = program.parent().expect("a folder").display();
    let path = format!("{bin}:/usr/local/bin:/usr/bin:/bin");
    let output = Command::new(shell)
        .args(["-c", script])
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .env("TERM", "dumb")
        .env("INFERNO_MODELS", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        output => Some(output.expect("the shell runs")),
    }
}

/// What bash offers after these words.
fn bash(words: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!(
        r#"set -e
        source <(inferno completions bash)
        COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9
        COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
        _clap_complete_inferno inferno "${{COMP_WORDS[COMP_CWORD]}}" "" 2>/dev/null
        printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    let output = shell("bash", folder.path(), &script).expect("bash is everywhere");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_models_and_keys() {
    assert_eq!(bash("inferno sta"), ["status"]);
    assert_eq!(bash("inferno model ver"), ["verify"]);
    assert_eq!(bash("inferno status --operat"), ["--operations"]);
    assert_eq!(bash("inferno completions f"), ["fish"]);
    assert_eq!(bash("inferno model pull smol"), ["smollm2-135m-instruct"]);
    assert_eq!(bash("inferno model verify smol"), [""; 1], "it is not pulled");
    let keys = bash("inferno proxy --set proxy.routing");
    assert!(keys.contains(&"proxy.routing.policy=".to_owned()), "{keys:?}");
}

#[test]
fn zsh_and_fish_take_their_scripts() {
    let folder = tempfile::tempdir().expect("a folder");
    let zsh = "autoload -Uz compinit; compinit -u; source <(inferno completions zsh); \
               print -r -- ${_comps[inferno]}";
    if let Some(output) = shell("zsh", folder.path(), zsh) {
        let registered = String::from_utf8_lossy(&output.stdout);
        assert!(registered.contains("inferno"), "{output:?}");
    }
    let fish = "inferno completions fish | source; complete -C 'inferno sta'; \
                complete -C 'inferno model pull smol'";
    if let Some(output) = shell("fish", folder.path(), fish) {
        let offered = String::from_utf8_lossy(&output.stdout);
        assert!(
            offered.contains("status") && offered.contains("smollm2-135m-instruct"),
            "{output:?}"
        );
    }
}

#[test]
fn every_script_parses_in_its_shell() {
    let folder = tempfile::tempdir().expect("a folder");
    for program in ["inferno", "inferno-proxy", "inferno-backend"] {
        for (name, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish --no-execute")]
        {
            let script = format!("inferno completions {name} --program {program} > s && {check} s");
            if shell(name, folder.path(), "true").is_some() {
                let output = shell("bash", folder.path(), &script).expect("bash is everywhere");
                assert!(output.status.success(), "{program}, {name}: {output:?}");
                let bytes = std::fs::metadata(folder.path().join("s")).expect("written").len();
                assert!(bytes > 100, "{program}, {name}: {bytes} bytes");
            }
        }
    }
}

#[test]
fn man_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let output =
        shell("bash", folder.path(), "inferno man . && inferno man > first && cmp first inferno.1");
    let output = output.expect("bash is everywhere");
    assert!(output.status.success(), "{output:?}");
    for page in ["inferno", "inferno-top", "inferno-model-pull", "inferno-proxy"] {
        let text =
            std::fs::read_to_string(folder.path().join(format!("{page}.1"))).expect("written");
        assert!(text.contains(".TH ") && text.contains("EXIT STATUS"), "{page}: {text}");
    }
    let nowhere =
        shell("bash", folder.path(), "inferno man /nonexistent").expect("bash is everywhere");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nonexistent"));
}
