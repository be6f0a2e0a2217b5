//! Products against double precision, and against themselves on every level, thread count and batch size.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::{Level, MappedFile};
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;

const TYPES: [GgmlDType; 5] =
    [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q5_0, GgmlDType::F32];

/// Numbers that look random, in [-1, 1).
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// A mapped weight of this type.
fn weight(dtype: GgmlDType, rows: usize, cols: usize, seed: u64) -> Weight {
    let tensor = Tensor::from_vec(noise(rows * cols, seed), (rows, cols), &Device::Cpu).unwrap();
    let quantised = QTensor::quantize(&tensor, dtype).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&quantised.data().unwrap()).unwrap();
    let map = Arc::new(MappedFile::open(file.path()).unwrap());
    Weight::mapped(map, 0, dtype, rows, cols).unwrap()
}

fn product(cpu: &Cpu, weights: &[Weight], x: &[f32]) -> Vec<f32> {
    let rows = x.len() / weights[0].cols();
    let mut out = vec![f32::NAN; rows * weights.iter().map(Weight::rows).sum::<usize>()];
    cpu.matmul(weights, x, &mut out);
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The product by definition, in double precision over the widened weights.
fn reference(weight: &Weight, x: &[f32]) -> Vec<f64> {
    let mut row = vec![0.0; weight.cols()];
    let mut out = Vec::new();
    for x in x.chunks(weight.cols()) {
        for index in 0..weight.rows() {
            weight.row_into(index, &mut row);
            out.push(row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum());
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_are_close_to_the_definition(
        kind in 0..TYPES.len(), rows in 1..7usize, n in 1..41usize, blocks in 1..5usize, seed: u64,
    ) {
        let weight = weight(TYPES[kind], n, blocks * 64, seed);
        let x = noise(rows * blocks * 64, !seed);
        let out = product(&Cpu::new(2).unwrap(), std::slice::from_ref(&weight), &x);
        // Quantising the input to 8 bits costs up to 1/254 of its largest element for each weight.
        let tolerance = (blocks * 64) as f64 / 254.0 * 0.5 + 1e-4;
        for (got, want) in out.iter().zip(reference(&weight, &x)) {
            prop_assert!((f64::from(*got) - want).abs() < tolerance, "{} is not {}", got, want);
        }
    }

    #[test]
    fn rows_do_not_depend_on_batch_threads_or_neighbours(
        kind in 0..TYPES.len(), rows in 1..20usize, seed: u64,
    ) {
        let weights = [weight(TYPES[kind], 37, 128, seed), weight(TYPES[kind], 22, 128, seed + 1)];
        let x = noise(rows * 128, !seed);
        let together = product(&Cpu::new(3).unwrap(), &weights, &x);
        let alone = Cpu::new(1).unwrap();
        for (x, row) in x.chunks(128).zip(together.chunks(59)) {
            prop_assert_eq!(bits(&product(&alone, &weights[..1], x)), bits(&row[..37]));
            prop_assert_eq!(bits(&product(&alone, &weights[1..], x)), bits(&row[37..]));
        }
    }

    #[test]
    fn every_level_gives_the_same_bits(kind in 0..3usize, rows in 1..10usize, seed: u64) {
        let weights = [weight(TYPES[kind], 19, 192, seed)];
        let x = noise(rows * 192, !seed);
        let plain = product(&Cpu::with_level(1, Level::available()[0]).unwrap(), &weights, &x);
        for level in Level::available() {
            let cpu = Cpu::with_level(2, level).unwrap();
            prop_assert_eq!(bits(&product(&cpu, &weights, &x)), bits(&plain), "{}", level);
        }
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    let cols = 64;
    for sign in [1.0f32, -1.0] {
        let tensor = Tensor::full(sign, (1, cols), &Device::Cpu).unwrap();
        let quantised = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&quantised.data().unwrap()).unwrap();
        let map = Arc::new(MappedFile::open(file.path()).unwrap());
        let weight = Weight::mapped(map, 0, GgmlDType::Q8_0, 1, cols).unwrap();
        let out = product(&Cpu::new(1).unwrap(), &[weight], &vec![1.0; cols]);
        assert!((out[0] - sign * cols as f32).abs() < 0.05, "{}", out[0]);
    }
}

#[test]
fn no_rows_give_no_rows() {
    for dtype in TYPES {
        assert!(product(&Cpu::new(2).unwrap(), &[weight(dtype, 5, 64, 1)], &[]).is_empty());
    }
}

#[test]
fn a_weight_beyond_the_file_or_of_broken_rows_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[0; 256]).unwrap();
    let map = Arc::new(MappedFile::open(file.path()).unwrap());
    let make =
        |start, rows, cols| Weight::mapped(Arc::clone(&map), start, GgmlDType::Q4_1, rows, cols);
    assert!(make(0, 12, 32).is_ok());
    assert!(make(0, 13, 32).is_err());
    assert!(make(1, 2, 32).is_err());
    assert!(make(0, 2, 33).is_err());
    assert!(make(usize::MAX, 2, 32).is_err());
    assert!(make(2, usize::MAX, 32).is_err());
}
