//! What repacked weights are worth, how much they take, and what is refused.

#![allow(clippy::unwrap_used)]
use super::super::testing::{mapped, noise, quantised, weight};
use super::*;
use candle_core::Device;

fn rows_of(weight: &Weight) -> Vec<u32> {
    let mut row = vec![f32::NAN; weight.cols()];
    let mut all = Vec::new();
    for index in 0..weight.rows() {
        weight.row_into(index, &mut row);
        all.extend(row.iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn rows_are_exactly_what_gguf_defines_before_and_after_repacking() {
    let cpu = Cpu::new(3).unwrap();
    for dtype in BlockType::ALL {
        let (rows, cols) = (37, 512);
        // Of very different magnitudes, so that every bit of the small scales of K-types is used.
        let scales = noise(rows * cols / 16, 8);
        let mut values = noise(rows * cols, 7);
        for (k, value) in values.iter_mut().enumerate() {
            *value *= (3.0 * scales[k / 16]).exp();
        }
        let tensor = quantised(dtype, values, rows, cols);
        let want = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        let want: Vec<u32> = want.to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
        let weight = mapped(dtype, &tensor.data().unwrap(), rows, cols);
        assert!(!weight.is_repacked());
        assert!(rows_of(&weight) == want, "{dtype} in the file");
        cpu.repack([&weight]).unwrap();
        assert!(weight.is_repacked());
        assert!(rows_of(&weight) == want, "{dtype} in tiles");
    }
}

#[test]
fn every_bit_of_a_block_comes_back_from_tiles() {
    let cpu = Cpu::new(1).unwrap();
    for dtype in BlockType::ALL {
        let len = 19 * 512 / dtype.elements() * dtype.bytes();
        // All bytes but the exponents of half-precision numbers are random.
        let bytes: Vec<u8> = noise(len, 5).iter().map(|x| (x * 128.0) as i8 as u8).collect();
        let weight = mapped(dtype, &bytes, 19, 512);
        let before = rows_of(&weight);
        cpu.repack([&weight]).ok();
        let same =
            |a: &u32, b: &u32| a == b || f32::from_bits(*a).is_nan() && f32::from_bits(*b).is_nan();
        assert!(before.iter().zip(&rows_of(&weight)).all(|(a, b)| same(a, b)), "{dtype}");
    }
}

#[test]
fn repacked_weights_take_at_most_a_tenth_more() {
    for dtype in BlockType::ALL {
        for (rows, cols) in [(576, 768), (192, 256), (1536, 8960), (640, 2048)] {
            let blocks = cols / dtype.elements();
            let in_file = rows * blocks * dtype.bytes();
            let repacked = rows / TILE_ROWS * tiles::tile_bytes(dtype, cols);
            assert!(repacked * 10 <= in_file * 11, "{dtype}: {repacked} for {in_file}");
        }
    }
}

#[test]
fn weights_repacked_together_share_one_memory_and_clones_share_tiles() {
    let cpu = Cpu::new(2).unwrap();
    let weights = [weight(BlockType::Q4_1, 33, 64, 1), weight(BlockType::Q8_0, 16, 64, 2)];
    let clone = weights[0].clone();
    cpu.repack(weights.iter().chain([&clone])).unwrap();
    let [first, second] = [&weights[0], &weights[1]].map(|weight| weight.tiles().as_ptr_range());
    assert!(first.end == second.start || second.end == first.start);
    assert_eq!(weights[0].tiles().as_ptr(), clone.tiles().as_ptr());
    // Nothing is made twice.
    let before = weights[1].tiles().as_ptr();
    cpu.repack(&weights).unwrap();
    assert_eq!(weights[1].tiles().as_ptr(), before);
}

#[test]
fn shapes_whose_size_overflows_lie_outside_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &[0; 64]).unwrap();
    let map = Arc::new(MappedFile::open(file.path()).unwrap());
    let mapped =
        |start, rows, cols| Weight::mapped(Arc::clone(&map), start, BlockType::F32, rows, cols);
    assert!(mapped(0, 4, 4).is_ok());
    for (start, rows, cols) in [(0, 1, 1 << 62), (0, 1 << 62, 1), (usize::MAX, 1, 1)] {
        let refused = mapped(start, rows, cols);
        assert!(matches!(refused, Err(WeightError::OutOfFile { .. })), "{rows} x {cols}");
    }
}

#[test]
fn a_weight_beyond_the_file_or_of_broken_rows_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &[0; 256]).unwrap();
    let map = Arc::new(MappedFile::open(file.path()).unwrap());
    let make =
        |start, rows, cols| Weight::mapped(Arc::clone(&map), start, BlockType::Q4_1, rows, cols);
    assert!(make(0, 12, 32).is_ok());
    assert!(make(0, 13, 32).is_err());
    assert!(make(17, 12, 32).is_err());
    let refused = make(0, 2, 33).unwrap_err().to_string();
    assert_eq!(refused, "rows of 33 elements are not whole blocks of 32 (Q4_1)");
    assert!(make(usize::MAX, 2, 32).is_err());
    assert!(make(2, usize::MAX, 32).is_err());
}

#[test]
fn the_first_block_that_is_not_finite_is_named() {
    let cpu = Cpu::new(3).unwrap();
    for dtype in BlockType::ALL {
        let row = 512 / dtype.elements() * dtype.bytes();
        let (mut bytes, last) = (vec![0; 37 * row], dtype.bytes() - 2);
        assert_eq!(cpu.repack([&mapped(dtype, &bytes, 37, 512)]), Ok(()));
        // Every byte of a block is of no other: its scale, wherever that lies, is not a number.
        for block in [row + dtype.bytes(), 20 * row] {
            bytes[block..][..last + 2].fill(0xff);
        }
        let weight = mapped(dtype, &bytes, 37, 512);
        let at = weight.0.start + row + dtype.bytes();
        assert_eq!(cpu.repack([&weight]), Err(NotFinite { at }), "{dtype}");
    }
}
