//! Sharing, eviction and collisions, one by one and at random.

use super::*;
use proptest::prelude::*;

/// A table that has computed and shared all full blocks of `tokens`, and why each was computed.
fn filled(pool: &BlockPool, salt: CacheSalt, tokens: &[u32]) -> (BlockTable, Vec<Miss>) {
    let mut table = BlockTable::new(pool.clone(), salt);
    let mut misses = Vec::new();
    table.reuse(tokens);
    assert!(table.grow(tokens.len().div_ceil(BLOCK_TOKENS)), "blocks for {} tokens", tokens.len());
    let rest = &tokens[table.shared_tokens()..];
    for tokens in rest.chunks_exact(BLOCK_TOKENS) {
        misses.push(table.share(tokens));
    }
    (table, misses)
}

fn text(length: usize, first: u32) -> Vec<u32> {
    (0..length as u32).map(|n| first + n / BLOCK_TOKENS as u32).collect()
}

const NOBODY: CacheSalt = CacheSalt(0);

#[test]
fn a_prefix_is_found_by_the_next_and_its_tail_is_not_shared() {
    let pool = BlockPool::new(8);
    let tokens = text(3 * BLOCK_TOKENS + 5, 0);
    let (first, misses) = filled(&pool, NOBODY, &tokens);
    assert_eq!(misses, [Miss::Cold; 3]);
    let (second, misses) = filled(&pool, NOBODY, &tokens);
    assert_eq!(misses, []);
    assert_eq!(first.blocks()[..3], second.blocks()[..3]);
    assert_ne!(first.blocks()[3], second.blocks()[3]);
    pool.check(&[&first, &second]);
    drop((first, second));
    assert_eq!((pool.available(), pool.kept()), (8, 3));
    let mut third = BlockTable::new(pool.clone(), NOBODY);
    assert!(third.reuse(&tokens));
    assert_eq!((third.shared_tokens(), pool.kept()), (3 * BLOCK_TOKENS, 0));
}

#[test]
fn salts_share_nothing_and_say_so() {
    let pool = BlockPool::new(8);
    let tokens = text(2 * BLOCK_TOKENS, 0);
    let (ours, _) = filled(&pool, CacheSalt::of(b"ours"), &tokens);
    let (theirs, misses) = filled(&pool, CacheSalt::of(b"theirs"), &tokens);
    assert_eq!(misses, [Miss::OtherKey; 2]);
    assert!(ours.blocks().iter().all(|block| !theirs.blocks().contains(block)));
    pool.check(&[&ours, &theirs]);
}

#[test]
fn the_least_recently_used_goes_first_and_from_its_end() {
    let pool = BlockPool::new(4);
    let (old, new) = (text(2 * BLOCK_TOKENS, 0), text(2 * BLOCK_TOKENS, 50));
    drop(filled(&pool, NOBODY, &old));
    drop(filled(&pool, NOBODY, &new));
    assert_eq!(pool.kept(), 4);
    let mut other = BlockTable::new(pool.clone(), NOBODY);
    assert!(other.grow(1));
    assert_eq!(pool.evictions(), 1);
    pool.check(&[&other]);
    let (old, misses) = filled(&pool, NOBODY, &old);
    assert_eq!(misses, [Miss::Evicted], "its first block is still there");
    let mut new_again = BlockTable::new(pool.clone(), NOBODY);
    assert!(new_again.reuse(&new));
    assert_eq!(new_again.shared_tokens(), BLOCK_TOKENS, "its second made room");
    pool.check(&[&other, &old, &new_again]);
}

#[test]
fn two_that_compute_the_same_end_with_one_block() {
    let pool = BlockPool::new(8);
    let tokens = text(2 * BLOCK_TOKENS, 0);
    let mut tables = [(); 2].map(|()| BlockTable::new(pool.clone(), NOBODY));
    tables.iter_mut().for_each(|table| assert!(table.grow(2)));
    let misses = tables.each_mut().map(|table| table.share(&tokens[..BLOCK_TOKENS]));
    assert_eq!(misses, [Miss::Cold, Miss::Concurrent]);
    assert_eq!(tables[0].blocks()[0], tables[1].blocks()[0]);
    assert_eq!(pool.available(), 8 - 3);
    // The second goes on faster than the first, which takes over what it has in place of its own.
    assert_eq!(tables[1].share(&tokens[BLOCK_TOKENS..]), Miss::Cold);
    assert!(tables[0].reuse(&tokens));
    assert_eq!(tables[0].blocks(), tables[1].blocks());
    assert_eq!(pool.available(), 8 - 2);
    pool.check(&[&tables[0], &tables[1]]);
}

#[test]
fn a_collision_is_a_miss_and_never_a_wrong_block() {
    let pool = BlockPool::with_hash_mask(8, 0);
    let (first, _) = filled(&pool, NOBODY, &text(BLOCK_TOKENS, 0));
    let (second, misses) = filled(&pool, NOBODY, &text(3 * BLOCK_TOKENS, 50));
    assert_eq!(misses, [Miss::Collision; 3]);
    assert_eq!(second.shared_tokens(), 0);
    // The same tokens under another salt have the same hash here too.
    let (third, misses) = filled(&pool, CacheSalt(1), &text(BLOCK_TOKENS, 0));
    assert_eq!(misses, [Miss::Collision]);
    pool.check(&[&first, &second, &third]);
}

#[test]
fn a_pool_that_runs_out_says_so_and_keeps_what_it_gave() {
    let pool = BlockPool::new(3);
    let mut first = BlockTable::new(pool.clone(), NOBODY);
    assert!(first.grow(2));
    let mut second = BlockTable::new(pool.clone(), NOBODY);
    assert!(!second.grow(2));
    assert_eq!((second.blocks().len(), pool.available()), (1, 0));
    second.clear();
    assert_eq!(pool.available(), 1);
}

proptest! {
    /// Tables over a small alphabet, so that they share much, come, grow and go; hashes of a few bits, so
    /// that they collide. A shared block always has the tokens that its holders say.
    #[test]
    fn random_tables_keep_the_rules(
        operations in prop::collection::vec((0..6usize, 0..3u32, 0..2u128, 1..5usize), 1..150),
        hash_bits in prop_oneof![Just(2u32), Just(6), Just(64)],
    ) {
        let pool = BlockPool::with_hash_mask(7, u64::MAX >> (64 - hash_bits));
        let mut tables: Vec<(BlockTable, Vec<u32>)> = Vec::new();
        for (which, letter, salt, blocks) in operations {
            if which >= tables.len() {
                let mut table = BlockTable::new(pool.clone(), CacheSalt(salt));
                let tokens: Vec<u32> = text(blocks * BLOCK_TOKENS, 0).iter().map(|n| n * letter).collect();
                table.reuse(&tokens);
                let computed = if table.grow(blocks) { tokens.len() } else { table.shared_tokens() };
                let unshared = table.shared_tokens()..computed;
                for block in tokens[unshared].chunks_exact(BLOCK_TOKENS) {
                    table.share(block);
                }
                tables.push((table, tokens));
            } else {
                tables.swap_remove(which);
            }
            pool.check(&tables.iter().map(|(table, _)| table).collect::<Vec<_>>());
            for (a, a_tokens) in &tables {
                for (b, b_tokens) in &tables {
                    for (index, block) in a.blocks().iter().enumerate() {
                        let elsewhere = b.blocks().iter().position(|other| other == block);
                        if let Some(elsewhere) = elsewhere {
                            let end = (index + 1) * BLOCK_TOKENS;
                            prop_assert_eq!(elsewhere, index);
                            prop_assert_eq!(&a_tokens[..end], &b_tokens[..end]);
                        }
                    }
                }
            }
        }
        drop(tables);
        pool.check(&[]);
        prop_assert_eq!(pool.available(), 7);
    }
}
