//! Why a registration is refused, and with which status.

use super::wire::{BODY_BYTES_MAX, Refused, Status};
use crate::membership::Generation;

/// Why a registration is refused, and with which status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: not JSON, or not of this form.
    #[error("{0}")]
    Malformed(String),
    /// 413: the body is larger than [`BODY_BYTES_MAX`].
    #[error("the body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// 408: the body did not come in time.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(std::time::Duration),
    /// 401: the secret is missing or wrong.
    #[error("{0}")]
    Unauthorized(String),
    /// 403: that address may not register here.
    #[error("{0}")]
    Forbidden(String),
    /// 404: no such node.
    #[error("no node `{0}` of that generation is registered")]
    UnknownNode(String),
    /// 409: someone else holds the id, or this node takes no registrations.
    #[error("{message}")]
    Conflict {
        /// For the operator.
        message: String,
        /// The generation to go beyond.
        generation: Option<Generation>,
        /// Proxies to use instead.
        proxies: Vec<String>,
        /// The proxy that refuses.
        instance: Option<String>,
    },
    /// 409: the same process holds a lease from another of its addresses. No harm is done.
    #[error("{message}")]
    AlreadyHere {
        /// For the operator.
        message: String,
        /// The proxy that refuses.
        instance: String,
    },
    /// 503: no room.
    #[error("{0}")]
    Full(String),
}

impl Refusal {
    /// The HTTP status it is answered with.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Malformed(_) => http::StatusCode::BAD_REQUEST,
            Self::TooLarge => http::StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => http::StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized(_) => http::StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => http::StatusCode::FORBIDDEN,
            Self::UnknownNode(_) => http::StatusCode::NOT_FOUND,
            Self::Conflict { .. } | Self::AlreadyHere { .. } => http::StatusCode::CONFLICT,
            Self::Full(_) => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// For the log. What was malformed is the caller's own text, and may be the secret or the token in
    /// the wrong place: the caller is told, the log is not.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Malformed(_) => "the registration is malformed; its sender was told how".into(),
            _ => self.to_string(),
        }
    }

    /// The body it is answered with.
    pub fn body(&self) -> Refused {
        let message = self.to_string();
        let mut refused = Refused { status: Status::Error, message, ..Refused::default() };
        match self {
            Self::Conflict { generation, proxies, instance, .. } => {
                refused.generation = *generation;
                refused.proxies.clone_from(proxies);
                refused.instance.clone_from(instance);
            }
            Self::AlreadyHere { instance, .. } => refused.instance = Some(instance.clone()),
            _ => {}
        }
        refused
    }
}
