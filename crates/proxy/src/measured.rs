//! For `benches/parsing.rs`, which sees only what is public: the pure readers of what passes through.

use crate::{envelope::Envelope, stream::EventSplitter};
use bytes::Bytes;

/// Reads a request's body as the proxy does. The model's name, and how long what is routed by is; `None`: it is
/// malformed, or names none.
#[must_use]
pub fn envelope(body: &[u8]) -> Option<(String, usize)> {
    let envelope = Envelope::parse(body, |_| {}).ok()?;
    let routed_by = envelope.tools.map_or(0, str::len) + envelope.prompt.map_or(0, str::len);
    Some((envelope.model?.name.into_owned(), routed_by))
}

/// One event stream on its way through.
#[derive(Debug, Default)]
pub struct Events(EventSplitter);

impl Events {
    /// The whole events that `piece` completes, bytes; `None`: one is too long.
    pub fn push(&mut self, piece: Bytes) -> Option<usize> {
        self.0.push(piece).ok().map(|events| events.len())
    }
}
