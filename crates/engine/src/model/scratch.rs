//! The buffers of a step.

use super::config::DecoderConfig;
use super::moe::Routing;
use inferno_kernels::cpu::{AttentionScratch, Places, RopeAngles};

/// Buffers of one step, kept from step to step. `[rows, …]`, sized for the largest batch so far.
#[derive(Default)]
pub struct Scratch {
    pub(super) residual: Vec<f32>,
    /// What the next block reads.
    pub(super) normed: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) attended: Vec<f32>,
    /// What a block adds to the residual.
    pub(super) delta: Vec<f32>,
    pub(super) gate_up: Vec<f32>,
    pub(super) activated: Vec<f32>,
    pub(super) logits: Vec<f32>,
    /// Attention's spans.
    pub(super) attention: AttentionScratch,
    pub(super) routing: Routing,
    /// Where the rows stand.
    pub(super) places: Places,
    /// One for each way in which layers rotate.
    pub(super) angles: Vec<RopeAngles>,
}

impl Scratch {
    /// Bytes for a batch of `rows`, of which `sampled` want logits. A product's input is kept quantised while
    /// it is computed, in at most the four bytes an element that float weights take.
    #[must_use]
    pub fn bytes(config: &DecoderConfig, vocab: usize, rows: usize, sampled: usize) -> usize {
        let widest = match config.experts {
            // Each row once for every expert it goes through, and what those give.
            Some(experts) => {
                experts.used.max(1) * experts.feed_forward.max(experts.shared.unwrap_or(0))
                    + 2 * experts.used * config.hidden
                    + experts.count
            }
            None => config.feed_forward,
        };
        let quantised = config.hidden.max(config.query_width()).max(widest);
        let angles: usize = config.ropes.iter().map(|rope| 2 * rope.frequencies.len()).sum();
        let row = 3 * config.hidden
            + config.qkv_width()
            + config.query_width()
            + 3 * widest
            + quantised
            + angles;
        (rows * row + sampled * vocab) * size_of::<f32>()
    }
}

/// The first `len` elements of a buffer, which grows as needed.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
