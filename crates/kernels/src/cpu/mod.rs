//! The CPU's operations, one file a family.
//!
//! Each public operation is a method of [`Cpu`] in its family's file: it checks shapes, splits rows over
//! the pool and calls the body's instance for the machine. Matrices are row-major `f32` slices.

mod activation;
mod activations;
mod attention;
mod attention_walk;
mod block32;
mod block_type;
mod encoder_attention;
mod gelu;
mod half_float;
mod heads;
mod kv_cache;
mod lanes;
mod layer_norm;
mod level;
mod matmul;
mod norm;
mod product;
mod rope;
mod rows;
mod simd;
mod softmax;
mod storage;
#[cfg(test)]
mod testing;
mod tiles;
mod weight;

pub use activation::Activation;
pub use attention::{Attention, AttentionScratch};
pub use block_type::BlockType;
pub use heads::Heads;
pub use kv_cache::{BLOCK_TOKENS, HEAD_DIM_MAX, KvCache, KvShape, Places};
pub use layer_norm::LayerNorm;
pub use level::Level;
pub use norm::Residual;
pub use rope::{Rope, RopeAngles, RopeLayout};
pub use weight::{NotFinite, Weight, WeightError};

use crate::ThreadPool;
use std::sync::Mutex;

/// The CPU as a device: its thread pool and the instruction level its kernels run at.
pub struct Cpu {
    pool: ThreadPool,
    level: Level,
    /// For the quantised input of products, one at a time.
    scratch: Mutex<activations::Scratch>,
}

impl Cpu {
    /// A device on which `threads` threads work, at the best level of this machine.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_level(threads, Level::best())
    }

    /// As [`Cpu::new`] at a stated level: the results are the same, which is what tests use it for.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn with_level(threads: usize, level: Level) -> std::io::Result<Self> {
        Ok(Self { pool: ThreadPool::new(threads)?, level, scratch: Mutex::default() })
    }

    /// How many threads work on an operation.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction level in use.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }
}
