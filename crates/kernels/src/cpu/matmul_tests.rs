//! Products against double precision, and against themselves on every level, thread count and batch size.

#![allow(clippy::unwrap_used)]
use super::super::block_type::BlockType;
use super::super::testing::{mapped, noise, weight};
use super::*;
use crate::Level;
use proptest::prelude::*;

/// The numbers of input rows at which the shape of kernels or the cut into parts changes.
const ROWS: [usize; 9] = [1, 2, 3, 5, 8, 16, 17, 64, 130];

fn product(cpu: &Cpu, weights: &[Weight], x: &[f32]) -> Vec<f32> {
    let rows = x.len() / weights[0].cols();
    let mut out = vec![f32::NAN; rows * weights.iter().map(Weight::rows).sum::<usize>()];
    cpu.matmul(weights, x, &mut out);
    out
}

/// Bits to compare by; whatever is not a number is the same.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
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
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn products_are_close_to_the_definition(
        kind in 0..BlockType::ALL.len(), rows in 1..7usize, n in 1..41usize, blocks in 1..4usize,
        seed: u64,
    ) {
        let dtype = BlockType::ALL[kind];
        let weight = weight(dtype, n, blocks * 256, seed);
        let x = noise(rows * blocks * 256, !seed);
        let out = product(&Cpu::new(2).unwrap(), std::slice::from_ref(&weight), &x);
        // Eight bits of input: an error of at most 1/254 of the largest, evenly spread and of either sign, for
        // weights of about 0.6. Six deviations of their sum; floats are nearly exact.
        let deviation = (blocks as f64 * 256.0).sqrt() * 0.6 / 254.0 / 3f64.sqrt();
        let tolerance = if dtype.elements() == 1 { 1e-4 } else { 6.0 * deviation };
        for (got, want) in out.iter().zip(reference(&weight, &x)) {
            prop_assert!((f64::from(*got) - want).abs() < tolerance, "{} is not {}", got, want);
        }
    }
}

/// One row, on one thread, by the definition.
fn alone(weight: &Weight, x: &[f32]) -> Vec<u32> {
    let plain = Cpu::with_level(1, Level::available()[0]).unwrap();
    bits(&product(&plain, std::slice::from_ref(weight), x))
}

#[test]
fn rows_do_not_depend_on_level_batch_threads_or_neighbours() {
    let cols = 512;
    for dtype in BlockType::ALL {
        let other = if dtype == BlockType::Q6K { BlockType::Q4K } else { BlockType::Q6K };
        let weights =
            [weight(dtype, 83, cols, 1), weight(other, 7, cols, 2), weight(dtype, 65, cols, 3)];
        let x = noise(130 * cols, 4);
        let want: Vec<Vec<u32>> = x
            .chunks(cols)
            .map(|x| weights.iter().flat_map(|weight| alone(weight, x)).collect())
            .collect();
        for level in Level::available() {
            for threads in [1, 2, 5] {
                let cpu = Cpu::with_level(threads, level).unwrap();
                for rows in ROWS {
                    let out = bits(&product(&cpu, &weights, &x[..rows * cols]));
                    assert!(out == want[..rows].concat(), "{dtype}, {level}, {threads}, {rows}");
                }
            }
        }
    }
}

#[test]
fn odd_numbers_of_blocks_and_columns_agree_on_all_levels() {
    for dtype in BlockType::ALL {
        for blocks in [1, 3, 5] {
            // Floats have no blocks, and any number of columns.
            let cols = if dtype.elements() == 1 { blocks * 37 } else { blocks * dtype.elements() };
            let weight = weight(dtype, 21, cols, 5);
            let x = noise(20 * cols, 6);
            let want: Vec<u32> = x.chunks(cols).flat_map(|x| alone(&weight, x)).collect();
            for level in Level::available() {
                let cpu = Cpu::with_level(2, level).unwrap();
                let out = product(&cpu, std::slice::from_ref(&weight), &x);
                assert!(bits(&out) == want, "{dtype}, {level}, {cols} columns");
            }
        }
    }
}

/// Any bytes are weights: scales that are infinite, subnormal or not numbers, codes at both ends.
#[test]
fn any_bytes_agree_on_all_levels() {
    for dtype in BlockType::ALL {
        let cols = 2 * dtype.elements().max(16);
        let block_bytes = dtype.bytes() * cols / dtype.elements();
        for seed in 0..12 {
            let random: Vec<u8> =
                noise(32 * block_bytes, seed).iter().map(|x| (x * 128.0) as i8 as u8).collect();
            let weight = mapped(dtype, &random, 32, cols);
            let mut x = noise(17 * cols, !seed);
            x[3] = 1e-38;
            x[cols..2 * cols].fill(127.0);
            x[2 * cols..3 * cols].fill(-127.0);
            x[3 * cols + 1] = f32::INFINITY;
            x[4 * cols + 1] = f32::NAN;
            x[5 * cols..6 * cols].fill(1e-40);
            x[6 * cols..7 * cols].fill(f32::MAX);
            let want: Vec<u32> = x.chunks(cols).flat_map(|x| alone(&weight, x)).collect();
            for level in Level::available() {
                let cpu = Cpu::with_level(1, level).unwrap();
                let out = bits(&product(&cpu, std::slice::from_ref(&weight), &x));
                assert!(out == want, "{dtype}, {level}, {seed}");
            }
        }
    }
}

#[test]
fn an_input_that_is_not_finite_gives_nothing_that_is() {
    for dtype in BlockType::ALL {
        let weight = weight(dtype, 16, 256, 9);
        let mut x = noise(256, 10);
        x[200] = f32::NAN;
        let out = product(&Cpu::new(1).unwrap(), &[weight], &x);
        assert!(out.iter().all(|x| x.is_nan()), "{dtype}");
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    for (code, scale) in [(0x7f, 127.0f32), (0x80, -128.0)] {
        // Scale 1 in half precision, then 32 equal codes.
        let mut block = vec![0x00, 0x3c];
        block.extend([code; 32]);
        for x in [1.0, -1.0] {
            for level in Level::available() {
                let weight = mapped(BlockType::Q8_0, &block, 1, 32);
                let cpu = Cpu::with_level(1, level).unwrap();
                assert_eq!(product(&cpu, &[weight], &[x; 32]), [32.0 * scale * x], "{level}");
            }
        }
    }
}

#[test]
fn no_rows_give_no_rows() {
    for dtype in BlockType::ALL {
        assert!(product(&Cpu::new(2).unwrap(), &[weight(dtype, 5, 256, 1)], &[]).is_empty());
    }
}

#[test]
fn parts_cover_every_tile_of_every_group_once() {
    let weights = [weight(BlockType::Q4_0, 100, 32, 1), weight(BlockType::Q4_0, 9, 32, 1)];
    let (x, mut out) = (vec![0.0; 200 * 32], vec![0.0; 200 * 109]);
    for (rows_at_once, tiles_at_once) in [(8, 1), (6, 2)] {
        for threads in [1, 2, 3, 64] {
            let product = Product {
                weights: &weights,
                x: &x,
                quantised: &[],
                cols: 32,
                groups: Groups::new(200, rows_at_once),
                tiles_at_once,
                level: Level::best(),
                out: SharedRows::new(&mut out, 109),
            };
            let plan = Plan::new(&product, threads);
            let mut seen = vec![0; 8 * product.groups.count];
            for part in 0..plan.parts() {
                let (tiles, groups) = plan.part(part);
                for group in groups {
                    tiles.clone().for_each(|tile| seen[group * 8 + tile] += 1);
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{threads} threads");
        }
    }
}
