//! The reference of all keys, made from the table that reads them.

use super::{Config, keys::KEYS};
use std::fmt::Write;

const HEAD: &str = "\
# Configuration

Made by `inferno docs configuration`; a test holds this file against the code.

Layers, later ones win: the defaults, `/etc/inferno/inferno.toml`, `./inferno.toml`, `INFERNO_*`
variables, `--set KEY=VALUE`. `--config FILE` (or `INFERNO_CONFIG`) replaces both files. A key
`a.b` stands in a file as `b` in the table `[a]`. `INFERNO_MODELS` names the folder that models live
in. An unknown key or variable is an error that names the nearest known one; what Kubernetes and
Docker inject for a service called `inferno-…` is not.

`inferno config show` prints each effective value and where it came from, `inferno config check`
only says whether all is well.

| key | variable | default | meaning |
|---|---|---|---|
";

/// All keys as a Markdown page.
pub fn reference() -> String {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for key in KEYS {
        let default = defaults.pointer(&format!("/{}", key.name.replace('.', "/")));
        let default = match default {
            None | Some(serde_json::Value::Null) => "none".into(),
            Some(serde_json::Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        let variable = key.variable();
        let flat = key.flat.map(|flat| format!(" or `{flat}`")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ =
            writeln!(page, "| `{}` | `{variable}`{flat} | {default} | {} |", key.name, key.about);
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_this_one() {
        let written = include_str!("../../../../docs/configuration.md");
        assert!(
            written == super::reference(),
            "run: inferno docs configuration > docs/configuration.md"
        );
    }
}
