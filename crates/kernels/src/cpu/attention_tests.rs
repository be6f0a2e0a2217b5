//! Attention against the definition, and against itself in every order of computation.

#![allow(clippy::unwrap_used)]
use super::super::Heads;
use super::*;
use crate::Level;
use half::f16;
use proptest::prelude::*;

/// A head that is no multiple of 64, and more query heads of a key head than walk together.
const SHAPES: [(KvShape, usize); 3] = [
    (KvShape { layers: 2, kv_heads: 2, head_dim: 80 }, 6),
    (KvShape { layers: 2, kv_heads: 1, head_dim: 64 }, 18),
    (KvShape { layers: 2, kv_heads: 1, head_dim: 256 }, 4),
];

fn spec(heads: usize, softcap: Option<f32>, window: Option<usize>) -> Attention {
    Attention { layer: 1, heads, scale: 0.3, softcap, window }
}

fn noise(index: usize, salt: usize) -> f32 {
    let hash =
        (index * 2_654_435_761 + salt * 40_503 + 12_345).wrapping_mul(2_246_822_519) % 65_536;
    hash as f32 / 32_768.0 - 1.0
}

/// Query, key and value of a position, side by side.
fn row(position: usize, width: usize) -> Vec<f32> {
    (0..width).map(|i| noise(position * width + i, 1)).collect()
}

struct Run<'a> {
    shape: KvShape,
    spec: Attention,
    level: Level,
    threads: usize,
    table: &'a [u32],
    /// Most rows that walk together.
    tile_rows: usize,
}

impl Run<'_> {
    /// The last `rows` of `tokens` positions, after all were written to the blocks of the table.
    fn attended(&self, tokens: usize, rows: usize) -> Vec<f32> {
        let cpu = Cpu::with_level(self.threads, self.level).unwrap();
        let heads = self.spec.heads;
        let width = (heads + 2 * self.shape.kv_heads) * self.shape.head_dim;
        let mut cache = KvCache::new(self.shape, 32);
        let mut qkv: Vec<f32> = (0..tokens).flat_map(|position| row(position, width)).collect();
        let positions: Vec<u32> = (0..tokens as u32).collect();
        let (mut places, all) = (
            Places::default(),
            Heads {
                heads,
                bias: None,
                query_norm: None,
                key_norm: None,
                norm_eps: 0.0,
                angles: None,
            },
        );
        places.push(self.table, &positions, self.tile_rows);
        cpu.place_heads(&mut qkv, &all, 1, &places, &mut cache);
        places.clear();
        places.push(self.table, &positions[tokens - rows..], self.tile_rows);
        let mut out = vec![0.0; rows * heads * self.shape.head_dim];
        let q = (&qkv[(tokens - rows) * width..], width);
        cpu.attention(&cache, &places, &self.spec, q, &mut AttentionScratch::default(), &mut out);
        out
    }
}

/// One head of one row by definition, in double precision.
fn reference(shape: KvShape, spec: &Attention, position: usize, head: usize) -> Vec<f64> {
    let (dim, queries) = (shape.head_dim, spec.heads * shape.head_dim);
    let width = queries + 2 * shape.kv_heads * dim;
    let kv_head = head / (spec.heads / shape.kv_heads);
    let half = |x: &f32| f64::from(f16::from_f32(*x).to_f32());
    let q = &row(position, width)[head * dim..][..dim];
    let score = |key: usize| -> f64 {
        let key = &row(key, width)[queries + kv_head * dim..][..dim];
        let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * half(k)).sum();
        let score = dot * f64::from(spec.scale);
        spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let first = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let exps: Vec<(usize, f64)> = (first..=position).map(|key| (key, score(key).exp())).collect();
    let total: f64 = exps.iter().map(|(_, exp)| exp).sum();
    let at = queries + (shape.kv_heads + kv_head) * dim;
    let mut mean = vec![0.0; dim];
    for (key, exp) in exps {
        let value = &row(key, width)[at..][..dim];
        mean.iter_mut().zip(value).for_each(|(mean, value)| *mean += exp / total * half(value));
    }
    mean
}

#[test]
fn a_row_is_the_weighted_mean_of_what_it_sees() {
    for (shape, heads) in SHAPES {
        for spec in [
            spec(heads, None, None),
            spec(heads, Some(2.0), None),
            spec(heads, None, Some(20)),
            spec(heads, Some(2.0), Some(40)),
        ] {
            let (table, tile_rows) = (&[3, 0, 9], Attention::tile_rows(heads, shape.kv_heads));
            let run = Run { shape, spec, level: Level::best(), threads: 1, table, tile_rows };
            let out = run.attended(70, 70);
            for position in [0, 1, 19, 20, 31, 32, 40, 69] {
                for head in [0, heads / 2, heads - 1] {
                    let at = (position * heads + head) * shape.head_dim;
                    for (got, want) in out[at..].iter().zip(reference(shape, &spec, position, head))
                    {
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-5,
                            "{spec:?} {position} {head}: {got} is not {want}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn spans_make_no_difference_to_the_mean() {
    let (shape, heads) = SHAPES[0];
    let table: Vec<u32> = (0..20).rev().collect();
    for window in [None, Some(300), Some(20)] {
        let spec = spec(heads, None, window);
        let run =
            Run { shape, spec, level: Level::best(), threads: 1, table: &table, tile_rows: 2 };
        let out = run.attended(600, 1);
        for head in 0..heads {
            let want = reference(shape, &spec, 599, head);
            for (got, want) in out[head * shape.head_dim..].iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{window:?}: {got} is not {want}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_do_not_depend_on_batch_threads_level_or_blocks(
        tokens in 1..620usize, rows in 1..40usize, threads in 1..4usize, tile_rows in 1..4usize,
        shape in 0..3usize, softcap in any::<bool>(), window in prop::option::of(1..300usize),
    ) {
        let (shape, heads) = SHAPES[shape];
        let rows = rows.min(tokens);
        let spec = spec(heads, softcap.then_some(3.0), window);
        let (level, table): (_, Vec<u32>) = (Level::available()[0], (0..20).collect());
        let alone = Run { shape, spec, level, threads: 1, table: &table, tile_rows: 1 };
        let plain = alone.attended(tokens, 1);
        let table: Vec<u32> = (0..20).map(|block| (block * 7 + 5) % 32).collect();
        let tile_rows = tile_rows.min(Attention::tile_rows(heads, shape.kv_heads));
        for level in Level::available() {
            for rows in [1, rows] {
                let run = Run { shape, spec, level, threads, table: &table, tile_rows };
                let out = run.attended(tokens, rows);
                let last = &out[out.len() - plain.len()..];
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(last), bits(&plain), "{}, {} rows", level, rows);
            }
        }
    }
}
