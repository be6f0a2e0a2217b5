//! What a client is told of its limits: `x-ratelimit-*` as OpenAI has them, `retry-after` to the second and
//! `retry-after-ms`, which OpenAI's clients read first.

use super::window::Wait;
use http::{HeaderName, HeaderValue};
use std::time::Duration;

/// A tenant is over one of its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} over the limit of {most}")]
pub(crate) struct Limited {
    /// Which.
    pub(crate) limit: Limit,
    /// What it allows.
    pub(crate) most: u64,
    /// Until there is room.
    pub(crate) wait: Wait,
    /// What is left of the others.
    pub(crate) remaining: Remaining,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Limit {
    /// Requests at once.
    #[error("requests at once")]
    Concurrency,
    /// Requests within a minute.
    #[error("requests a minute")]
    Requests,
    /// Tokens within a minute, of which the request needs so many.
    #[error("{needed} tokens a minute")]
    Tokens {
        /// Reserved for the request.
        needed: u64,
    },
}

impl Limit {
    /// Every value of the metrics' `reason` label that is a tenant's own limit.
    pub(crate) const LABELS: [&'static str; 3] = ["concurrency", "requests", "tokens"];

    /// The value of the metrics' `reason` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Requests => "requests",
            Self::Tokens { .. } => "tokens",
        }
    }
}

impl Limited {
    /// The stable name that clients branch on.
    pub(crate) fn code(&self) -> &'static str {
        match self.limit {
            Limit::Concurrency => "concurrency_limit_exceeded",
            Limit::Requests | Limit::Tokens { .. } => "rate_limit_exceeded",
        }
    }

    /// The sentence for the client.
    pub(crate) fn message(&self) -> String {
        let most = self.most;
        match (self.limit, self.wait) {
            (Limit::Concurrency, _) => format!(
                "You have {most} requests in progress, as many as you may; wait for one to end."
            ),
            (Limit::Requests, _) => {
                format!("You have sent {most} requests within a minute, as many as you may.")
            }
            (Limit::Tokens { needed }, Wait::For(_)) => format!(
                "The request may take {needed} tokens, and fewer are left of your {most} a minute."
            ),
            (Limit::Tokens { needed }, Wait::Forever) => format!(
                "The request may take {needed} tokens, and you have {most} a minute: shorten the prompt or \
                 lower max_tokens."
            ),
        }
    }

    /// What OpenAI calls the error's type.
    pub(crate) fn kind(&self) -> &'static str {
        match self.limit {
            Limit::Tokens { .. } => "tokens",
            Limit::Concurrency | Limit::Requests => "requests",
        }
    }

    /// How long to wait, if that helps.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.wait {
            Wait::For(wait) => Some(wait),
            Wait::Forever => None,
        }
    }
}

/// What a tenant has left: the limit, what is left of it, and until all of it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub(crate) requests: Option<(u64, u64, Duration)>,
    pub(crate) tokens: Option<(u64, u64, Duration)>,
}

impl Remaining {
    /// As header fields; none for what is not limited.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let requests = self.requests.map(|left| fields(REQUESTS, left));
        let tokens = self.tokens.map(|left| fields(TOKENS, left));
        requests.into_iter().chain(tokens).flatten()
    }
}

/// Limit, remaining, reset.
type Names = [HeaderName; 3];

const REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

fn fields(names: Names, left: (u64, u64, Duration)) -> [(HeaderName, HeaderValue); 3] {
    let (limit, remaining, reset) = left;
    let [limit_name, remaining_name, reset_name] = names;
    let seconds = format!("{:.3}s", reset.as_secs_f64());
    // Digits, a point and an `s` are a valid value.
    let reset = HeaderValue::try_from(seconds).unwrap_or(HeaderValue::from_static("0s"));
    [(limit_name, limit.into()), (remaining_name, remaining.into()), (reset_name, reset)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_openais_words() {
        let requests = Some((60, 59, Duration::from_millis(1_500)));
        let remaining = Remaining { requests, tokens: Some((1_000, 0, Duration::ZERO)) };
        let told: Vec<_> = remaining
            .headers()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        assert_eq!(
            told,
            [
                "x-ratelimit-limit-requests: 60",
                "x-ratelimit-remaining-requests: 59",
                "x-ratelimit-reset-requests: 1.500s",
                "x-ratelimit-limit-tokens: 1000",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-tokens: 0.000s",
            ]
        );
        assert_eq!(Remaining::default().headers().count(), 0);
    }
}
