//! A quantised matrix that stays in its memory map.

use crate::MappedFile;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants as kq;
use std::sync::Arc;

/// Why a tensor cannot be used as a weight.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A row is not a whole number of quantisation blocks.
    #[error("rows of {cols} elements are not whole blocks of {block} ({dtype:?})")]
    PartialBlock {
        /// Elements in a row.
        cols: usize,
        /// Elements in a block of this type.
        block: usize,
        /// The type.
        dtype: GgmlDType,
    },
    /// The tensor reaches past the end of the file, which is therefore cut short or not what it says.
    #[error("the tensor needs bytes {start}..{end} of a file of {len}")]
    OutOfFile {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Bytes in the file.
        len: usize,
    },
    /// The data does not start where its type may start.
    #[error("the tensor's data at byte {start} is not aligned for {dtype:?}")]
    Misaligned {
        /// First byte.
        start: usize,
        /// The type.
        dtype: GgmlDType,
    },
}

/// A matrix `[rows, cols]` in a GGUF block type, read in place from a memory map: no copy, and engines of
/// one host that use the same file share its pages.
#[derive(Clone, Debug)]
pub struct Weight {
    file: Arc<MappedFile>,
    start: usize,
    dtype: GgmlDType,
    rows: usize,
    cols: usize,
}

/// Evaluates `$body` with `$T` as the block type of `$dtype`.
macro_rules! with_block_type {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use candle_core::quantized::GgmlDType as D;
        use candle_core::quantized::k_quants as kq;
        match $dtype {
            D::F32 => {
                type $T = f32;
                $body
            }
            D::F16 => {
                type $T = half::f16;
                $body
            }
            D::BF16 => {
                type $T = half::bf16;
                $body
            }
            D::Q4_0 => {
                type $T = kq::BlockQ4_0;
                $body
            }
            D::Q4_1 => {
                type $T = kq::BlockQ4_1;
                $body
            }
            D::Q5_0 => {
                type $T = kq::BlockQ5_0;
                $body
            }
            D::Q5_1 => {
                type $T = kq::BlockQ5_1;
                $body
            }
            D::Q8_0 => {
                type $T = kq::BlockQ8_0;
                $body
            }
            D::Q8_1 => {
                type $T = kq::BlockQ8_1;
                $body
            }
            D::Q2K => {
                type $T = kq::BlockQ2K;
                $body
            }
            D::Q3K => {
                type $T = kq::BlockQ3K;
                $body
            }
            D::Q4K => {
                type $T = kq::BlockQ4K;
                $body
            }
            D::Q5K => {
                type $T = kq::BlockQ5K;
                $body
            }
            D::Q6K => {
                type $T = kq::BlockQ6K;
                $body
            }
            D::Q8K => {
                type $T = kq::BlockQ8K;
                $body
            }
        }
    }};
}
pub(super) use with_block_type;

/// A GGUF block type: `repr(C)` plain data without padding, for which every bit pattern is a value.
///
/// # Safety
/// Implementors promise exactly that, which lets bytes of a file be read as blocks.
pub(super) unsafe trait Block: Sized + Sync {}

macro_rules! blocks {
    ($($T:ty),* $(,)?) => {$(
        // SAFETY: candle declares it `repr(C)` with fields of integers, floats and arrays of them only.
        unsafe impl Block for $T {}
    )*};
}
blocks!(
    f32,
    half::f16,
    half::bf16,
    kq::BlockQ4_0,
    kq::BlockQ4_1,
    kq::BlockQ5_0,
    kq::BlockQ5_1,
    kq::BlockQ8_0,
    kq::BlockQ8_1,
    kq::BlockQ2K,
    kq::BlockQ3K,
    kq::BlockQ4K,
    kq::BlockQ5K,
    kq::BlockQ6K,
    kq::BlockQ8K,
);

impl Weight {
    /// The matrix `[rows, cols]` whose blocks begin at byte `start` of `file`.
    ///
    /// # Errors
    /// When rows are not whole blocks, or the data is out of bounds or misaligned.
    pub fn mapped(
        file: Arc<MappedFile>,
        start: usize,
        dtype: GgmlDType,
        rows: usize,
        cols: usize,
    ) -> Result<Self, WeightError> {
        let block = dtype.block_size();
        if !cols.is_multiple_of(block) {
            return Err(WeightError::PartialBlock { cols, block, dtype });
        }
        let end = (cols / block)
            .checked_mul(dtype.type_size())
            .and_then(|row| row.checked_mul(rows))
            .and_then(|bytes| bytes.checked_add(start))
            .unwrap_or(usize::MAX);
        if end > file.len() {
            return Err(WeightError::OutOfFile { start, end, len: file.len() });
        }
        let weight = Self { file, start, dtype, rows, cols };
        if !(weight.file.as_ptr() as usize + start).is_multiple_of(weight.align()) {
            return Err(WeightError::Misaligned { start, dtype });
        }
        Ok(weight)
    }

    /// What the addresses of its blocks are multiples of.
    fn align(&self) -> usize {
        with_block_type!(self.dtype, T => align_of::<T>())
    }

    /// Rows: the width of what a product with this matrix gives.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the width of what it is multiplied with.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The type of its blocks.
    #[must_use]
    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    /// Bytes it takes in the file.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows * (self.cols / self.dtype.block_size() * self.dtype.type_size())
    }

    /// Writes row `index`, widened to floats, into `out` (`[cols]`).
    ///
    /// # Panics
    /// When there is no such row, or `out` is not as long as one.
    pub fn row_into(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "a row has {} elements", self.cols);
        with_block_type!(self.dtype, T => {
            let blocks = self.cols / self.dtype.block_size();
            <T as kq::GgmlType>::to_float(&self.blocks::<T>()[index * blocks..][..blocks], out);
        });
    }

    /// All blocks, row after row. `T` is a block type for [`Weight::dtype`].
    pub(super) fn blocks<T: Block>(&self) -> &[T] {
        assert_eq!(size_of::<T>(), self.dtype.type_size(), "the block type is not the weight's");
        assert!(align_of::<T>() <= self.align(), "the block type is not the weight's");
        let bytes = &self.file[self.start..][..self.bytes()];
        // SAFETY: the constructor checked bounds and alignment for this type, and the bytes are valid
        // for it by the promise of `Block`. The slice borrows `self`, which keeps the map alive.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shapes_whose_size_overflows_lie_outside_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &[0; 64]).unwrap();
        let map = Arc::new(MappedFile::open(file.path()).unwrap());
        let mapped =
            |start, rows, cols| Weight::mapped(Arc::clone(&map), start, GgmlDType::F32, rows, cols);
        assert!(mapped(0, 4, 4).is_ok());
        for (start, rows, cols) in [(0, 1, 1 << 62), (0, 1 << 62, 1), (usize::MAX, 1, 1)] {
            let refused = mapped(start, rows, cols);
            assert!(matches!(refused, Err(WeightError::OutOfFile { .. })), "{rows} x {cols}");
        }
    }
}
