//! A backend's answer on its way to the client, piece by piece.

use crate::{
    downstream::Client,
    error::{Interruption, RequestError},
    stream::{COMMENT, EventSplitter},
    upstream::{PULSE, Response, UpstreamError},
};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a client that sent a FIN in mid-stream is asked whether it still reads. Two of these
/// are the longest that one that left can hold its slot.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// How long a backend may be silent within an answer.
pub(crate) struct Patience<'a> {
    /// Between two pieces.
    pub(crate) idle: Duration,
    /// When all of the answer has to be there.
    pub(crate) until: Option<Instant>,
    /// Whether the membership has lost the backend: whoever is silent and gone will say no more.
    pub(crate) is_gone: &'a (dyn Fn() -> bool + Sync),
}

impl Patience<'_> {
    /// The next piece after one at `since`. Cancelling loses nothing.
    async fn next(
        &self,
        response: &mut Response,
        since: Instant,
    ) -> Result<Option<Bytes>, UpstreamError> {
        let silent = since + self.idle;
        let deadline = self.until.map_or(silent, |until| until.min(silent));
        if self.until.is_some_and(|until| until <= Instant::now()) {
            // However much more it has to say.
            return Err(UpstreamError::IdleTimeout);
        }
        loop {
            let look = Instant::now() + PULSE;
            match response.next(deadline.min(look)).await {
                Err(UpstreamError::IdleTimeout) if look < deadline => {
                    if (self.is_gone)() {
                        return Err(UpstreamError::GoneWithin);
                    }
                }
                came => return came,
            }
        }
    }
}

/// Passes on a body that is not an event stream, adding its bytes to `sent`. The backend may be
/// silent as `patience` has it. `came` is shown each piece.
///
/// If the backend is lost, closing the connection is the only way to say so.
pub(crate) async fn body(
    client: &mut Client,
    response: &mut Response,
    patience: &Patience<'_>,
    sent: &mut u64,
    mut came: impl FnMut(&[u8]),
) -> Result<(), Interruption> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = patience.next(response, Instant::now()) => piece,
            () = client.gone() => return Err(Interruption::ClientGone),
        };
        let Some(piece) = piece.map_err(|error| Interruption::Truncated(error.into()))? else {
            return Ok(());
        };
        *sent += piece.len() as u64;
        came(&piece);
        client.write(piece).await?;
    }
}

/// Passes on an event stream, each event as soon as it is whole, adding its bytes to `sent`. The
/// backend may be silent as `patience` has it. `came` is shown the events that each piece completed, and told its number,
/// from 1 on.
///
/// If the backend is lost, an event says so and the stream ends without `[DONE]`.
///
/// A client's FIN may mean that it has gone, or only that it has nothing more to say. Comments find
/// out: what has gone answers them with a reset, and then the next write fails.
pub(crate) async fn events(
    client: &mut Client,
    response: &mut Response,
    patience: &Patience<'_>,
    sent: &mut u64,
    mut came: impl FnMut(u32, &[u8]),
) -> Result<(), Interruption> {
    let mut pieces = 0u32;
    let mut splitter = EventSplitter::default();
    let mut probe = interval(PROBE_INTERVAL);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since = Instant::now();
    loop {
        let half_closed = client.may_still_read();
        let piece = tokio::select! {
            biased;
            piece = patience.next(response, since) => piece,
            () = client.gone(), if !half_closed => {
                if client.may_still_read() { continue } else { return Err(Interruption::ClientGone) }
            }
            _ = probe.tick(), if half_closed => {
                client.write(Bytes::from_static(COMMENT)).await?;
                continue;
            }
        };
        since = Instant::now();
        let ended = matches!(piece, Ok(None));
        let is_piece = matches!(piece, Ok(Some(_)));
        let events = piece.and_then(|piece| match piece {
            Some(piece) => Ok(splitter.push(piece)?),
            None => Ok(splitter.finish()),
        });
        match events {
            Ok(events) => {
                if is_piece {
                    pieces = pieces.saturating_add(1);
                    came(pieces, &events);
                }
                *sent += events.len() as u64;
                client.write(events).await?;
            }
            Err(error) => return Err(lost(client, error.into()).await),
        }
        if ended {
            return Ok(());
        }
    }
}

/// Ends a stream with an event that tells why.
async fn lost(client: &mut Client, error: RequestError) -> Interruption {
    match client.write(error.event()).await {
        Ok(()) => Interruption::Told(error),
        Err(gone) => gone.into(),
    }
}
