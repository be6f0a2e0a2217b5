//! Layered configuration: defaults, files, `INFERNO_*` variables, flags; nothing ignored in silence.
//!
//! One table, [`keys::KEYS`], lists every key with its kind and meaning. The layers
//! (`file.rs`, `env.rs`, `layers.rs`) read values as it says, each with the place it came from;
//! figment lays them over the defaults and gives [`Config`]; `rules.rs` says what does not fit
//! together. The reference and the sample file are made from the same table.

mod device;
mod env;
mod file;
mod injected;
pub mod keys;
pub mod kind;
mod layers;
mod nearest;
mod problem;
mod reference;
mod rules;
mod sample;
mod schema;
mod secret;
mod size;
mod transform;

pub use device::Device;
pub use layers::{ConfigArgs, Setting, keys_of};
pub use nearest::hint as nearest_hint;
pub use problem::{ConfigError, Problem};
pub use reference::reference;
pub use sample::sample;
pub use schema::{
    BackendConfig, Config, HealthConfig, KeyLimits, LogConfig, LogFormat, NodeConfig, Notices,
    OperationsConfig, OtlpConfig, ProxyConfig, ProxyCors, ProxyHeaders, ProxyLimits, ProxyRetry,
    ProxyTimeouts, ProxyTls, RegistrationConfig, RoutingConfig, RoutingPolicy, TelemetryConfig,
    TlsConfig,
};
pub(crate) use secret::read_file as read_secret_file;
pub use secret::{HIDDEN, Secret};
pub use size::ByteSize;
pub use transform::{Alias, HeaderField, Rewrite};

#[cfg(test)]
mod tests;
