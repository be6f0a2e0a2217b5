//! One machine's installation as child processes: a proxy and its backends, started, watched,
//! restarted and stopped together.
//!
//! What may happen (a process exits, is ready, is due again, everything stops) is decided in
//! [`fleet`] and [`restart`], which know neither processes nor clocks; [`supervisor`] is the edge
//! that starts real ones. Children are this same program (`inferno proxy`, `inferno backend`), so
//! nothing has to be installed beside it. They run in process groups of their own, so that a
//! terminal's Ctrl-C reaches only us, and they end when their standard input does, so that nothing
//! outlives us even if we are killed.

mod events;
mod fleet;
mod plan;
mod process;
mod restart;
mod supervisor;
mod welcome;

pub(crate) use events::Reporter;
pub(crate) use plan::{Plan, free_addresses, reachable};
pub(crate) use supervisor::{Ended, supervise};
