//! What the proxy changes of requests and answers: names of models, paths, header fields, and fields that a key
//! gives its requests. docs/transformation.md is the operator's page.
//!
//! All of it is decided by the configuration alone, checked at the start, and pure. A body changes only where a model
//! is called by an alias or a key has defaults, and then in those bytes alone.

mod aliases;
pub(crate) mod body;
mod defaults;
mod fields;
mod paths;

pub(crate) use aliases::Aliases;
pub use defaults::Defaults;
pub(crate) use fields::FieldRules;
pub(crate) use paths::Paths;

use inferno_shared::config::ProxyConfig;

/// Most items in one of the lists.
const ITEMS_MAX: usize = 256;

/// What the configuration asks for, and what cannot be done: the key, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct TransformError {
    key: &'static str,
    why: String,
}

/// The changes that the configuration asks for.
#[derive(Debug, Default)]
pub(crate) struct Transform {
    /// Further names of models.
    pub(crate) aliases: Aliases,
    /// Of requests.
    pub(crate) paths: Paths,
    /// Of requests to backends.
    pub(crate) request: FieldRules,
    /// Of answers to clients.
    pub(crate) response: FieldRules,
}

impl Transform {
    /// Those of `config`.
    ///
    /// # Errors
    /// If they contradict each other, or touch what is not theirs.
    pub(crate) fn new(config: &ProxyConfig) -> Result<Self, TransformError> {
        Ok(Self {
            aliases: Aliases::new(&config.aliases)?,
            paths: Paths::new(&config.rewrites)?,
            request: FieldRules::of_requests(&config.headers)?,
            response: FieldRules::of_responses(&config.headers)?,
        })
    }
}

/// An error unless `items` are few enough.
fn check_count<T>(key: &'static str, items: &[T]) -> Result<(), TransformError> {
    if items.len() <= ITEMS_MAX {
        return Ok(());
    }
    Err(TransformError { key, why: format!("has more than {ITEMS_MAX} items") })
}
