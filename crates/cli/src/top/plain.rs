//! Without a full screen: the same as lines, again and again.

use std::time::Duration;

use inferno_shared::identity::unix_ms;
use tokio::time::{MissedTickBehavior, interval};

use crate::command::status;
use crate::console::print;
use crate::nodes::{Asker, report};

/// What a round is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The table of `inferno status`, and an empty line.
    Table,
    /// One JSON object on one line.
    Json,
}

/// Prints a round each interval.
///
/// # Errors
/// If nobody reads any more.
pub(crate) async fn print_for_ever(
    asker: &Asker,
    every: Duration,
    form: Form,
) -> std::io::Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sightings = asker.ask().await;
        match form {
            Form::Json => print(report(&sightings, unix_ms()))?,
            Form::Table => {
                status::show(&sightings)?;
                print("")?;
            }
        }
    }
}
