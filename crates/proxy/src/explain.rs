//! What routing would do with a request, and why, instead of doing it.

use crate::dispatch::{Explained, RouteKeys};
use bytes::Bytes;
use inferno_shared::config::RoutingPolicy;
use serde_json::{Map, Value, json};

/// The answer: who could be asked, the best first, with what the policy makes of each.
pub(crate) fn answer(
    policy: RoutingPolicy,
    keys: &RouteKeys,
    mut candidates: Vec<Explained>,
) -> Bytes {
    let score = |one: &Explained| one.opinion.score.unwrap_or(f64::INFINITY);
    // A stable order: where there are no scores, that of the ids.
    candidates.sort_by(|one, other| {
        one.is_ejected.cmp(&other.is_ejected).then(score(one).total_cmp(&score(other)))
    });
    let candidates: Vec<Value> = candidates.iter().map(candidate).collect();
    json!({
        "object": "routing.explanation",
        "model": keys.model,
        "policy": policy,
        "prompt_blocks": keys.prompt.blocks.len(),
        "prompt_tokens_estimated": keys.prompt.tokens,
        "has_session": keys.session.is_some(),
        "candidates": candidates,
    })
    .to_string()
    .into()
}

fn candidate(one: &Explained) -> Value {
    let Explained { node, opinion, is_ejected } = one;
    let reasons = opinion.reasons.iter().map(|&(name, value)| (name.to_owned(), rounded(value)));
    json!({
        "id": node.id,
        "state": node.state.as_str(),
        "ejected": is_ejected,
        "score": opinion.score.map(rounded),
        "reasons": reasons.collect::<Map<_, _>>(),
    })
}

/// Six decimals: microseconds, where it is seconds.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}
