//! A safetensors file: tensors by name, in place in a memory map.
//!
//! The format (huggingface.co/docs/safetensors): eight bytes with the header's length, the header, a JSON
//! object with type, shape and place of each tensor, then the data, without holes. The reader is our own, so
//! that each mistake names its place and a hostile header costs no more memory than a few times itself.

use inferno_kernels::MappedFile;
use inferno_kernels::cpu::{BlockType, Weight, WeightError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

mod header;

pub use header::{Dtype, HEADER_BYTES_MAX, TENSORS_MAX, TensorPlace, parse_header};

/// What is wrong with a file. Offsets are bytes from its beginning.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// Too short for anything.
    #[error("it has {len} bytes, and the length of its header alone takes 8")]
    TooShort {
        /// Bytes in the file.
        len: usize,
    },
    /// The header cannot be as long as it says.
    #[error(
        "byte 0: the header is said to have {length} bytes; the file has {len}, and {HEADER_BYTES_MAX} is the limit"
    )]
    HeaderLength {
        /// What the file says.
        length: u64,
        /// Bytes in the file.
        len: usize,
    },
    /// The header is not what a header has to be.
    #[error("byte {offset}: the header is wrong: {reason}")]
    Header {
        /// Where it was noticed.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of the header is impossible.
    #[error("the tensor {name:?} at byte {offset}: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// Where its data begins, or would.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the model needs is absent.
    #[error("the tensor {0:?} is missing")]
    Missing(String),
    /// A tensor has another shape than the configuration says.
    #[error("the tensor {name:?} has the shape {found:?}, and config.json calls for {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the configuration calls for.
        expected: Vec<usize>,
    },
    /// A tensor's data cannot be used.
    #[error("the tensor {name:?}: {source}")]
    Weight {
        /// Its name.
        name: String,
        /// Why.
        source: WeightError,
    },
}

/// An open safetensors file.
pub struct SafetensorsFile {
    map: Arc<MappedFile>,
    tensors: BTreeMap<String, TensorPlace>,
    used: BTreeSet<String>,
}

impl SafetensorsFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// The outer error when it cannot be mapped, the inner one when it is no safetensors file.
    pub fn open(path: &Path) -> std::io::Result<Result<Self, SafetensorsError>> {
        let map = Arc::new(MappedFile::open(path)?);
        let parsed = parse_header(&map);
        Ok(parsed.map(|(_, tensors)| Self { map, tensors, used: BTreeSet::new() }))
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A matrix `[rows, cols]` of floats, in place.
    ///
    /// # Errors
    /// When it is absent, of another shape or no floats, or when one of them is not a finite number.
    pub fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Weight, SafetensorsError> {
        self.take(name, &[rows, cols])
    }

    /// A vector `[len]`, widened to single precision.
    ///
    /// # Errors
    /// As [`SafetensorsFile::matrix`].
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, SafetensorsError> {
        let weight = self.take(name, &[len])?;
        let mut vector = vec![0.0; len];
        weight.row_into(0, &mut vector);
        Ok(vector)
    }

    /// Tensors that nobody took.
    #[must_use]
    pub fn unused(&self) -> Vec<&str> {
        self.tensors.keys().filter(|name| !self.used.contains(*name)).map(String::as_str).collect()
    }

    /// Numbers in all tensors that somebody took.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let used = self.tensors.iter().filter(|(name, _)| self.used.contains(*name));
        used.map(|(_, place)| place.shape.iter().product::<usize>() as u64).sum()
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, SafetensorsError> {
        let missing = || SafetensorsError::Missing(name.into());
        let place = self.tensors.get(name).ok_or_else(missing)?;
        if place.shape != shape {
            let (found, expected) = (place.shape.clone(), shape.to_vec());
            return Err(SafetensorsError::Shape { name: name.into(), found, expected });
        }
        let wrong = |offset: usize, reason: String| SafetensorsError::Tensor {
            name: name.into(),
            offset: offset as u64,
            reason,
        };
        let dtype = match place.dtype {
            Dtype::F32 => BlockType::F32,
            Dtype::F16 => BlockType::F16,
            Dtype::BF16 => BlockType::BF16,
            other => {
                let reason = format!("its type {other:?} is no weight's; F32, F16 and BF16 are");
                return Err(wrong(place.start, reason));
            }
        };
        let bytes = &self.map[place.start..place.end];
        if let Some(at) = first_not_finite(bytes, place.dtype) {
            return Err(wrong(
                place.start,
                format!("the number at byte {} is not finite", place.start + at),
            ));
        }
        let (rows, cols) = (shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1]);
        let weight = Weight::mapped(Arc::clone(&self.map), place.start, dtype, rows, cols)
            .map_err(|source| SafetensorsError::Weight { name: name.into(), source })?;
        self.used.insert(name.into());
        Ok(weight)
    }
}

/// Where in `bytes` the first infinity or NaN stands: a float whose exponent is all ones.
fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<usize> {
    fn find<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
        let (numbers, _) = bytes.as_chunks::<N>();
        numbers.iter().position(|number| is_bad(*number)).map(|index| index * N)
    }
    match dtype {
        Dtype::F32 => find::<4>(bytes, |x| u32::from_le_bytes(x) & 0x7f80_0000 == 0x7f80_0000),
        Dtype::F16 => find::<2>(bytes, |x| u16::from_le_bytes(x) & 0x7c00 == 0x7c00),
        Dtype::BF16 => find::<2>(bytes, |x| u16::from_le_bytes(x) & 0x7f80 == 0x7f80),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
