//! Weights and inputs for tests.

#![allow(clippy::unwrap_used)]
use super::block_type::BlockType;
use super::weight::Weight;
use crate::MappedFile;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::io::Write;
use std::sync::Arc;

/// Numbers that look random, in [-1, 1).
pub(super) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// The type by candle's name.
pub(super) fn ggml(dtype: BlockType) -> GgmlDType {
    match dtype {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
    }
}

/// `values` (`[rows, cols]`) as candle quantises them.
pub(super) fn quantised(dtype: BlockType, values: Vec<f32>, rows: usize, cols: usize) -> QTensor {
    let tensor = Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, ggml(dtype)).unwrap()
}

/// A weight whose file holds these bytes.
pub(super) fn mapped(dtype: BlockType, bytes: &[u8], rows: usize, cols: usize) -> Weight {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let map = Arc::new(MappedFile::open(file.path()).unwrap());
    Weight::mapped(map, 0, dtype, rows, cols).unwrap()
}

/// A weight of noise.
pub(super) fn weight(dtype: BlockType, rows: usize, cols: usize, seed: u64) -> Weight {
    let tensor = quantised(dtype, noise(rows * cols, seed), rows, cols);
    mapped(dtype, &tensor.data().unwrap(), rows, cols)
}
