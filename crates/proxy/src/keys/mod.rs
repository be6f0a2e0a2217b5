//! API keys: who may use the traffic port, and for which models.
//!
//! A key is 256 random bits in the form `inf_<id>_<secret>` (`form.rs`), shown once. The keys file
//! (`file.rs`, TOML that people may edit) has its HMAC-SHA-256 under a pepper that lives in a file of
//! its own (`pepper.rs`): who reads the keys file alone can neither use nor guess a key. A proxy keeps
//! the file as a map by id (`keyring.rs`), `inferno key` changes it (`edit.rs`).
//!
//! Keys are *not* users, and nothing of them leaves the proxy but the id, in its log and spans.

mod edit;
mod error;
mod file;
mod form;
mod keyring;
mod pepper;
mod private;
mod time;

pub use edit::{Created, NewKey, create, revoke};
pub use error::KeysError;
pub use file::{KeyEntry, KeyState, KeysFile, PRIORITIES};
pub use form::{ApiKey, KeyId};
pub use keyring::examine;
pub(crate) use keyring::{Holder, Keys, Refusal};
pub use time::Timestamp;
