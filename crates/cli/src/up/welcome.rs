//! What a person sees when the first backend serves: examples that work when pasted.

use std::net::SocketAddr;

use super::plan::reachable;
use crate::console::{BOLD, DIM, Styled};

/// `embeds`: the model makes embeddings, and nobody can chat with it. With `needs_key` the examples take the key
/// from `OPENAI_API_KEY`, as OpenAI's own clients do.
pub(super) fn text(
    address: SocketAddr,
    operations: SocketAddr,
    model: &str,
    embeds: bool,
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
    let (curl, python) = match embeds {
        true => {
            (curl_embeddings(&url, model, needs_key), python_embeddings(&url, model, needs_key))
        }
        false => (curl(&url, model, needs_key), python(&url, model, needs_key)),
    };
    let program = program();
    let key = if needs_key {
        "Each of them needs an API key in OPENAI_API_KEY: `inferno key create NAME` makes one.\n"
    } else {
        ""
    };
    let talk = if embeds { String::new() } else { format!("{program} chat{chat} talks to it\n") };
    let hint = Styled(
        DIM,
        format_args!(
            "{key}{talk}{program} top{status} shows the nodes, live\n\
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

/// Curl's header with the key, where there must be one.
fn key_header(needs_key: bool) -> &'static str {
    if needs_key { r#" -H "authorization: Bearer $OPENAI_API_KEY""# } else { "" }
}

/// What Python's client must be told of the key: it reads the variable, and asks for one where none is needed.
fn key_argument(needs_key: bool) -> &'static str {
    if needs_key { "" } else { r#", api_key="none""# }
}

fn curl(url: &str, model: &str, needs_key: bool) -> String {
    let key = key_header(needs_key);
    format!(
        r#"curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of Japan?"}}], "temperature": 0}}'"#
    )
}

fn python(url: &str, model: &str, needs_key: bool) -> String {
    let key = key_argument(needs_key);
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

fn curl_embeddings(url: &str, model: &str, needs_key: bool) -> String {
    let key = key_header(needs_key);
    format!(
        r#"curl {url}/v1/embeddings -H 'content-type: application/json'{key} \
  -d '{{"model": "{model}", "input": ["The capital of Japan is Tokyo.", "A bicycle needs oil."]}}'"#
    )
}

fn python_embeddings(url: &str, model: &str, needs_key: bool) -> String {
    let key = key_argument(needs_key);
    format!(
        r#"python3 - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1"{key})
texts = ["Tokyo is a city.", "Kyoto is a city.", "A bicycle needs oil."]
first, *others = [item.embedding for item in client.embeddings.create(model="{model}", input=texts).data]
for text, other in zip(texts[1:], others):
    print(f"{{sum(a * b for a, b in zip(first, other)):.3f}}  {{text}}")
END"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_name_the_real_address_and_model() {
        let text =
            text(([0, 0, 0, 0], 9000).into(), ([127, 0, 0, 1], 6100).into(), "m-1", false, false);
        assert!(text.contains("curl http://127.0.0.1:9000/v1/chat/completions"), "{text}");
        assert!(text.contains(r#"base_url="http://127.0.0.1:9000/v1", api_key="none""#), "{text}");
        assert!(text.contains(" chat --url http://127.0.0.1:9000 talks"), "{text}");
        assert!(text.contains(" top shows the nodes"), "{text}");
        assert!(!text.contains("OPENAI_API_KEY"), "{text}");
    }

    #[test]
    fn where_keys_are_needed_the_examples_bring_one() {
        let address = ([127, 0, 0, 1], 8080).into();
        let text = text(address, address, "m", false, true);
        assert!(text.contains(r#"-H "authorization: Bearer $OPENAI_API_KEY" \"#), "{text}");
        assert!(!text.contains("api_key="), "Python's client reads the variable: {text}");
        assert!(text.contains("inferno key create NAME"), "{text}");
    }

    #[test]
    fn a_model_for_embeddings_is_asked_for_embeddings() {
        let address = ([127, 0, 0, 1], 8080).into();
        let text = text(address, address, "m-1", true, false);
        assert!(text.contains("curl http://127.0.0.1:8080/v1/embeddings"), "{text}");
        assert!(text.contains("client.embeddings.create(model=\"m-1\""), "{text}");
        assert!(!text.contains("chat"), "{text}");
    }

    #[test]
    fn the_bodies_of_the_curl_examples_are_json() {
        for text in [curl("http://h", "m", true), curl_embeddings("http://h", "m", true)] {
            let body = text.split('\'').nth(3).expect("a quoted body");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(body["model"], "m");
        }
    }
}
