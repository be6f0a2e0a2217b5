//! `/v1/models`: the union of what the live backends serve.

use crate::{auth::Caller, error::RequestError, transform::Aliases};
use bytes::Bytes;
use inferno_shared::membership::Snapshot;
use serde::Serialize;

/// OpenAI's list object.
#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// OpenAI's model object.
#[derive(Clone, Copy, Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Unix seconds: since when the longest-lived of its backends runs.
    created: u64,
    owned_by: &'static str,
    /// Of an alias: the model that it stands for, as vLLM says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<&'a str>,
}

/// The answer to `path`, `/v1/models` or `/v1/models/{id}`: the models that are there for `caller`, and the aliases
/// of such.
pub(crate) fn answer(
    path: &str,
    members: &Snapshot,
    aliases: &Aliases,
    caller: &Caller,
) -> Result<Bytes, RequestError> {
    let models = models(members, aliases, caller);
    let body = match path.strip_prefix("/v1/models/") {
        None => serde_json::to_vec(&List { object: "list", data: models }),
        Some(id) => {
            let id = percent_decode(id);
            let found = models.iter().find(|model| model.id.as_bytes() == id);
            let unknown =
                || RequestError::UnknownModel { model: String::from_utf8_lossy(&id).into_owned() };
            serde_json::to_vec(found.ok_or_else(unknown)?)
        }
    };
    // Strings and numbers: the serialiser has nothing to fail on.
    Ok(body.unwrap_or_default().into())
}

fn models<'a>(members: &'a Snapshot, aliases: &'a Aliases, caller: &Caller) -> Vec<Model<'a>> {
    let model = |(id, root): (&'a str, Option<&'a str>)| {
        let serving = members.members().filter(|node| node.serves(root.unwrap_or(id)));
        let created = serving.map(|node| node.generation.0 / 1000).min().unwrap_or(0);
        Model { id, object: "model", created, owned_by: "inferno", root }
    };
    let ids = members.models().into_iter().map(|found| found.id.as_str());
    // Where an alias has a model's name, the name means what the alias says.
    let ids = ids.filter(|id| aliases.model(id).is_none()).map(|id| (id, None));
    let aliases = aliases.iter().filter(|(_, model)| members.has_model(model));
    let all = ids.chain(aliases.map(|(name, model)| (name, Some(model))));
    all.filter(|(id, _)| caller.may_use(id)).map(model).collect()
}

/// RFC 3986 §2.1. What is not an escape stays as it is.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped =
            (first == b'%').then(|| after.first_chunk::<2>()).flatten().and_then(hex_pair);
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    out
}

fn hex_pair(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_come_escaped() {
        assert_eq!(percent_decode("org%2Fname%20x"), b"org/name x");
        for odd in ["100%", "%zz", "%2", "a/b"] {
            assert_eq!(percent_decode(odd), odd.as_bytes());
        }
    }

    #[test]
    fn nobody_serves_nothing() {
        let answer =
            |path| answer(path, &Snapshot::default(), &Aliases::default(), &Caller::default());
        let body = answer("/v1/models").expect("a list");
        assert_eq!(body, r#"{"object":"list","data":[]}"#);
        let error = answer("/v1/models/a%2Fb");
        let error = error.expect_err("unknown");
        assert!(matches!(error, RequestError::UnknownModel { model } if model == "a/b"));
    }
}
