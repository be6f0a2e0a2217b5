//! Encoder attention against the definition, and against itself in other company.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::Level;
use proptest::prelude::*;

const HEADS: usize = 3;

fn noise(index: usize, salt: usize) -> f32 {
    let hash =
        (index * 2_654_435_761 + salt * 40_503 + 12_345).wrapping_mul(2_246_822_519) % 65_536;
    hash as f32 / 16_384.0 - 2.0
}

/// The projections of a text: a function of the text and not of where it stands.
fn text(salt: usize, tokens: usize, hidden: usize) -> Vec<f32> {
    (0..tokens * 3 * hidden).map(|i| noise(i, salt)).collect()
}

fn bias(hidden: usize) -> Vec<f32> {
    (0..3 * hidden).map(|i| noise(i, 99)).collect()
}

/// What texts of these lengths attend to, text `t` made with the salt `first + t`.
fn attended(level: Level, threads: usize, dim: usize, first: usize, lengths: &[usize]) -> Vec<f32> {
    let hidden = HEADS * dim;
    let texts = lengths.iter().enumerate().map(|(t, tokens)| text(first + t, *tokens, hidden));
    let qkv: Vec<f32> = texts.flatten().collect();
    let mut starts = vec![0];
    starts.extend(lengths.iter().scan(0, |end, tokens| {
        *end += tokens;
        Some(*end)
    }));
    let mut out = vec![f32::NAN; qkv.len() / 3];
    let cpu = Cpu::with_level(threads, level).unwrap();
    cpu.encoder_attention(&qkv, &bias(hidden), &starts, HEADS, &mut out);
    out
}

/// One head of one token by definition, in double precision.
fn reference(salt: usize, tokens: usize, dim: usize, token: usize, head: usize) -> Vec<f64> {
    let hidden = HEADS * dim;
    let (qkv, bias) = (text(salt, tokens, hidden), bias(hidden));
    let at = |row: usize, part: usize, d: usize| {
        let column = part * hidden + head * dim + d;
        f64::from(qkv[row * 3 * hidden + column]) + f64::from(bias[column])
    };
    let score = |key: usize| {
        let product: f64 = (0..dim).map(|d| at(token, 0, d) * at(key, 1, d)).sum();
        (product / (dim as f64).sqrt()).exp()
    };
    let scores: Vec<f64> = (0..tokens).map(score).collect();
    let total: f64 = scores.iter().sum();
    let mix = |d| scores.iter().enumerate().map(|(key, s)| s / total * at(key, 2, d)).sum();
    (0..dim).map(mix).collect()
}

#[test]
fn a_token_is_the_weighted_mean_of_its_text() {
    // Dimensions and lengths that fill their tiles, and some that do not.
    for (dim, tokens) in [(32, 1), (32, 16), (32, 37), (64, 130), (20, 33), (8, 5)] {
        let out = attended(Level::best(), 1, dim, 5, &[3, tokens, 2]);
        for token in [0, tokens / 2, tokens - 1] {
            for head in 0..HEADS {
                let got = &out[((3 + token) * HEADS + head) * dim..][..dim];
                for (got, want) in got.iter().zip(reference(6, tokens, dim, token, head)) {
                    let close = (f64::from(*got) - want).abs() < 2e-5;
                    assert!(close, "{dim} {tokens} {token} {head}: {got} is not {want}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_text_does_not_depend_on_its_neighbours_threads_or_level(
        before in 1..40usize, tokens in 1..70usize, after in 1..40usize, threads in 1..4usize,
    ) {
        let alone = attended(Level::available()[0], 1, 32, 8, &[tokens]);
        for level in Level::available() {
            let out = attended(level, threads, 32, 7, &[before, tokens, after]);
            let among = &out[before * HEADS * 32..][..tokens * HEADS * 32];
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(among), bits(&alone), "{}", level);
        }
    }
}
