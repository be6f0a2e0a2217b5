//! The model with its cache: computes batches.

use crate::batch::Batch;
use crate::model::{Decoder, Scratch};
use inferno_kernels::Cpu;
use inferno_kernels::cpu::KvCache;

/// Most rows whose logits are computed at once beside the sampled ones: 33 MB for a vocabulary of 262,144.
pub const SCORED_ROWS: usize = 32;

/// Everything a step touches beside the batch.
pub struct Runner {
    cpu: Cpu,
    decoder: Decoder,
    cache: KvCache,
    scratch: Scratch,
}

impl Runner {
    /// A runner with a cache of `blocks` blocks.
    #[must_use]
    pub fn new(cpu: Cpu, decoder: Decoder, blocks: usize) -> Self {
        let cache = KvCache::new(decoder.kv_shape(), blocks);
        Self { cpu, decoder, cache, scratch: Scratch::default() }
    }

    /// Computes a batch; the logits of its sampled rows, `[sampled, vocab]`.
    ///
    /// # Panics
    /// When the batch refers to tokens or blocks that do not exist.
    pub fn step(&mut self, batch: &Batch) -> &[f32] {
        self.decoder.forward(&self.cpu, batch, &mut self.cache, &mut self.scratch)
    }

    /// The logits of any `rows` of the last step, `[rows, vocab]`, to the same bits as had they been sampled. They
    /// take the place of those computed before.
    ///
    /// # Panics
    /// When the last step had no such row.
    pub fn logits(&mut self, rows: &[usize]) -> &[f32] {
        self.decoder.logits(&self.cpu, rows, &mut self.scratch)
    }

    /// The device it runs on.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The model it runs.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}
