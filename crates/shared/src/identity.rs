//! Random identifiers and the node's default name.

use crate::{config::Config, membership::Generation, vitals::NodeVitals};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{SystemTime, UNIX_EPOCH},
};

/// Who this process is, to those it registers with and those that check it.
#[derive(Debug)]
pub struct NodeIdentity {
    /// The node's name.
    pub id: String,
    /// Shown in the vitals and sent at registration: the proof that both are one process.
    pub nonce: String,
    generation: AtomicU64,
}

impl NodeIdentity {
    /// A new incarnation of the node that `config` names.
    pub fn new(config: &Config) -> Self {
        Self {
            id: config.node.id.clone().unwrap_or_else(default_node_id),
            nonce: random_hex(16),
            generation: AtomicU64::new(unix_ms()),
        }
    }

    /// This incarnation.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(SeqCst))
    }

    /// A proxy knows `current`: become newer than that.
    pub fn outgrow(&self, current: Generation) {
        self.generation.fetch_max(current.next().0, SeqCst);
    }

    /// Signs `vitals`.
    pub fn sign(&self, vitals: &mut NodeVitals) {
        vitals.node_id.clone_from(&self.id);
        vitals.nonce.clone_from(&self.nonce);
        vitals.generation = self.generation();
    }
}

/// `bytes` random bytes from the operating system, in lower-case hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0u8; bytes];
    // The kernel's generator fails only before it is seeded at boot; a process that cannot have
    // randomness must not mint secrets.
    getrandom::fill(&mut buffer).expect("the operating system gives random bytes");
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Host name and a random suffix, within what an id may hold.
pub fn default_node_id() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host: String = host
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(100)
        .collect();
    let host = if host.is_empty() { "node".to_owned() } else { host };
    format!("{host}-{}", random_hex(3))
}

/// Milliseconds since 1970: where a node's generation starts.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
