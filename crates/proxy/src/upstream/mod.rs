//! The wire to a backend: an HTTP/1.1 client of our own.
//!
//! [`head`] and [`body`] are pure: bytes in, message parts out. [`connection`] puts them on a socket
//! and [`pool`] keeps sockets that a finished exchange left usable.
//!
//! It is our own because a gateway for generation has to see every piece of an answer as it
//! arrives, to know exactly whether a byte of it was seen (that decides a retry), and to drop the
//! socket the moment the client leaves. It speaks HTTP/1.1 over plain TCP and nothing else: no TLS,
//! no HTTP/2, no request streaming (a request is in memory whole), no trailers.

mod body;
mod connection;
mod head;
mod pool;

pub(crate) use connection::{Connection, NodeFields, OutgoingRequest, Response};
pub(crate) use head::{CodecError, ResponseHead};
pub(crate) use pool::{Incarnation, Pool};

use std::{io, time::Duration};

/// How often it is asked, while a backend is silent, whether the membership still has it.
pub(crate) const PULSE: Duration = Duration::from_secs(1);

/// What went wrong between this proxy and a backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Nobody listens at the backend's address.
    #[error("connection refused")]
    ConnectRefused,
    /// No connection within `proxy.timeouts.connect_ms`.
    #[error("connecting timed out")]
    ConnectTimeout,
    /// The system could not connect.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection ended before the first byte of an answer.
    #[error("connection closed before an answer: {0}")]
    Unanswered(#[source] io::Error),
    /// The connection ended within an answer.
    #[error("connection closed within the answer: {0}")]
    Lost(#[source] io::Error),
    /// No answer, and the membership has lost the backend meanwhile: it hangs, or its machine is gone.
    #[error("no answer, and the backend is gone")]
    Gone,
    /// The answer stopped, and the membership has lost the backend meanwhile.
    #[error("the answer stopped, and the backend is gone")]
    GoneWithin,
    /// No answer within `proxy.timeouts.first_byte_ms`.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// The answer stopped for `proxy.timeouts.idle_ms`.
    #[error("the answer stalled")]
    IdleTimeout,
    /// The answer is not HTTP/1.1 as we accept it.
    #[error("invalid answer: {0}")]
    Protocol(#[from] CodecError),
}

/// What another attempt would risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The backend never had the request.
    Free,
    /// The backend may have begun on the request, and answered nothing.
    Replay,
    /// The backend has it, or has answered: never.
    No,
}

impl UpstreamError {
    /// Whether the same request may go elsewhere.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::ConnectRefused | Self::ConnectTimeout | Self::Connect(_) => Retry::Free,
            Self::Unanswered(_) | Self::Gone => Retry::Replay,
            Self::Lost(_)
            | Self::GoneWithin
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::Protocol(_) => Retry::No,
        }
    }

    /// Every value of the metric's `kind` label.
    pub(crate) const KINDS: [&'static str; 10] = [
        "connect_refused",
        "connect_timeout",
        "connect",
        "unanswered",
        "lost",
        "gone",
        "gone_within",
        "first_byte_timeout",
        "idle_timeout",
        "protocol",
    ];

    /// The value of the metric's `kind` label, one of [`UpstreamError::KINDS`].
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect(_) => "connect",
            Self::Unanswered(_) => "unanswered",
            Self::Lost(_) => "lost",
            Self::Gone => "gone",
            Self::GoneWithin => "gone_within",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Protocol(_) => "protocol",
        }
    }

    /// The code that a client sees.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::ConnectRefused | Self::ConnectTimeout | Self::Connect(_) => "backend_unreachable",
            Self::Unanswered(_) | Self::Lost(_) | Self::Gone | Self::GoneWithin => "backend_lost",
            Self::FirstByteTimeout | Self::IdleTimeout => "backend_timeout",
            Self::Protocol(_) => "backend_protocol_error",
        }
    }

    /// The sentence that a client sees.
    pub(crate) fn message(&self) -> &'static str {
        match self.retry() {
            Retry::Free => "The backend cannot be reached; try again shortly.",
            Retry::Replay => "The backend was lost before it answered.",
            Retry::No => match self {
                Self::Lost(_) | Self::GoneWithin => {
                    "The backend was lost before the answer was complete."
                }
                Self::Protocol(_) => "The backend's answer is not valid.",
                _ => "The backend did not answer in time.",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        let io = || io::Error::from(io::ErrorKind::Other);
        let errors = [
            UpstreamError::ConnectRefused,
            UpstreamError::ConnectTimeout,
            UpstreamError::Connect(io()),
            UpstreamError::Unanswered(io()),
            UpstreamError::Lost(io()),
            UpstreamError::Gone,
            UpstreamError::GoneWithin,
            UpstreamError::FirstByteTimeout,
            UpstreamError::IdleTimeout,
            UpstreamError::Protocol(CodecError::Chunk),
        ];
        assert_eq!(errors.each_ref().map(UpstreamError::kind), UpstreamError::KINDS);
    }
}
