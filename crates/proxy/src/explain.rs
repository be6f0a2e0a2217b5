//! What routing would do with a request, and why, instead of doing it.

use crate::dispatch::RouteKeys;
use crate::routing::Opinion;
use bytes::Bytes;
use inferno_shared::{config::RoutingPolicy, membership::NodeView};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The answer: who could be asked, the best first, with what the policy makes of each.
pub(crate) fn answer(
    policy: RoutingPolicy,
    keys: &RouteKeys,
    mut opinions: Vec<(Arc<NodeView>, Opinion)>,
) -> Bytes {
    let score = |opinion: &Opinion| opinion.score.unwrap_or(f64::INFINITY);
    // A stable order: where there are no scores, that of the ids.
    opinions.sort_by(|(_, one), (_, other)| score(one).total_cmp(&score(other)));
    let candidates: Vec<Value> =
        opinions.iter().map(|(node, opinion)| candidate(node, opinion)).collect();
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

fn candidate(node: &NodeView, opinion: &Opinion) -> Value {
    let reasons = opinion.reasons.iter().map(|&(name, value)| (name.to_owned(), rounded(value)));
    json!({
        "id": node.id,
        "state": node.state.as_str(),
        "score": opinion.score.map(rounded),
        "reasons": reasons.collect::<Map<_, _>>(),
    })
}

/// Six decimals: microseconds, where it is seconds.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}
