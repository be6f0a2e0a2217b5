//! Answers of proxies, for the tests of what is made of them.

use inferno_shared::NodeVitals;
use inferno_shared::registration::wire::Peer;
use inferno_shared::vitals::ServiceState;
use serde_json::json;

use super::ask::{Answer, Sighting, Silence, SilenceKind};

/// A backend with 3 requests of the asked proxy, 2 waiting, 40.5 tokens/s, 12 % KV, 50 % CPU.
pub(crate) fn peer(id: &str, state: &str, generation: u64) -> Peer {
    let peer = json!({
        "id": id,
        "node_type": "backend",
        "address": "10.0.0.1:8080",
        "operations": "10.0.0.1:6100",
        "state": state,
        "generation": generation,
        "models": [{"id": "smollm2-135m-instruct"}],
        "fingerprint": "f00d",
        "in_flight": 3,
        "reported": {
            "requests_in_progress": 5,
            "queue_depth": 2,
            "kv_cache_usage": 12.0,
            "tokens_per_second": 40.5,
            "cpu_usage": 50.0,
            "memory_usage": 25.0,
            "gpu_usage": 0.0,
        },
    });
    serde_json::from_value(peer).expect("a peer")
}

/// A healthy proxy that knows these.
pub(crate) fn answer(peers: Vec<Peer>) -> Answer {
    let vitals = NodeVitals {
        node_id: "proxy-1".into(),
        service: "inferno-proxy".into(),
        version: "0.1.0".into(),
        state: ServiceState::Ready,
        ready: true,
        uptime_seconds: 7_300,
        requests_in_progress: 3,
        requests_total: 1_000,
        failed_responses: 2,
        ..NodeVitals::default()
    };
    Answer { vitals, peers }
}

/// That answer, from the proxy at 127.0.0.1:6100.
pub(crate) fn sighting(peers: Vec<Peer>) -> Sighting {
    Sighting { asked: "127.0.0.1:6100".into(), answer: Ok(answer(peers)) }
}

/// A proxy at `asked` that nobody can reach.
pub(crate) fn silent(asked: &str) -> Sighting {
    let (kind, reason) = (SilenceKind::Unreachable, "connection refused".to_owned());
    let silence = Silence::new(asked.to_owned(), kind, reason);
    Sighting { asked: asked.to_owned(), answer: Err(silence) }
}
