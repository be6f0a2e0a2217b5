//! What a person sees when the first backend serves: examples that work when pasted.

use std::net::SocketAddr;

use super::plan::reachable;
use crate::console::{BOLD, DIM, Styled};

/// With `needs_key` they take the key from `OPENAI_API_KEY`, as OpenAI's own clients do.
pub(super) fn text(
    address: SocketAddr,
    operations: SocketAddr,
    model: &str,
    needs_key: bool,
) -> String {
    let address = reachable(address);
    let url = format!("http://{address}");
    let title = Styled(BOLD, format_args!("Inferno serves {model} at {url}"));
    let flags = |default: &str, flag: &str, value: String| match value == default {
        true => String::new(),
        false => format!(" {flag} {value}"),
    };
    let chat = flags("http://127.0.0.1:8080", "--url", url.clone());
    let status = flags("127.0.0.1:6100", "--operations", reachable(operations).to_string());
    let (curl, python, program) =
        (curl(&url, model, needs_key), python(&url, model, needs_key), program());
    let key = if needs_key {
        "Each of them needs an API key in OPENAI_API_KEY: `inferno key create NAME` makes one.\n"
    } else {
        ""
    };
    let hint = Styled(
        DIM,
        format_args!(
            "{key}{program} chat{chat} talks to it\n{program} top{status} shows the nodes, live\n\
             Python needs `pip install openai`. Ctrl-C stops everything."
        ),
    );
    format!("\n{title}\n\n{curl}\n\n{python}\n\n{hint}\n")
}

/// How this program was called, so that the lines it prints can be pasted too.
fn program() -> String {
    let called = std::env::args().next().filter(|called| called.contains('/'));
    called.unwrap_or_else(|| "inferno".into())
}

fn curl(url: &str, model: &str, needs_key: bool) -> String {
    let key = if needs_key { r#" -H "authorization: Bearer $OPENAI_API_KEY""# } else { "" };
    format!(
        r#"curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of Japan?"}}], "temperature": 0}}'"#
    )
}

fn python(url: &str, model: &str, needs_key: bool) -> String {
    let key = if needs_key { "" } else { r#", api_key="none""# };
    format!(
        r#"python3 - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1"{key})
question = [{{"role": "user", "content": "What is the capital of Japan?"}}]
answer = client.chat.completions.create(model="{model}", messages=question, temperature=0, stream=True)
for event in answer:
    if event.choices:
        print(event.choices[0].delta.content or "", end="", flush=True)
print()
END"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_name_the_real_address_and_model() {
        let text = text(([0, 0, 0, 0], 9000).into(), ([127, 0, 0, 1], 6100).into(), "m-1", false);
        assert!(text.contains("curl http://127.0.0.1:9000/v1/chat/completions"), "{text}");
        assert!(text.contains(r#"base_url="http://127.0.0.1:9000/v1", api_key="none""#), "{text}");
        assert!(text.contains(" chat --url http://127.0.0.1:9000 talks"), "{text}");
        assert!(text.contains(" top shows the nodes"), "{text}");
        assert!(!text.contains("OPENAI_API_KEY"), "{text}");
    }

    #[test]
    fn where_keys_are_needed_the_examples_bring_one() {
        let address = ([127, 0, 0, 1], 8080).into();
        let text = text(address, address, "m", true);
        assert!(text.contains(r#"-H "authorization: Bearer $OPENAI_API_KEY" \"#), "{text}");
        assert!(!text.contains("api_key="), "Python's client reads the variable: {text}");
        assert!(text.contains("inferno key create NAME"), "{text}");
    }

    #[test]
    fn the_body_of_the_curl_example_is_json() {
        let text = curl("http://h", "m", true);
        let body = text.split('\'').nth(3).expect("a quoted body");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["model"], "m");
    }
}
