use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Everything is fresh.
fn always(_: u16, _: u32) -> bool {
    true
}

fn matched(map: &mut PrefixMap, blocks: &[u64], room: usize) -> Vec<u32> {
    let mut matched = vec![7; room];
    map.look_up(blocks, always, &mut matched);
    matched
}

/// Hashes of a prompt of `length` blocks that has `shared` in common with all others.
fn prompt(whose: u64, shared: u64, length: u64) -> Vec<u64> {
    (0..length).map(|at| 1 + at * 1000 + if at < shared { 0 } else { 1 + whose }).collect()
}

#[test]
fn it_stays_within_64_mib_whatever_it_is_told() {
    let mut map = PrefixMap::default();
    assert!(map.bytes_max() <= 64 << 20, "{}", map.bytes_max());
    // Everybody's blocks, more than there are places and sets: 1,000 backends, 100 at a time.
    let room = map.grow(1000);
    let sets = MANY_BYTES / (map.words * 8);
    let mut blocks = Vec::new();
    for round in 0..(sets as u64 / 500 + 20) {
        blocks.clear();
        blocks
            .extend((0..500).map(|at| (round * 500 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (0..5).for_each(|ordinal| map.insert(&blocks, ordinal * 200, 0, always));
    }
    assert!(map.many.len() * 8 <= MANY_BYTES && map.free.len() <= sets);
    assert_eq!((map.hashes.len(), map.holders.len()), (PLACES, PLACES * FEW));
    let found = matched(&mut map, &blocks, room);
    assert_eq!(
        found.iter().filter(|&&count| count == 500).count(),
        FEW,
        "sets ran out: the latest"
    );
}

#[test]
fn random_prompts_for_ever_take_no_more_than_there_is() {
    let mut map = PrefixMap::with_places(1 << 10);
    let room = map.grow(300);
    for round in 0..20_000u64 {
        // What everyone has changes now and then, and what it was before loses its place.
        let blocks: Vec<u64> =
            prompt(round, 2, 4).iter().map(|hash| hash + round / 2000 * 1_000_000_007).collect();
        map.insert(&blocks, (round % 300) as u16, 0, always);
    }
    assert_eq!(map.hashes.len(), 1 << 10);
    // Whatever lost its place has given its set back.
    let used = map.holders.chunks(FEW).filter(|holders| holders[0] == MANY).count();
    assert_eq!(map.many.len() / map.words, used + map.free.len());
    assert!(!map.free.is_empty() && used < 20, "{used}");
    let latest: Vec<u64> =
        prompt(19_999, 2, 4).iter().map(|hash| hash + 9 * 1_000_000_007).collect();
    let first = matched(&mut map, &latest, room);
    assert_eq!(first[19_999 % 300], 4, "the latest is known");
    assert_eq!(first.iter().filter(|&&count| count == 2).count(), 299, "all have what all share");
}

#[test]
fn what_is_stale_is_not_counted_and_makes_room() {
    let mut map = PrefixMap::with_places(64);
    let room = map.grow(10);
    (0..3).for_each(|ordinal| map.insert(&[5], ordinal, u32::from(ordinal), always));
    // Of the three that stand there, only what ordinal 2 got is fresh.
    let is_fresh = |ordinal, _| ordinal >= 2;
    let mut found = vec![0; room];
    map.look_up(&[5], is_fresh, &mut found);
    assert_eq!(found[..4], [0, 0, 1, 0]);
    map.insert(&[5], 3, 9, is_fresh);
    assert!(map.many.is_empty(), "it took the place of a stale one");
    map.look_up(&[5], always, &mut found);
    assert_eq!(found.iter().sum::<u32>(), 3);
}

#[test]
fn what_is_forgotten_is_forgotten_in_the_sets_too() {
    let mut map = PrefixMap::with_places(64);
    let room = map.grow(100);
    (60..70).for_each(|ordinal| map.insert(&[5, 6], ordinal, 0, always));
    assert_eq!(matched(&mut map, &[5, 6], room)[65], 2);
    map.forget(65);
    let found = matched(&mut map, &[5, 6], room);
    assert_eq!((found[64], found[65], found[66]), (2, 0, 2));
}

proptest! {
    #[test]
    fn it_finds_what_a_plain_table_finds(
        told in proptest::collection::vec((0u64..6, 0u64..4, 1u64..6, 0u16..140), 0..200),
        asked in proptest::collection::vec((0u64..6, 0u64..4, 0u64..8), 1..20),
    ) {
        let mut map = PrefixMap::with_places(1 << 12);
        let mut plain: HashMap<u64, HashSet<u16>> = HashMap::new();
        let mut room = 0;
        for (whose, shared, length, ordinal) in told {
            let before = room;
            room = map.grow(usize::from(ordinal) + 1);
            if room > before {
                // Sets are lost when more backends come; nothing else is.
                let lost = |block: &u64| map.find(*block).is_none();
                plain.retain(|block, _| !lost(block));
            }
            let blocks = prompt(whose, shared, length);
            map.insert(&blocks, ordinal, 0, always);
            for block in blocks {
                plain.entry(block).or_default().insert(ordinal);
            }
        }
        room = map.grow(140);
        plain.retain(|block, _| map.find(*block).is_some());
        for (whose, shared, length) in asked {
            let blocks = prompt(whose, shared, length);
            let found = matched(&mut map, &blocks, room);
            for ordinal in 0..room as u16 {
                let has = |block: &&u64| plain.get(block).is_some_and(|who| who.contains(&ordinal));
                let expected = blocks.iter().take_while(has).count();
                prop_assert_eq!(found[usize::from(ordinal)], expected as u32, "{} {:?}", ordinal, blocks);
            }
        }
    }
}
