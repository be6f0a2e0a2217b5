//! Server-sent events on their way through.

mod sse;

pub(crate) use sse::{COMMENT, EventSplitter, is_event_stream};
