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
    /// Makes it the batch of `step`, in the memory that it has. `sampling` becomes the sequences that its
    /// sampled rows belong to, in order.
    pub fn fill(&mut self, scheduler: &Scheduler, step: &Step, sampling: &mut Vec<SequenceId>) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.sampled.clear();
        sampling.clear();
        let mut tables = 0;
        for entry in &step.entries {
            let Some((tokens, blocks)) = scheduler.sequence(entry.id) else { continue };
            self.push(&tokens[entry.tokens.clone()], entry.tokens.start, tables);
            self.put_table(tables, blocks);
            tables += 1;
            if entry.samples {
                self.sampled.push(self.tokens.len() - 1);
                sampling.push(entry.id);
            }
        }
        self.tables.truncate(tables);
    }

    fn push(&mut self, tokens: &[u32], start: usize, table: usize) {
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|position| position as u32));
        self.sequences.extend(std::iter::repeat_n(table, tokens.len()));
    }

    fn put_table(&mut self, index: usize, blocks: &[u32]) {
        match self.tables.get_mut(index) {
            Some(table) => {
                table.clear();
                table.extend_from_slice(blocks);
            }
            None => self.tables.push(blocks.to_vec()),
        }
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
