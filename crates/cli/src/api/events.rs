//! A streamed answer, event by event.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::sse::Decoder;
use super::{ApiError, Chunk};

/// The event that ends a stream.
const DONE: &str = "[DONE]";
/// How long the end of a body may come after its last event.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The events of one answer as they come. Dropping it before the last closes the connection, and with
/// that the generation.
pub(crate) struct Events {
    body: Incoming,
    decoder: Decoder,
}

impl Events {
    pub(super) fn of(body: Incoming) -> Self {
        Self { body, decoder: Decoder::default() }
    }

    /// The next event; `None` after `[DONE]`, without which no stream is whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ApiError> {
        loop {
            if let Some(event) = self.decoder.next_event()? {
                return if event == DONE {
                    Ok(None)
                } else {
                    Chunk::parse(event.as_bytes()).map(Some)
                };
            }
            match self.body.frame().await {
                None => return Err(ApiError::NoDone),
                Some(frame) => {
                    let frame =
                        frame.map_err(|error| ApiError::Broken { reason: error.to_string() })?;
                    self.decoder.push(&frame.into_data().unwrap_or_default());
                }
            }
        }
    }

    /// To be called after the last event: takes in the body's end, so that the connection can be used
    /// again. A server that goes on sending, or never ends, loses it.
    pub(crate) async fn finish(mut self) {
        let end = tokio::time::timeout(END_TIMEOUT, self.body.frame()).await;
        drop(end);
    }
}
