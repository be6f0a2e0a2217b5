//! Who sends a request: the API key in its `authorization` header, before anything else is looked at.

use crate::{
    error::RequestError,
    keys::{Holder, Keys, Refusal, Timestamp},
    transform::Defaults,
};
use http::{HeaderMap, HeaderValue, header};
use inferno_shared::config::KeyLimits;
use std::sync::Arc;

/// The scheme of RFC 6750, and the space after it.
const BEARER: &[u8] = b"bearer ";

/// Who sent a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Option<Arc<Holder>>);

impl Caller {
    /// Whose key the header has. Without `keys` anyone may come, and nobody is known.
    pub(crate) fn of(headers: &HeaderMap, keys: Option<&Keys>) -> Result<Self, RequestError> {
        let Some(keys) = keys else { return Ok(Self::default()) };
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().ok_or(RequestError::MissingKey)?;
        // Of two, each of us could take another.
        let only = if values.next().is_none() { bearer(value) } else { None };
        let key = only.ok_or(RequestError::Key(Refusal::Unknown))?;
        Ok(Self(Some(keys.check(key, Timestamp::now()).map_err(RequestError::Key)?)))
    }

    /// The id of the key, if there is one.
    pub(crate) fn key_id(&self) -> Option<Arc<str>> {
        self.0.as_ref().map(|holder| Arc::clone(&holder.id))
    }

    /// The priority of its requests; 0 for whoever has no key.
    pub(crate) fn priority(&self) -> i32 {
        self.0.as_ref().map_or(0, |holder| holder.priority())
    }

    /// The limits of its own; none for whoever has no key.
    pub(crate) fn limits(&self) -> KeyLimits {
        self.0.as_ref().map_or_else(KeyLimits::default, |holder| holder.limits())
    }

    /// Whether routing is explained to it; `otherwise` for whoever has no key.
    pub(crate) fn may_have_explained(&self, otherwise: bool) -> bool {
        self.0.as_ref().map_or(otherwise, |holder| holder.may_have_explained())
    }

    /// The fields that its requests get where they do not have them, if there are any.
    pub(crate) fn defaults(&self) -> Option<&Defaults> {
        self.0.as_ref().map(|holder| holder.defaults()).filter(|defaults| !defaults.is_empty())
    }

    /// Whether `model` is there for this caller.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|holder| holder.may_use(model))
    }
}

/// The token of `Bearer TOKEN`; the scheme is in any case (RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bearer_token_is_found() {
        let token = |value: &'static str| bearer(&HeaderValue::from_static(value)).map(Vec::from);
        for value in ["Bearer k", "bearer k", "BEARER  k", "Bearer k "] {
            assert_eq!(token(value).as_deref(), Some(&b"k"[..]), "{value}");
        }
        for value in ["", "k", "Basic azpr", "Bearer", "Bearerk", "Bearer\tk"] {
            assert_eq!(token(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_is_too_odd(bytes: Vec<u8>) {
            let _ = HeaderValue::from_bytes(&bytes).map(|value| bearer(&value).map(Vec::from));
        }
    }
}
