//! Idle connections, by incarnation of a backend, each with the worker that used it: the runtime of
//! that thread is the one that watches its socket.

use super::Connection;
use crate::workers;
use inferno_shared::membership::{Generation, NodeView, Snapshot};
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Most idle connections that a worker keeps to one incarnation. Beyond what is in flight at once they are waste;
/// below it, connections are made all the time.
const IDLE_PER_NODE_MAX: usize = 1024;
/// How long a connection may lie idle. Shorter than servers usually allow, so that it is we who
/// close it, rather than the backend in the moment we reuse it.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The same before a request that may not be sent twice. No server that keeps connections closes one so
/// soon, so that only a backend that ends just then loses the request; it would lose one on a new connection
/// as well.
const FRESH_MAX: Duration = Duration::from_secs(1);

/// A backend process: a restarted one is another, and gets no connection of the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Incarnation {
    generation: Generation,
    address: SocketAddr,
}

impl From<&NodeView> for Incarnation {
    fn from(node: &NodeView) -> Self {
        Self { generation: node.generation, address: node.address }
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Connections whose last exchange left them usable.
pub(crate) struct Pool {
    /// One for each worker, which no other takes.
    states: Box<[Mutex<State>]>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { states: (0..workers::count()).map(|_| Mutex::default()).collect() }
    }
}

#[derive(Default)]
struct State {
    idle: HashMap<Incarnation, Vec<Idle>>,
    /// The membership that `idle` was last compared with.
    version: u64,
}

impl Pool {
    /// The connection to `node` used last, if one is idle and still open. Where that is found out too late,
    /// another is tried if `replayable`; else the connection has to be sure.
    pub(crate) fn take(&self, node: &Incarnation, replayable: bool) -> Option<Connection> {
        let now = Instant::now();
        let mut state = self.lock();
        let idle = state.idle.get_mut(node)?;
        loop {
            let age = now.duration_since(idle.last()?.since);
            if !replayable && age >= FRESH_MAX {
                return None;
            }
            let connection = idle.pop()?.connection;
            let is_quiet =
                if replayable { connection.is_quiet() } else { connection.is_surely_quiet() };
            if age < IDLE_MAX && is_quiet {
                return Some(connection);
            }
        }
    }

    /// Keeps `connection` for the next request to `node`.
    pub(crate) fn put(&self, node: Incarnation, connection: Connection) {
        let now = Instant::now();
        let mut state = self.lock();
        let idle = state.idle.entry(node).or_default();
        // Taken from the back, so the oldest are in front.
        let stale =
            idle.iter().take_while(|idle| now.duration_since(idle.since) >= IDLE_MAX).count();
        idle.drain(..stale);
        if idle.len() < IDLE_PER_NODE_MAX {
            idle.push(Idle { connection, since: now });
        }
    }

    /// Closes the connections to backends that `members` no longer has.
    pub(crate) fn retain(&self, members: &Snapshot) {
        let mut state = self.lock();
        if state.version == members.version {
            return;
        }
        state.version = members.version;
        let members: HashSet<_> =
            members.nodes.iter().map(|node| Incarnation::from(&**node)).collect();
        state.idle.retain(|incarnation, _| members.contains(incarnation));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a map of sockets half changed.
        let state = &self.states[workers::number() % self.states.len()];
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
