//! Whether an answer comes out the same again: what was saved, how it is asked for again, and the comparison.
//!
//! Pure: files and the network are `command/verify.rs`.

mod answer;
mod compare;
mod saved;

pub(crate) use answer::Answer;
pub(crate) use compare::{Difference, Verdict, compare};
pub(crate) use saved::Saved;

#[cfg(test)]
mod tests;
