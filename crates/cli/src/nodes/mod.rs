//! The nodes as one or several proxies see them: what `status` shows once and `top` all the time.
//!
//! [`ask`] is the edge that asks proxies; everything else is pure. [`Fleet`] merges what several
//! proxies say into one row a node, [`table`] lays rows out in the width there is, and
//! [`Spans`] is a line whose parts have a tone, printed by `status` and drawn by `top`.

mod ask;
mod columns;
mod fleet;
pub(crate) mod headline;
mod report;
mod spans;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
mod words;

pub(crate) use ask::{Answer, Asker, ProxyArgs, Sighting, Silence, SilenceKind};
pub(crate) use columns::Column;
pub(crate) use fleet::{Fleet, Node};
pub(crate) use report::report;
pub(crate) use spans::{Spans, Tone};
pub(crate) use words::{duration, figure, one_line};
