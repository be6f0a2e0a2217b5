//! What a person sees when the first backend serves: examples that work when pasted.

use std::net::SocketAddr;

use super::plan::reachable;
use crate::console::{BOLD, DIM, Styled};

pub(super) fn text(address: SocketAddr, operations: SocketAddr, model: &str) -> String {
    let address = reachable(address);
    let url = format!("http://{address}");
    let title = Styled(BOLD, format_args!("Inferno serves {model} at {url}"));
    let flags = |default: &str, flag: &str, value: String| match value == default {
        true => String::new(),
        false => format!(" {flag} {value}"),
    };
    let chat = flags("http://127.0.0.1:8080", "--url", url.clone());
    let status = flags("127.0.0.1:6100", "--operations", reachable(operations).to_string());
    let (curl, python, program) = (curl(&url, model), python(&url, model), program());
    let hint = Styled(
        DIM,
        format_args!(
            "{program} chat{chat} talks to it\n{program} top{status} shows the nodes, live\n\
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

fn curl(url: &str, model: &str) -> String {
    format!(
        r#"curl {url}/v1/chat/completions -H 'content-type: application/json' \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of Japan?"}}], "temperature": 0}}'"#
    )
}

fn python(url: &str, model: &str) -> String {
    format!(
        r#"python3 - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
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
        let text = text(([0, 0, 0, 0], 9000).into(), ([127, 0, 0, 1], 6100).into(), "m-1");
        assert!(text.contains("curl http://127.0.0.1:9000/v1/chat/completions"), "{text}");
        assert!(text.contains(r#"base_url="http://127.0.0.1:9000/v1""#), "{text}");
        assert!(text.contains(" chat --url http://127.0.0.1:9000 talks"), "{text}");
        assert!(text.contains(" top shows the nodes"), "{text}");
    }

    #[test]
    fn the_body_of_the_curl_example_is_json() {
        let text = curl("http://h", "m");
        let body = text.split('\'').nth(3).expect("a quoted body");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["model"], "m");
    }
}
