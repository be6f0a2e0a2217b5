//! Why there is no answer.

use http::StatusCode;

/// Why there is no answer, for people; the variants are what `bench` counts apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Not an address we can use.
    #[error("{url} is not an address like http://127.0.0.1:8080 or https://host")]
    BadUrl { url: String },
    /// No header can carry this key.
    #[error("the API key is not a line of visible ASCII characters")]
    BadKey,
    /// Nobody to vouch for an HTTPS server.
    #[error(
        "no certificate authority is known, so no HTTPS server can be trusted; install the package ca-certificates or set SSL_CERT_FILE{reason}"
    )]
    NoCertificates { reason: String },
    /// Nobody there.
    #[error("nothing answers at {url} ({reason}): is it running? `inferno up` starts it")]
    Absent { url: String, reason: String },
    /// No connection for another reason: no such host, no way there, no TLS.
    #[error("cannot connect to {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The server refused, and said why.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    /// An error inside a stream that had begun well.
    #[error("{message}")]
    ErrorEvent { message: String },
    /// The connection ended too soon.
    #[error("the answer broke off: {reason}")]
    Broken { reason: String },
    /// The stream ended in good order, but not with `[DONE]`: nobody can say whether it is whole.
    #[error("the answer broke off: the server ended it without [DONE]")]
    NoDone,
    /// Not what the API says an answer looks like.
    #[error("the answer is not one of an OpenAI-compatible API: {reason}")]
    Malformed { reason: String },
    /// More than we are ready to hold.
    #[error("the server sent {what} of more than {limit_bytes} bytes")]
    TooLarge { what: &'static str, limit_bytes: usize },
}
