//! One step as the model sees it: a flat list of rows over all sequences.

use crate::scheduler::{Scheduler, SequenceId, Step};

/// A ragged batch. Row `r` is token `tokens[r]` at `positions[r]` of the sequence whose blocks are
/// `tables[sequences[r]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Index into `tables` of each row.
    pub sequences: Vec<usize>,
    /// Block numbers of each sequence in the batch, in order.
    pub tables: Vec<Vec<u32>>,
    /// Rows whose logits are wanted, ascending.
    pub sampled: Vec<usize>,
}

impl Batch {
    /// The batch of `step`, and the sequences that its sampled rows belong to, in order.
    pub fn new(scheduler: &Scheduler, step: &Step) -> (Self, Vec<SequenceId>) {
        let (mut batch, mut sampling) = (Self::default(), Vec::new());
        for entry in &step.entries {
            let Some((tokens, blocks)) = scheduler.sequence(entry.id) else { continue };
            batch.push(&tokens[entry.tokens.clone()], entry.tokens.start);
            batch.tables.push(blocks.iter().map(crate::cache::BlockLease::block).collect());
            if entry.samples {
                batch.sampled.push(batch.tokens.len() - 1);
                sampling.push(entry.id);
            }
        }
        (batch, sampling)
    }

    fn push(&mut self, tokens: &[u32], start: usize) {
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|position| position as u32));
        self.sequences.extend(std::iter::repeat_n(self.tables.len(), tokens.len()));
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
