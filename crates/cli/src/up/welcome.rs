//! What a person sees when the first backend serves: examples that work when pasted.

use std::net::SocketAddr;

use super::plan::reachable;
use crate::console::{BOLD, DIM, Styled};

/// `embeds`: the model makes embeddings, and nobody can chat with it.
pub(super) fn text(
    address: SocketAddr,
    operations: SocketAddr,
    model: &str,
    embeds: bool,
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
        true => (curl_embeddings(&url, model), python_embeddings(&url, model)),
        false => (curl(&url, model), python(&url, model)),
    };
    let program = program();
    let talk = if embeds { String::new() } else { format!("{program} chat{chat} talks to it\n") };
    let hint = Styled(
        DIM,
        format_args!(
            "{talk}{program} top{status} shows the nodes, live\n\
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

fn curl_embeddings(url: &str, model: &str) -> String {
    format!(
        r#"curl {url}/v1/embeddings -H 'content-type: application/json' \
  -d '{{"model": "{model}", "input": ["The capital of Japan is Tokyo.", "A bicycle needs oil."]}}'"#
    )
}

fn python_embeddings(url: &str, model: &str) -> String {
    format!(
        r#"python3 - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
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
        let text = text(([0, 0, 0, 0], 9000).into(), ([127, 0, 0, 1], 6100).into(), "m-1", false);
        assert!(text.contains("curl http://127.0.0.1:9000/v1/chat/completions"), "{text}");
        assert!(text.contains(r#"base_url="http://127.0.0.1:9000/v1""#), "{text}");
        assert!(text.contains(" chat --url http://127.0.0.1:9000 talks"), "{text}");
        assert!(text.contains(" top shows the nodes"), "{text}");
    }

    #[test]
    fn a_model_for_embeddings_is_asked_for_embeddings() {
        let address = ([127, 0, 0, 1], 8080).into();
        let text = text(address, address, "m-1", true);
        assert!(text.contains("curl http://127.0.0.1:8080/v1/embeddings"), "{text}");
        assert!(text.contains("client.embeddings.create(model=\"m-1\""), "{text}");
        assert!(!text.contains("chat"), "{text}");
    }

    #[test]
    fn the_bodies_of_the_curl_examples_are_json() {
        for text in [curl("http://h", "m"), curl_embeddings("http://h", "m")] {
            let body = text.split('\'').nth(3).expect("a quoted body");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(body["model"], "m");
        }
    }
}
