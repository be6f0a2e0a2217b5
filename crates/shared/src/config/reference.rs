//! The reference of all keys, made from the table that reads them.

use super::{
    Config, env,
    keys::{self, Key},
    layers::{json, pointer},
};
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
# Configuration

Made by `inferno docs configuration`; a test holds this page against the code.

Every program of ours knows every key, so one file serves a whole installation: a proxy ignores what
stands under `backend`, a backend what stands under `proxy`. Without any configuration everything
listens on loopback and works. [`inferno.toml`](../inferno.toml) has every key, commented out at its
default; `inferno docs inferno.toml` prints it.

## Layers

Later ones win, key by key:

1. the defaults, listed below;
2. `/etc/inferno/inferno.toml`, then `./inferno.toml`, where they exist;
   `--config FILE` or `INFERNO_CONFIG=FILE` is read instead of both, and must exist;
3. `INFERNO_*` variables;
4. `--set KEY=VALUE`, which may be repeated.

```console
$ cat inferno.toml
[proxy]
listen = \"127.0.0.1:8081\"
drain_timeout_ms = 10000
$ INFERNO_PROXY__LISTEN=127.0.0.1:8082 inferno config show --changed --set proxy.drain_timeout_ms=5000
proxy.listen            127.0.0.1:8082  INFERNO_PROXY__LISTEN
proxy.drain_timeout_ms  5000            --set
```

`inferno config show` prints each effective value and where it came from, secrets hidden; `inferno
config check` says what a start would stumble over, all of it at once. A file that is not valid, an
unknown key, an unknown `INFERNO_*` variable stop a program at its start, with file, line and the
nearest known name. Nothing is ignored in silence.

## How values are written

- The variable of the key `a.b_c` is `INFERNO_A__B_C`: two underscores between levels. Some keys have
  a short name besides; setting both to different values is an error.
- Text arrives as it is. `0123`, `true`, `[x]`, `\"q\"` in a variable are that very text, never a number,
  a switch or a list, and no quotes are taken away.
- Lists in variables and `--set`: `a,b` or `[\"a\",\"b\"]`; empty: the empty list. In a file: `[\"a\", \"b\"]`.
- Sizes: bytes, or a number with `KiB`, `MiB`, `GiB`, `TiB` (1024), `KB`, `MB`, `GB`, `TB` (1000).
- Empty text means \"not set\" for a key that may have no value, and takes back what a lower layer set:
  `INFERNO_NODE__ID=`. For any other key it is an error.
- Each secret has a twin with `_file` at its end, the path of a file that holds it; one line break at
  the file's end is not part of the secret. Setting both is an error.
- Variables that Kubernetes and Docker inject beside a service called `inferno-…`
  (`INFERNO_PROXY_SERVICE_HOST`, `INFERNO_PROXY_PORT=tcp://…`, and so on) are recognised by shape and
  value, noted once at `debug`, and otherwise left alone.

## Keys
";

/// All keys as a Markdown page.
pub fn reference() -> String {
    let defaults = json(&Config::default());
    let mut page = HEAD.to_owned();
    // Writing to a string cannot fail.
    for (table, about, keys) in keys::by_table() {
        let _ = write!(page, "\n### `{table}`\n\n{about}\n\n");
        page.push_str("| key and variable | takes | default | meaning |\n|---|---|---|---|\n");
        for key in keys {
            let names = [key.name.to_owned()].into_iter().chain(key.variables());
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            let (takes, default) = (key.kind.takes(), default(key, &defaults));
            let _ =
                writeln!(page, "| {} | {takes} | {default} | {} |", names.join("<br>"), key.about);
        }
    }
    page.push_str("\n## Variables without a key\n\n| variable | meaning |\n|---|---|\n");
    for (name, about) in env::ELSEWHERE {
        let _ = writeln!(page, "| `{name}` | {about} |");
    }
    let old = env::OLD_OPERATIONS_ADDR;
    let _ = writeln!(
        page,
        "| `{old}` | The old name of `INFERNO_OPERATIONS_ADDR`: works with a warning, and loses to the new one. |"
    );
    page
}

fn default(key: &Key, defaults: &Value) -> String {
    match defaults.pointer(&pointer(key.name)) {
        None | Some(Value::Null) => key.unset.unwrap_or_default().into(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Array(items)) if items.is_empty() => "empty".into(),
        Some(Value::Array(items)) => {
            let items = items.iter().filter_map(Value::as_str).map(|item| format!("`{item}`"));
            items.collect::<Vec<_>>().join(" ")
        }
        Some(value) => format!("`{value}`"),
    }
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
