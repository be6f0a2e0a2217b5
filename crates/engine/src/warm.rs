//! The first steps, made before anybody waits for them.

use crate::batch::Batch;
use crate::cache::BLOCK_TOKENS;
use crate::runner::Runner;
use crate::scheduler::cost::{StepCost, Work};
use std::time::Instant;

/// Brings the weights into memory and the buffers to size, and measures what steps cost.
///
/// A single token touches every weight once; the second time it costs what it will cost. Whatever the steps
/// leave in the cache is overwritten before it is read.
pub(crate) fn up(runner: &mut Runner) -> StepCost {
    let mut cost = StepCost::default();
    runner.step(&batch(1));
    for rows in [1, 8, BLOCK_TOKENS, 1, 8, BLOCK_TOKENS] {
        let started = Instant::now();
        runner.step(&batch(rows));
        let mut work = Work::default();
        work.add(&(0..rows));
        cost.observe(work, started.elapsed());
    }
    cost
}

/// The first `rows` positions of a sequence in block 0.
fn batch(rows: usize) -> Batch {
    Batch {
        tokens: vec![0; rows],
        positions: (0..rows as u32).collect(),
        sequences: vec![0; rows],
        tables: vec![vec![0]],
        sampled: vec![rows - 1],
    }
}
