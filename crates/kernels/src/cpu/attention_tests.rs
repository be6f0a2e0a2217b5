//! Attention against the definition, and against itself in every order of computation.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::Level;
use proptest::prelude::*;

const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 2, head_dim: 80 };
const HEADS: usize = 6;
const KV_WIDTH: usize = SHAPE.kv_heads * SHAPE.head_dim;
const WIDTH: usize = HEADS * SHAPE.head_dim;

fn noise(index: usize, salt: usize) -> f32 {
    let hash =
        (index * 2_654_435_761 + salt * 40_503 + 12_345).wrapping_mul(2_246_822_519) % 65_536;
    hash as f32 / 32_768.0 - 1.0
}

fn row(position: usize, width: usize, salt: usize) -> Vec<f32> {
    (0..width).map(|i| noise(position * width + i, salt)).collect()
}

/// The last `rows` of `tokens` positions, after all were written to the blocks of `table`.
fn attended(level: Level, threads: usize, table: &[u32], tokens: usize, rows: usize) -> Vec<f32> {
    let mut cache = KvCache::new(SHAPE, 16);
    let place = |position| RowPlace { blocks: table, position: position as u32 };
    for position in 0..tokens {
        cache.write(1, place(position), &row(position, KV_WIDTH, 1), &row(position, KV_WIDTH, 2));
    }
    let positions = tokens - rows..tokens;
    let places: Vec<_> = positions.clone().map(place).collect();
    let q: Vec<f32> = positions.flat_map(|position| row(position, WIDTH, 3)).collect();
    let mut out = vec![0.0; rows * WIDTH];
    let cpu = Cpu::with_level(threads, level).unwrap();
    cpu.attention(&cache, 1, &places, HEADS, (&q, WIDTH), 0.3, &mut out);
    out
}

/// One head of one row by definition, in double precision.
fn reference(position: usize, head: usize) -> Vec<f64> {
    let dim = SHAPE.head_dim;
    let at = head / (HEADS / SHAPE.kv_heads) * dim;
    let q = &row(position, WIDTH, 3)[head * dim..][..dim];
    let score = |key: usize| -> f64 {
        let key = row(key, KV_WIDTH, 1);
        q.iter().zip(&key[at..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * 0.3
    };
    let exps: Vec<f64> = (0..=position).map(|key| score(key).exp()).collect();
    let total: f64 = exps.iter().sum();
    let value = |i: usize| {
        let of = |key: usize| f64::from(row(key, KV_WIDTH, 2)[at + i]);
        exps.iter().enumerate().map(|(key, exp)| exp / total * of(key)).sum()
    };
    (0..dim).map(value).collect()
}

#[test]
fn a_row_is_the_weighted_mean_of_its_past() {
    let out = attended(Level::best(), 1, &[3, 0, 9], 70, 70);
    for position in [0, 1, 31, 32, 69] {
        for head in [0, 2, 5] {
            let got = &out[position * WIDTH + head * SHAPE.head_dim..][..SHAPE.head_dim];
            for (got, want) in got.iter().zip(reference(position, head)) {
                assert!(
                    (f64::from(*got) - want).abs() < 1e-5,
                    "{position} {head}: {got} is not {want}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_do_not_depend_on_batch_threads_level_or_blocks(
        tokens in 1..120usize, rows in 1..40usize, threads in 1..4usize,
    ) {
        let rows = rows.min(tokens);
        let plain = attended(Level::available()[0], 1, &[0, 1, 2, 3], tokens, 1);
        for level in Level::available() {
            let out = attended(level, threads, &[7, 2, 15, 4], tokens, rows);
            let last = &out[(rows - 1) * WIDTH..];
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(last), bits(&plain), "{}", level);
        }
    }
}
