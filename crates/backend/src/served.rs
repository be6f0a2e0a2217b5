//! The model that a backend serves: one that writes text, or one that makes embeddings.

use crate::openai::errors::ApiError;
use inferno_engine::{
    Embedder, Engine, EngineOptions, EngineStats, Fingerprint, LoadError, ModelInfo, ModelSource,
    store::ResolvedModel,
};
use std::time::Duration;

/// A loaded model with its thread; cheap to clone.
#[derive(Clone)]
pub enum Served {
    /// It continues text.
    Generates(Engine),
    /// It turns texts into vectors.
    Embeds(Embedder),
}

impl Served {
    /// Loads whatever `model` is. Blocks.
    ///
    /// # Errors
    /// As [`Engine::load`] and [`Embedder::load`].
    pub fn load(model: ResolvedModel, options: EngineOptions) -> Result<Self, LoadError> {
        let embeds = model.makes_embeddings();
        let source = ModelSource { id: model.id, path: model.path, sha256: model.sha256 };
        match embeds {
            true => Embedder::load(source, options).map(Self::Embeds),
            false => Engine::load(source, options).map(Self::Generates),
        }
    }

    /// What there is to know of the model.
    pub fn info(&self) -> &ModelInfo {
        match self {
            Self::Generates(engine) => engine.info(),
            Self::Embeds(embedder) => embedder.info(),
        }
    }

    /// Counters and gauges.
    pub fn stats(&self) -> &EngineStats {
        match self {
            Self::Generates(engine) => engine.stats(),
            Self::Embeds(embedder) => embedder.stats(),
        }
    }

    /// What another backend must have equal to answer alike; `None` until the model's hash is known.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Generates(engine) => engine.fingerprint(),
            Self::Embeds(embedder) => embedder.fingerprint(),
        }
    }

    /// What it tells proxies it can do, beside what every node can.
    pub fn capabilities(&self) -> &'static [&'static str] {
        match self {
            Self::Generates(_) => &["chat", "completions"],
            Self::Embeds(_) => &["embeddings"],
        }
    }

    /// Whether work waits and no step was made for `after`.
    pub fn is_stalled(&self, after: Duration) -> bool {
        match self {
            Self::Generates(engine) => engine.is_stalled(after),
            Self::Embeds(embedder) => embedder.is_stalled(after),
        }
    }

    /// Waits until it fails for everyone, and says of what. Never returns otherwise.
    pub async fn failed(&self) -> String {
        match self {
            Self::Generates(engine) => engine.failed().await,
            Self::Embeds(embedder) => embedder.failed().await,
        }
    }

    /// Ends the thread and waits for it.
    pub fn shutdown(&self) {
        match self {
            Self::Generates(engine) => engine.shutdown(),
            Self::Embeds(embedder) => embedder.shutdown(),
        }
    }

    /// The engine, for an endpoint that writes text.
    ///
    /// # Errors
    /// 400 when the model makes embeddings.
    pub fn engine(&self) -> Result<&Engine, ApiError> {
        match self {
            Self::Generates(engine) => Ok(engine),
            Self::Embeds(_) => {
                Err(self.of_another_kind("makes embeddings: ask it at /v1/embeddings"))
            }
        }
    }

    /// The embedder, for an endpoint that wants vectors.
    ///
    /// # Errors
    /// 400 when the model writes text.
    pub fn embedder(&self) -> Result<&Embedder, ApiError> {
        match self {
            Self::Embeds(embedder) => Ok(embedder),
            Self::Generates(_) => Err(self.of_another_kind("writes text and makes no embeddings")),
        }
    }

    fn of_another_kind(&self, what: &str) -> ApiError {
        let message = format!("the model `{}` {what}", self.info().id);
        ApiError::invalid("model_not_supported", "model", message)
    }
}
