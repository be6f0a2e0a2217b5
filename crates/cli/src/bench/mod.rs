//! Load for an OpenAI-compatible endpoint, and what it did to it.
//!
//! The core is pure: when requests begin (`schedule`), what they ask (`workload`, `words`, `trace`,
//! `template`), what is counted (`figures`, `latency`, `goodput`) and what is told (`report`, `notes`,
//! `table`). Around it is a thin edge: the two loops (`runner`), the clock of the open one (`pacer`),
//! the endpoint (`target`), the display (`progress`).

mod draws;
mod failure;
mod figures;
mod goodput;
mod interrupt;
mod latency;
mod limits;
mod notes;
mod pacer;
mod plan;
mod progress;
mod report;
mod runner;
mod schedule;
mod session;
mod table;
mod target;
mod template;
mod trace;
mod watch;
mod words;
mod workload;

pub(crate) use goodput::Objectives;
pub(crate) use plan::{Load, Plan, Prompts};
pub(crate) use report::Report;
pub(crate) use schedule::Arrivals;
pub(crate) use session::run;
pub(crate) use table::table;
pub(crate) use template::Endpoint;
pub(crate) use workload::TokenRange;
