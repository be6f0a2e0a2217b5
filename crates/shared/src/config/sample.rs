//! The sample file: every key with its meaning, commented out at its default.

use super::{
    Config,
    keys::{self, Key},
    layers::{json, pointer},
};
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
# Inferno's configuration: every key there is, commented out at its default. As it stands, this file
# changes nothing. To change something, take the # from a key and from the [table] above it.
#
# Inferno reads /etc/inferno/inferno.toml, then ./inferno.toml, or instead of both the file that
# --config or INFERNO_CONFIG names; over them go INFERNO_* variables, and over those --set flags.
# `inferno config show` prints what is in effect and where it came from.
#
# Made by `inferno docs inferno.toml`; a test holds it against the code.
";

/// Most columns of a comment.
const WIDTH: usize = 100;

/// The whole file.
pub fn sample() -> String {
    let defaults = json(&Config::default());
    let mut page = HEAD.to_owned();
    for (table, about, keys) in keys::by_table() {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n{}#[{table}]\n", comment(about));
        for key in keys {
            let default = defaults.pointer(&pointer(key.name)).unwrap_or(&Value::Null);
            let _ = write!(page, "\n{}#{} = {}\n", meaning(key), key.leaf(), toml(default));
        }
    }
    page
}

fn meaning(key: &Key) -> String {
    let unset = key.unset.map(|unset| format!(" Empty: {unset}.")).unwrap_or_default();
    let takes = format!("Takes {}. {}", key.kind.takes(), key.variables().join(" or "));
    comment(&format!("{}{unset}", key.about)) + &comment(&takes)
}

/// `text` as lines that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH || line == "#" => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

/// JSON's text, numbers, switches and lists are TOML's too; nothing is written as empty text.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".into(),
        Value::Array(items) if items.len() > 1 => {
            let items: String = items.iter().map(|item| format!("\n#    {item},")).collect();
            format!("[{items}\n#]")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigArgs, keys::KEYS};

    const FILE: &str = include_str!("../../../../inferno.toml");

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("inferno.toml");
        std::fs::write(&path, text).expect("written");
        let args = ConfigArgs { config: Some(path), set: Vec::new() };
        Config::from_sources(&args, []).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Settings without their `#`; what is said about them has a space behind it.
    fn uncommented() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest)
                if !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("    ")) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        };
        FILE.lines().map(uncomment).collect()
    }

    #[test]
    fn the_file_at_the_root_is_this_one() {
        assert!(FILE == super::sample(), "run: inferno docs inferno.toml > inferno.toml");
        assert!(FILE.lines().all(|line| line.len() <= super::WIDTH), "a line is too long");
    }

    #[test]
    fn the_file_changes_nothing_as_it_is() {
        assert_eq!(load(FILE), Config::default());
        assert!(FILE.lines().all(|line| line.is_empty() || line.starts_with('#')));
    }

    #[test]
    fn the_file_is_valid_and_says_the_defaults_with_every_key_uncommented() {
        let text = uncommented();
        assert_eq!(load(&text), Config::default());
        let leaves = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#'));
        assert_eq!(leaves.count(), KEYS.len(), "every key stands there");
    }
}
