//! The proof: what a node's vitals say of the registration that pointed at them. Pure.

use crate::{
    NodeVitals,
    membership::{Check, ReportedLoad, Target},
    vitals::ServiceState,
};

/// What `vitals`, read where `target` is, prove of it.
pub fn judge(target: &Target, vitals: &NodeVitals) -> Check {
    let same_generation =
        target.expected_generation.is_none_or(|expected| expected == vitals.generation);
    let same_nonce = target.nonce.as_ref().is_none_or(|expected| *expected == vitals.nonce);
    if vitals.node_id != target.id || !same_generation || !same_nonce {
        return Check::Replaced;
    }
    if vitals.state == ServiceState::Stalled {
        return Check::Missed;
    }
    Check::Passed {
        ready: vitals.ready,
        draining: vitals.state == ServiceState::Draining,
        load: ReportedLoad {
            requests_in_progress: vitals.requests_in_progress,
            queue_depth: vitals.queue_depth,
            kv_cache_usage: vitals.kv_cache_usage,
            tokens_per_second: vitals.tokens_per_second,
            cpu_usage: vitals.cpu_usage,
            memory_usage: vitals.memory_usage,
            gpu_usage: vitals.gpu_usage,
            kv_cache_tokens: vitals.kv_cache_tokens,
        },
    }
}
