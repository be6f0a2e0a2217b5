//! A counter-based random generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). Its output is a function of key and counter, so there is no state to save, share or
//! replay: position 500 is as near as position 0.

/// What makes a generation's draws its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The request's seed.
    pub seed: u64,
    /// Which of the client's prompts.
    pub prompt_index: u32,
    /// Which of its choices.
    pub choice: u32,
}

impl Key {
    /// A number in [0, 1) with 53 random bits, for `position`.
    #[must_use]
    pub fn uniform(&self, position: u64) -> f64 {
        let counter = [position as u32, (position >> 32) as u32, self.prompt_index, self.choice];
        let [low, high, ..] = philox(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = u64::from(counter[0]) * 0xd251_1f53;
        let second = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library, `kat_vectors`.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let key = Key { seed: 1, prompt_index: 2, choice: 3 };
        let others = [
            Key { seed: 1 << 40, ..key },
            Key { prompt_index: 3, ..key },
            Key { choice: 4, ..key },
        ];
        assert!(others.iter().all(|other| other.uniform(9) != key.uniform(9)));
        assert_ne!(key.uniform(9), key.uniform(10));
        assert_eq!(key.uniform(9), Key { seed: 1, prompt_index: 2, choice: 3 }.uniform(9));
    }

    #[test]
    fn draws_are_spread_evenly() {
        let key = Key { seed: 42, prompt_index: 0, choice: 0 };
        let mean = (0..10_000).map(|position| key.uniform(position)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
