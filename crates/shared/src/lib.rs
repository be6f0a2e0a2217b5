//! What Inferno's proxy and backend have in common.
//!
//! Configuration, the operations server, node vitals, registration as a lease, membership and
//! telemetry. The rules (membership, validation, negotiation) are pure; the async edges around
//! them are thin. There is no traffic and no inference in this crate.
//!
//! The operations server is the same component in every process:
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let metrics = inferno_shared::MetricsCollector::new();
//! use inferno_shared::OperationsServer;
//!
//! // Create operations server
//! let operations_server = OperationsServer::new(
//!     metrics,
//!     "127.0.0.1:6100".parse().unwrap()
//! );
//!
//! // Start server (non-blocking)
//! operations_server.start().await?;
//! # Ok(()) }
//! ```

pub mod config;
pub mod identity;
pub mod listener;
pub mod membership;
pub mod metrics;
pub mod operations_client;
pub mod operations_server;
pub mod registration;
pub mod resources;
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod vitals;

/// The code in the migration notes runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/migration.md")]
struct MigrationNotes;

pub use config::Config;
pub use metrics::MetricsCollector;
pub use operations_server::{MetricsServer, OperationsServer};
pub use vitals::NodeVitals;
