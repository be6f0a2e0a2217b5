//! Comparing an answer with the same request's answer now.

use super::answer::{Answer, Choice, same};
use serde::Serialize;
use serde_json::Value;

/// As much of a text is shown from where it differs.
const EXCERPT_CHARS: usize = 60;

/// What came of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Equal in everything that both tell.
    Same {
        /// Tokens whose log-probabilities were compared.
        scored: usize,
    },
    /// The first difference of each choice that has one.
    Different(Vec<Difference>),
    /// The answer was made by something else, which promises nothing.
    AnotherFingerprint,
}

/// Where a choice first differs.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    pub(crate) choice: u64,
    /// `text`, `finish_reason`, `token`, `logprobs`, `choices` or `completion_tokens`.
    pub(crate) what: &'static str,
    /// The character or token, from 0.
    pub(crate) at: usize,
    pub(crate) saved: Value,
    pub(crate) now: Value,
}

/// Fingerprints first: where they differ, nothing else needs to be the same.
pub(crate) fn compare(saved: &Answer, now: &Answer) -> Verdict {
    if let (Some(saved), Some(now)) = (&saved.fingerprint, &now.fingerprint)
        && saved != now
    {
        return Verdict::AnotherFingerprint;
    }
    let indices: Vec<u64> = saved.choices.keys().chain(now.choices.keys()).copied().collect();
    let mut differences = Vec::new();
    for index in indices {
        if differences.iter().any(|known: &Difference| known.choice == index) {
            continue;
        }
        let (before, after) = (saved.choices.get(&index), now.choices.get(&index));
        differences.extend(match (before, after) {
            (Some(saved), Some(now)) => choice(index, saved, now),
            (saved, now) => Some(Difference {
                choice: index,
                what: "choices",
                at: 0,
                saved: saved.is_some().into(),
                now: now.is_some().into(),
            }),
        });
    }
    if differences.is_empty()
        && let (Some(before), Some(after)) = (saved.completion_tokens, now.completion_tokens)
        && before != after
    {
        let (saved, now) = (before.into(), after.into());
        differences.push(Difference { choice: 0, what: "completion_tokens", at: 0, saved, now });
    }
    if !differences.is_empty() {
        return Verdict::Different(differences);
    }
    Verdict::Same { scored: saved.choices.values().map(|choice| choice.tokens.len()).sum() }
}

fn choice(index: u64, saved: &Choice, now: &Choice) -> Option<Difference> {
    let difference = |what, at, saved: Value, now: Value| {
        Some(Difference { choice: index, what, at, saved, now })
    };
    if saved.text != now.text {
        let pairs = saved.text.chars().zip(now.text.chars());
        let at = pairs.take_while(|(before, after)| before == after).count();
        let rest = |text: &str| text.chars().skip(at).take(EXCERPT_CHARS).collect::<String>();
        return difference("text", at, rest(&saved.text).into(), rest(&now.text).into());
    }
    if saved.finish_reason != now.finish_reason {
        let (before, after) = (saved.finish_reason.clone(), now.finish_reason.clone());
        return difference("finish_reason", 0, before.into(), after.into());
    }
    for (at, token) in saved.tokens.iter().enumerate() {
        let again = now.tokens.get(at).cloned().unwrap_or_default();
        if token["token"] != again["token"] {
            return difference("token", at, token["token"].clone(), again["token"].clone());
        }
        if !same(token, &again) {
            return difference("logprobs", at, token.clone(), again);
        }
    }
    if now.tokens.len() != saved.tokens.len() {
        let (before, after) = (saved.tokens.len(), now.tokens.len());
        return difference("token", before.min(after), before.into(), after.into());
    }
    None
}
