//! `inferno top`: the nodes, live.
//!
//! Pure: [`state`] keeps what was heard and where the user stands in it, [`view`] composes that into
//! the lines of a screen of some size, [`render`] paints lines into cells. The edges: [`screen`] is
//! the terminal, taken and given back whatever happens, [`live`] the loop between proxies, keys,
//! signals and screen, [`plain`] what there is without a terminal.

mod graph;
mod input;
mod live;
mod plain;
mod render;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use live::{Ended, watch};
pub(crate) use plain::{Form, print_for_ever};
