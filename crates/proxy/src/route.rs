//! What a request asks for, told from its method and path, pure.

use crate::error::RequestError;
use http::Method;

/// An endpoint. Its [`Self::label`] is the only thing of a path that reaches logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/rerank`
    Rerank,
    /// `/v1/tokenize`, and `/tokenize`, where vLLM has it.
    Tokenize,
    /// `/v1/detokenize`, and `/detokenize`.
    Detokenize,
    /// Any other path under `/v1`: for the model's backend to judge.
    Passthrough,
    /// `/v1/models`, and `/v1/models/{id}`.
    Models,
    /// Anything else.
    Unknown,
}

/// The methods that pass where something passes without a model. `OPTIONS` is a browser's question to the proxy,
/// `CONNECT` and `TRACE` are nobody's.
static PASSED: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

impl Route {
    /// Which endpoint `path` is.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/tokenize" => return Self::Tokenize,
            "/detokenize" => return Self::Detokenize,
            _ => {}
        }
        match path.strip_prefix("/v1/") {
            Some("chat/completions") => Self::Chat,
            Some("completions") => Self::Completions,
            Some("embeddings") => Self::Embeddings,
            Some("rerank") => Self::Rerank,
            Some("tokenize") => Self::Tokenize,
            Some("detokenize") => Self::Detokenize,
            Some("models") => Self::Models,
            Some(rest) if rest.starts_with("models/") => Self::Models,
            Some(rest) if !rest.is_empty() => Self::Passthrough,
            _ => Self::Unknown,
        }
    }

    /// Whether what it computes begins with a prompt, so that backends may have the beginning cached.
    pub(crate) fn has_prompt(self) -> bool {
        matches!(self, Self::Chat | Self::Completions | Self::Passthrough)
    }

    /// Whether a backend computes for it, and only so much at a time. Of what passes through, whatever is no `POST`
    /// looks or tidies up.
    pub(crate) fn takes_a_place(self, method: &Method) -> bool {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings | Self::Rerank => true,
            Self::Passthrough => *method == Method::POST,
            _ => false,
        }
    }

    /// Whether its answer is text that was generated.
    pub(crate) fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Whether a key's defaults are for it: they are parameters of completions, which others may not understand.
    pub(crate) fn has_defaults(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Which piece of a stream has the first token. A chat's first event tells the role alone, and may come before
    /// anything is computed.
    pub(crate) fn first_token_piece(self) -> u32 {
        if self == Self::Chat { 2 } else { 1 }
    }

    /// The methods that it has; `None`: there is no such endpoint. `passes_all`: what names no model has backends to go
    /// to.
    pub(crate) fn methods(self, passes_all: bool) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Models => Some("GET, HEAD"),
            Self::Passthrough if passes_all => Some("GET, HEAD, POST, PUT, PATCH, DELETE"),
            _ => Some("POST"),
        }
    }

    /// Refuses a method that the endpoint does not have.
    pub(crate) fn check(self, method: &Method, passes_all: bool) -> Result<(), RequestError> {
        let allow = self.methods(passes_all).ok_or(RequestError::UnknownPath)?;
        let allowed = match self {
            Self::Models => matches!(*method, Method::GET | Method::HEAD),
            Self::Passthrough if passes_all => PASSED.contains(method),
            // Without a body there is no model, and without a model nobody to ask.
            Self::Passthrough if *method == Method::GET => return Err(RequestError::UnknownPath),
            _ => *method == Method::POST,
        };
        if allowed { Ok(()) } else { Err(RequestError::MethodNotAllowed { allow }) }
    }

    /// Asking twice is asking once, but for the time it takes: generation changes nothing on a
    /// backend. What an endpoint that we do not know does, nobody told us.
    pub(crate) fn is_replayable(self) -> bool {
        !matches!(self, Self::Passthrough | Self::Unknown)
    }

    /// The endpoint's path, for spans; a path that we do not know is the client's own text.
    pub(crate) fn path(self) -> Option<&'static str> {
        match self {
            Self::Chat => Some("/v1/chat/completions"),
            Self::Completions => Some("/v1/completions"),
            Self::Embeddings => Some("/v1/embeddings"),
            Self::Rerank => Some("/v1/rerank"),
            Self::Tokenize => Some("/v1/tokenize"),
            Self::Detokenize => Some("/v1/detokenize"),
            Self::Models => Some("/v1/models"),
            Self::Passthrough | Self::Unknown => None,
        }
    }

    /// What OpenTelemetry's conventions for generative AI call it.
    pub(crate) fn operation(self) -> Option<&'static str> {
        match self {
            Self::Chat => Some("chat"),
            Self::Completions => Some("text_completion"),
            Self::Embeddings => Some("embeddings"),
            _ => None,
        }
    }

    /// Every value of the metrics' `route` label.
    pub(crate) const LABELS: [&'static str; 9] = [
        Self::Chat.label(),
        Self::Completions.label(),
        Self::Embeddings.label(),
        Self::Rerank.label(),
        Self::Tokenize.label(),
        Self::Detokenize.label(),
        Self::Passthrough.label(),
        Self::Models.label(),
        Self::Unknown.label(),
    ];

    /// The value of the metrics' `route` label, one of [`Route::LABELS`], and of the log's field.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::Passthrough => "passthrough",
            Self::Models => "models",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints() {
        for (path, route) in [
            ("/v1/chat/completions", Route::Chat),
            ("/v1/chat/completions/", Route::Passthrough),
            ("/v1/models", Route::Models),
            ("/v1/models/org/name", Route::Models),
            ("/v1/audio/speech", Route::Passthrough),
            ("/tokenize", Route::Tokenize),
            ("/detokenize", Route::Detokenize),
            ("/v1/detokenize", Route::Detokenize),
            ("/v1/", Route::Unknown),
            ("/v1", Route::Unknown),
            ("/metrics", Route::Unknown),
            ("/registration", Route::Unknown),
            ("*", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
            assert_eq!(Route::of(route.path().unwrap_or("/x")).path(), route.path(), "{path}");
        }
    }

    #[test]
    fn what_is_computed_takes_a_place() {
        assert!(Route::Chat.takes_a_place(&Method::POST));
        assert!(Route::Passthrough.takes_a_place(&Method::POST));
        assert!(!Route::Passthrough.takes_a_place(&Method::GET));
        assert!(!Route::Tokenize.takes_a_place(&Method::POST));
    }

    #[test]
    fn methods_are_checked() {
        assert!(Route::Chat.check(&Method::POST, true).is_ok());
        assert!(matches!(
            Route::Unknown.check(&Method::POST, true),
            Err(RequestError::UnknownPath)
        ));
        assert!(matches!(
            Route::Chat.check(&Method::GET, true),
            Err(RequestError::MethodNotAllowed { allow: "POST" })
        ));
        assert!(Route::Models.check(&Method::HEAD, true).is_ok());
        assert!(Route::Models.check(&Method::POST, true).is_err());
        let pass = |method, passes_all| Route::Passthrough.check(&method, passes_all);
        assert!(matches!(pass(Method::GET, false), Err(RequestError::UnknownPath)));
        assert!(pass(Method::DELETE, false).is_err() && pass(Method::POST, false).is_ok());
        assert!(PASSED.iter().all(|method| pass(method.clone(), true).is_ok()));
        for method in [Method::OPTIONS, Method::TRACE, Method::CONNECT] {
            let allow = PASSED.each_ref().map(Method::as_str).join(", ");
            let refused = pass(method, true).expect_err("refused");
            assert_eq!(refused.allow(), Some(&*allow));
        }
    }
}
