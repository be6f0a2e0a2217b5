//! What an engine says it serves: OpenAI's `GET /v1/models`, read with limits.

use inferno_shared::membership::ModelRef;
use serde::Deserialize;

/// Most models of one node; the registration has room for no more.
const MODELS_MAX: usize = 64;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 256;

/// What we say of our own models.
const OURS: &str = "inferno";

/// An engine's list, as far as a registration can carry it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// In the engine's order, each once.
    pub(crate) models: Vec<ModelRef>,
    /// How many there is no room for, or whose names cannot be used.
    pub(crate) left_out: usize,
    /// It is a proxy or backend of ours.
    pub(crate) is_ours: bool,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
}

/// Reads the answer of `/v1/models`.
///
/// # Errors
/// If it is not OpenAI's list.
pub(crate) fn parse(body: &[u8]) -> Result<Listed, serde_json::Error> {
    let list: List = serde_json::from_slice(body)?;
    let is_ours = list.data.iter().any(|model| model.owned_by.as_deref() == Some(OURS));
    let (models, left_out) = bounded(list.data.into_iter().map(|model| model.id));
    Ok(Listed { models, left_out, is_ours })
}

/// The models called so, each once.
pub(crate) fn named(names: &[String]) -> Vec<ModelRef> {
    bounded(names.iter().cloned()).0
}

/// A name of `--model`.
///
/// # Errors
/// Why no model can be called so.
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    match is_valid(name) {
        true => Ok(name.into()),
        false => {
            Err(format!("a name has 1 to {NAME_BYTES_MAX} characters, none of them invisible"))
        }
    }
}

fn bounded(names: impl Iterator<Item = String>) -> (Vec<ModelRef>, usize) {
    let (mut models, mut left_out) = (Vec::<ModelRef>::new(), 0);
    for id in names {
        if models.iter().any(|known| known.id == id) {
            continue;
        }
        match models.len() < MODELS_MAX && is_valid(&id) {
            true => models.push(ModelRef { id, sha256: None }),
            false => left_out += 1,
        }
    }
    (models, left_out)
}

fn is_valid(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(listed: &Listed) -> Vec<&str> {
        listed.models.iter().map(|model| model.id.as_str()).collect()
    }

    #[test]
    fn the_lists_of_real_engines_are_read() {
        // llama-server, which has a second list beside OpenAI's; vLLM; Ollama.
        for (body, expected) in [
            (
                r#"{"models":[{"name":"x.gguf"}],"object":"list","data":[{"id":"/m/x.gguf","object":"model",
                "owned_by":"llamacpp","meta":{"n_ctx_train":8192}}]}"#,
                "/m/x.gguf",
            ),
            (
                r#"{"object":"list","data":[{"id":"Qwen/Qwen3-8B","owned_by":"vllm","max_model_len":4096,
                "permission":[]}]}"#,
                "Qwen/Qwen3-8B",
            ),
            (r#"{"object":"list","data":[{"id":"llama3:8b","owned_by":"library"}]}"#, "llama3:8b"),
        ] {
            let listed = parse(body.as_bytes()).expect(body);
            assert_eq!(ids(&listed), [expected]);
            assert!(!listed.is_ours && listed.left_out == 0);
        }
    }

    #[test]
    fn what_a_registration_cannot_carry_is_counted_and_left_out() {
        let mut names: Vec<String> = (0..70).map(|index| format!("m{index}")).collect();
        names.extend(["m1".into(), String::new(), "a\u{7}b".into(), "x".repeat(257)]);
        let data: Vec<_> = names.iter().map(|id| serde_json::json!({"id": id})).collect();
        let listed = parse(serde_json::json!({"data": data}).to_string().as_bytes()).expect("read");
        assert_eq!((listed.models.len(), listed.left_out), (64, 9), "a name twice is not left out");
        assert!(parse_name("").is_err() && parse_name("org/model:8b").is_ok());
    }

    #[test]
    fn our_own_are_recognised_and_other_answers_are_no_list() {
        let ours = br#"{"object":"list","data":[{"id":"m","owned_by":"inferno"}]}"#;
        assert!(parse(ours).expect("a list").is_ours);
        assert_eq!(parse(br#"{"data":[]}"#).expect("a list").models, []);
        for body in ["Ollama is running", "{}", r#"{"data":[{}]}"#, r#"{"data":{}}"#, ""] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
