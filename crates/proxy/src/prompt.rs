//! A prompt as routing knows it: a hash for each block, pure.
//!
//! Blocks are cut from the request's own text, the `tools` first and then `messages`, `prompt` or `input`, as the
//! client wrote them. A conversation's next turn begins with the same bytes as the one before, from whichever
//! client, so that nothing has to be parsed, rendered or tokenised to find out what two requests have in common.

use std::sync::LazyLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a block: some 128 tokens. Shorter ones would find a little more and take more memory.
const BLOCK_BYTES: usize = 512;
/// Bytes that a token has in English text and in code, roughly.
const TOKEN_BYTES: usize = 4;
/// Tokens of a block, roughly.
pub const BLOCK_TOKENS: u32 = (BLOCK_BYTES / TOKEN_BYTES) as u32;
/// Most blocks of a prompt that are told apart: of 1 MiB, which is more than models take.
const BLOCKS_MAX: usize = 2048;

/// Nobody outside can choose prompts whose hashes collide.
static SEED: LazyLock<u64> =
    LazyLock::new(|| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())));

/// The hashes of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptHashes {
    /// For each whole block, of it and all before it; never 0.
    pub blocks: Vec<u64>,
    /// Tokens of all of it, roughly.
    pub tokens: u32,
}

impl PromptHashes {
    /// Of `parts`, one after another. Backends share what they have cached between requests for the same `model` of
    /// the same `tenant` only.
    pub fn of(model: &str, tenant: Option<&str>, parts: [Option<&str>; 2]) -> Self {
        let seed = xxh3_64_with_seed(tenant.unwrap_or("").as_bytes(), *SEED);
        let seed = xxh3_64_with_seed(model.as_bytes(), seed);
        let bytes: usize = parts.iter().flatten().map(|part| part.len()).sum();
        let mut blocks = Vec::with_capacity((bytes / BLOCK_BYTES).min(BLOCKS_MAX));
        let [first, second] = parts.map(|part| part.unwrap_or("").as_bytes());
        // Tools are whole: what follows other tools has nothing in common.
        let (whole, rest) = first.as_chunks::<BLOCK_BYTES>();
        let mut hash = seed;
        let mut add = |hash: &mut u64, block: &[u8]| {
            if blocks.len() < BLOCKS_MAX {
                *hash = xxh3_64_with_seed(block, *hash).max(1);
                blocks.push(*hash);
            }
        };
        whole.iter().for_each(|block| add(&mut hash, block));
        if !rest.is_empty() {
            hash = xxh3_64_with_seed(rest, hash);
        }
        second.as_chunks::<BLOCK_BYTES>().0.iter().for_each(|block| add(&mut hash, block));
        Self { blocks, ..Self::without_blocks(bytes) }
    }

    /// Of so many bytes that have nothing in common with any others.
    pub fn without_blocks(bytes: usize) -> Self {
        Self { blocks: Vec::new(), tokens: u32::try_from(bytes / TOKEN_BYTES).unwrap_or(u32::MAX) }
    }
}

/// The name of a session or a model as a number, the same on every proxy.
pub fn name(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashes(text: &str) -> PromptHashes {
        PromptHashes::of("m", None, [None, Some(text)])
    }

    #[test]
    fn what_begins_alike_has_the_same_first_hashes() {
        let turn = |last: &str| format!("[{{\"content\":\"{}\"}}{last}", "a".repeat(1500));
        let (first, second) = (hashes(&turn("]")), hashes(&turn(&",{}".repeat(400))));
        assert_eq!(first.blocks.len(), 2);
        assert_eq!(first.blocks, second.blocks[..2]);
        assert_eq!(second.blocks.len(), (1500 + 14 + 1200) / BLOCK_BYTES);
    }

    #[test]
    fn model_tenant_and_tools_are_part_of_every_hash() {
        let text = "x".repeat(600);
        let of = |model, tenant, tools| PromptHashes::of(model, tenant, [tools, Some(&text)]);
        let all = [
            of("m", None, None),
            of("n", None, None),
            of("m", Some("t"), None),
            of("m", None, Some("[]")),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.blocks.len(), 1);
            assert!(all[..at].iter().all(|other| other.blocks != one.blocks), "{at}");
        }
        assert_eq!(of("m", None, None), all[0]);
    }

    proptest! {
        #[test]
        fn only_what_differs_differs(text in "[a-z]{0,3000}", at in 0usize..3000) {
            prop_assume!(at < text.len());
            let mut other = text.clone();
            other.replace_range(at..=at, "A");
            let (one, two) = (hashes(&text), hashes(&other));
            prop_assert_eq!(one.blocks.len(), text.len() / BLOCK_BYTES);
            let same = one.blocks.iter().zip(&two.blocks).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(same, (at / BLOCK_BYTES).min(one.blocks.len()));
        }
    }
}
