//! Heads against the definitions: bias, then norm, then rotation; and what attention then reads.

#![allow(clippy::unwrap_used)]
use super::super::{Rope, RopeLayout};
use super::*;
use crate::Level;
use half::f16;
use proptest::prelude::*;

const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 2, head_dim: 16 };
const HEADS: usize = 4;
const WIDTH: usize = (HEADS + 2 * SHAPE.kv_heads) * SHAPE.head_dim;
const POSITIONS: [u32; 2] = [7, 40];
/// The first 12 elements of a head turn.
const FREQUENCIES: [f64; 6] = [1.0, 0.5, 0.3, 0.05, 0.01, 0.001];
const MAGNITUDE: f64 = 1.1;

/// What to do to the heads.
#[derive(Clone, Debug)]
struct Case {
    bias: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    layout: Option<RopeLayout>,
}

/// The rows afterwards, and keys and values as the cache has them, `[rows, 2, kv_heads · head_dim]`.
fn placed(level: Level, case: &Case, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let cpu = Cpu::with_level(2, level).unwrap();
    let mut cache = KvCache::new(SHAPE, 4);
    let mut places = Places::default();
    places.push(&[3, 1], &POSITIONS, 1);
    let mut angles = RopeAngles::default();
    if let Some(layout) = case.layout {
        let rope = Rope { frequencies: FREQUENCIES.to_vec(), magnitude: MAGNITUDE, layout };
        cpu.rope_angles(&mut angles, &POSITIONS, &rope);
    }
    let heads = Heads {
        heads: HEADS,
        bias: case.bias.as_deref(),
        query_norm: case.query_norm.as_deref(),
        key_norm: case.key_norm.as_deref(),
        norm_eps: 1e-5,
        angles: case.layout.map(|_| &angles),
    };
    let mut out = x.to_vec();
    cpu.place_heads(&mut out, &heads, 1, &places, &mut cache);
    let mut stored = Vec::new();
    for (block, position) in [3, 1].into_iter().zip(POSITIONS) {
        let slot = position as usize % 32;
        let heads = (0..SHAPE.kv_heads).map(|head| cache.head(1, block, head));
        stored.extend(heads.clone().flat_map(|(keys, _)| keys.iter().map(|line| line[slot])));
        stored.extend(heads.flat_map(|(_, values)| &values[slot * 16..][..16]).copied());
    }
    (out, stored.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect())
}

/// One row by the definitions, in double precision.
fn reference(case: &Case, x: &[f32], position: u32) -> Vec<f64> {
    let bias = |i: usize| case.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
    let mut x: Vec<f64> = x.iter().enumerate().map(|(i, x)| f64::from(*x) + bias(i)).collect();
    let (queries, rest) = x.split_at_mut(HEADS * 16);
    let keys = &mut rest[..SHAPE.kv_heads * 16];
    for (x, norm) in [(queries, &case.query_norm), (keys, &case.key_norm)] {
        if let Some(weight) = norm {
            for x in x.chunks_mut(weight.len()) {
                let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
                x.iter_mut()
                    .zip(weight)
                    .for_each(|(x, w)| *x *= f64::from(*w) / (mean + 1e-5).sqrt());
            }
        }
        for head in x.chunks_mut(16) {
            for (pair, frequency) in FREQUENCIES.iter().enumerate() {
                let (i, j) = match case.layout {
                    None => break,
                    Some(RopeLayout::Interleaved) => (2 * pair, 2 * pair + 1),
                    Some(RopeLayout::Halves) => (pair, 6 + pair),
                };
                let (sin, cos) = f64::sin_cos(f64::from(position) * frequency);
                let (a, b) = (head[i], head[j]);
                head[i] = MAGNITUDE * (a * cos - b * sin);
                head[j] = MAGNITUDE * (a * sin + b * cos);
            }
        }
    }
    x
}

fn weights(len: usize) -> impl Strategy<Value = Option<Vec<f32>>> {
    prop::option::of(prop::collection::vec(-2.0f32..2.0, len))
}

fn cases() -> impl Strategy<Value = Case> {
    let norms = prop_oneof![
        (weights(16), weights(16)),
        (weights(HEADS * 16), weights(SHAPE.kv_heads * 16)),
    ];
    let layouts = vec![None, Some(RopeLayout::Interleaved), Some(RopeLayout::Halves)];
    (weights(WIDTH), norms, prop::sample::select(layouts)).prop_map(
        |(bias, (query_norm, key_norm), layout)| Case { bias, query_norm, key_norm, layout },
    )
}

proptest! {
    #[test]
    fn every_level_gives_the_same_bits_and_the_true_value(
        x in prop::collection::vec(-4.0f32..4.0, 2 * WIDTH),
        case in cases(),
    ) {
        let (plain, stored) = placed(Level::available()[0], &case, &x);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for level in Level::available() {
            let (out, same) = placed(level, &case, &x);
            prop_assert_eq!(bits(&out), bits(&plain), "{}", level);
            prop_assert_eq!(bits(&same), bits(&stored), "{}", level);
        }
        for (row, position) in POSITIONS.into_iter().enumerate() {
            let want = reference(&case, &x[row * WIDTH..][..WIDTH], position);
            let kv = WIDTH - HEADS * 16;
            for (i, want) in want.iter().enumerate() {
                let (got, tolerance) = match i.checked_sub(HEADS * 16) {
                    None => (plain[row * WIDTH + i], 1e-4),
                    Some(i) => (stored[row * kv + i], 1e-4 + want.abs() / 2048.0),
                };
                prop_assert!((f64::from(got) - want).abs() < tolerance, "{i}: {got}, not {want}");
            }
        }
    }
}
