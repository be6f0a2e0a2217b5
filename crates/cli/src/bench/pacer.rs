//! The clock of an open loop: a thread of its own, so that no work of the client's can hold it up.
//! It makes each request before its time and hands it over at it; the runtime's own timer counts in
//! whole milliseconds, which would be seen in the latencies.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::runner::{Arrival, Prepared};

/// A request and when it begins, from the start of the run.
pub(super) struct Due {
    pub(super) at: Duration,
    pub(super) request: Prepared,
}

/// So many arrivals may wait to be sent. They keep their times, so waiting shows as lateness.
const WAITING_MAX: usize = 64;

/// Hands over what is due, from now on, until `schedule` ends or nobody listens.
pub(super) fn start(
    schedule: impl Iterator<Item = Due> + Send + 'static,
) -> std::io::Result<mpsc::Receiver<Arrival>> {
    let (arrivals, receiver) = mpsc::channel(WAITING_MAX);
    let pace = move || {
        let started = Instant::now();
        for Due { at, request } in schedule {
            let scheduled = started + at;
            std::thread::sleep(scheduled.saturating_duration_since(Instant::now()));
            if arrivals.blocking_send(Arrival { scheduled, request }).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("pacer".into()).spawn(pace)?;
    Ok(receiver)
}
