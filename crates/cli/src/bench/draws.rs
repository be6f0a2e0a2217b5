//! Everything random in a run: functions of the seed, so that the same command sends the same requests
//! at the same times. The generator is the engine's, which keeps no state: any request's text can be
//! made without those before it.

use inferno_engine::sampling::Key;

/// All draws of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draws {
    seed: u64,
}

/// What a draw is for: draws for one purpose tell nothing about those for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The gaps between arrivals.
    Arrivals,
    /// How long each prompt is.
    Lengths,
    /// The words of each prompt.
    Words,
    /// The words of the beginning that all prompts share.
    SharedPrefix,
    /// The words of a trace's blocks, by hash id.
    Blocks,
    /// The words of the prompts that warm up.
    WarmUp,
}

impl Draws {
    pub(super) fn of(seed: u64) -> Self {
        Self { seed }
    }

    /// A number in [0, 1): the `position`th of `item`, which is a request or a block.
    pub(super) fn uniform(self, purpose: Purpose, item: u64, position: u32) -> f64 {
        let [low, high] = [item as u32, (item >> 32) as u32];
        let key = Key { seed: self.seed, prompt_index: low, choice: purpose as u32 };
        key.uniform(u64::from(high) << 32 | u64::from(position))
    }

    /// An index below `count`.
    pub(super) fn below(self, count: usize, purpose: Purpose, item: u64, position: u32) -> usize {
        (self.uniform(purpose, item, position) * count as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_matters_and_nothing_else() {
        let draw = |seed, purpose, item, position| Draws::of(seed).uniform(purpose, item, position);
        let first = draw(1, Purpose::Words, 2, 3);
        assert_eq!(first.to_bits(), draw(1, Purpose::Words, 2, 3).to_bits());
        for other in [
            draw(2, Purpose::Words, 2, 3),
            draw(1, Purpose::Lengths, 2, 3),
            draw(1, Purpose::Words, 3, 3),
            draw(1, Purpose::Words, 2 + (1 << 32), 3),
            draw(1, Purpose::Words, 2, 4),
        ] {
            assert_ne!(first.to_bits(), other.to_bits());
        }
    }
}
