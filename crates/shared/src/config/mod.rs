//! Layered configuration: defaults, files, `INFERNO_*` variables, flags; nothing ignored in silence.
//!
//! One table, [`keys::KEYS`], lists every key with its kind and meaning. The environment layer, the
//! nearest-name hints and the reference are made from it; a test holds it against [`Config`].

pub mod env;
pub mod keys;
mod layers;
mod nearest;
mod ratio;
mod reference;
mod schema;
mod secret;
mod size;

pub use layers::{ConfigArgs, ConfigError, Setting};
pub use ratio::Ratio;
pub use reference::reference;
pub use schema::{
    BackendConfig, Config, HealthConfig, LogConfig, LogFormat, NodeConfig, Notices,
    OperationsConfig, OtlpConfig, ProxyConfig, ProxyTimeouts, RegistrationConfig, RoutingConfig,
    RoutingPolicy, TelemetryConfig,
};
pub use secret::Secret;
pub use size::ByteSize;

#[cfg(test)]
mod tests;
