//! A GGUF file: metadata by name, tensors in place in a memory map.
//!
//! Parsing is candle-core's (it bounds every length by the file's size, but a lie can still make it panic,
//! which is caught); this adds typed access with
//! errors that name the key, and keeps count of the tensors used, so that a model with a part we do not
//! implement is refused and never run without it.

use crate::error::panic_message;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use inferno_kernels::MappedFile;
use inferno_kernels::cpu::{BlockType, Weight, WeightError};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Not a GGUF file, or a damaged one.
    #[error("not a readable GGUF file: {0}")]
    Format(String),
    /// A metadata key is absent.
    #[error("the metadata key {0} is missing")]
    MissingKey(String),
    /// A metadata value is of another kind or out of range.
    #[error("the metadata key {key} is not {expected}")]
    WrongValue {
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A tensor is absent.
    #[error("the tensor {0} is missing")]
    MissingTensor(String),
    /// A tensor has another shape than the metadata says.
    #[error("the tensor {name} has the shape {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the metadata calls for.
        expected: Vec<usize>,
    },
    /// A tensor is of a type without a kernel.
    #[error("the tensor {name} is of type {found:?}; supported are {}", supported())]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: GgmlDType,
    },
    /// A tensor's data cannot be used.
    #[error("the tensor {name}: {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why.
        source: WeightError,
    },
}

/// The type of a tensor's blocks, where there are kernels for it.
fn block_type(dtype: GgmlDType) -> Option<BlockType> {
    Some(match dtype {
        GgmlDType::F32 => BlockType::F32,
        GgmlDType::F16 => BlockType::F16,
        GgmlDType::BF16 => BlockType::BF16,
        GgmlDType::Q4_0 => BlockType::Q4_0,
        GgmlDType::Q4_1 => BlockType::Q4_1,
        GgmlDType::Q5_0 => BlockType::Q5_0,
        GgmlDType::Q5_1 => BlockType::Q5_1,
        GgmlDType::Q8_0 => BlockType::Q8_0,
        GgmlDType::Q4K => BlockType::Q4K,
        GgmlDType::Q5K => BlockType::Q5K,
        GgmlDType::Q6K => BlockType::Q6K,
        GgmlDType::Q8_1 | GgmlDType::Q2K | GgmlDType::Q3K | GgmlDType::Q8K => return None,
    })
}

/// The types that there are kernels for.
fn supported() -> String {
    BlockType::ALL.map(|dtype| dtype.to_string()).join(", ")
}

/// What candle-core says, without the backtrace that it takes along where backtraces are switched on.
fn plain(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(inner),
        other => other.to_string(),
    }
}

/// Header and metadata of a file. A header that makes the parser panic (an alignment of 0 does) is a damaged
/// one.
fn parse(bytes: &[u8]) -> Result<Content, GgufError> {
    match catch_unwind(|| Content::read(&mut Cursor::new(bytes))) {
        Ok(content) => content.map_err(|error| GgufError::Format(plain(&error))),
        Err(panic) => Err(GgufError::Format(panic_message(panic.as_ref()))),
    }
}

/// An open GGUF file.
pub struct GgufFile {
    map: Arc<MappedFile>,
    content: Content,
    used: BTreeSet<String>,
}

impl GgufFile {
    /// Maps and parses the file.
    ///
    /// # Errors
    /// The outer error when it cannot be mapped, the inner one when it is not GGUF.
    pub fn open(path: &Path) -> std::io::Result<Result<Self, GgufError>> {
        let map = Arc::new(MappedFile::open(path)?);
        Ok(parse(&map).map(|content| Self { map, content, used: BTreeSet::new() }))
    }

    /// A value that may be absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// An unsigned integer of any width that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let wrong = || GgufError::WrongValue { key: key.into(), expected: "an unsigned integer" };
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::U8(n)) => i128::from(*n),
            Some(Value::I8(n)) => i128::from(*n),
            Some(Value::U16(n)) => i128::from(*n),
            Some(Value::I16(n)) => i128::from(*n),
            Some(Value::U32(n)) => i128::from(*n),
            Some(Value::I32(n)) => i128::from(*n),
            Some(Value::U64(n)) => i128::from(*n),
            Some(Value::I64(n)) => i128::from(*n),
            Some(_) => return Err(wrong()),
        };
        usize::try_from(number).map(Some).map_err(|_| wrong())
    }

    /// An unsigned integer that must be there and at least 1.
    ///
    /// # Errors
    /// When it is not.
    pub fn count(&self, key: &str) -> Result<usize, GgufError> {
        match self.integer(key)? {
            None => Err(GgufError::MissingKey(key.into())),
            Some(0) => Err(GgufError::WrongValue { key: key.into(), expected: "at least 1" }),
            Some(n) => Ok(n),
        }
    }

    /// A floating-point number that may be absent.
    ///
    /// # Errors
    /// When the value is something else or not finite.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(x)) if x.is_finite() => Ok(Some(*x)),
            Some(_) => {
                Err(GgufError::WrongValue { key: key.into(), expected: "a finite 32-bit float" })
            }
        }
    }

    /// A flag that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(GgufError::WrongValue { key: key.into(), expected: "a flag" }),
        }
    }

    /// A string that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(GgufError::WrongValue { key: key.into(), expected: "a string" }),
        }
    }

    /// A list of strings that must be there.
    ///
    /// # Errors
    /// When it is absent or something else.
    pub fn texts<'f>(&'f self, key: &str) -> Result<Vec<&'f str>, GgufError> {
        let wrong = || GgufError::WrongValue { key: key.into(), expected: "a list of strings" };
        let Some(value) = self.get(key) else { return Err(GgufError::MissingKey(key.into())) };
        let Value::Array(items) = value else { return Err(wrong()) };
        let text = |item: &'f Value| {
            if let Value::String(text) = item { Some(text.as_str()) } else { None }
        };
        items.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The matrix `[rows, cols]` of this name, in place.
    ///
    /// # Errors
    /// When it is absent, has another shape or reaches past the end of the file.
    pub fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight, GgufError> {
        self.tensor(name, &[rows, cols], rows, cols)
    }

    /// The matrix of this name with `cols` columns and as many rows as it has.
    ///
    /// # Errors
    /// As [`GgufFile::weight`].
    pub fn tall_weight(&mut self, name: &str, cols: usize) -> Result<Weight, GgufError> {
        let rows = self.content.tensor_infos.get(name).and_then(|info| info.shape.dims().first());
        let rows = *rows.ok_or_else(|| GgufError::MissingTensor(name.into()))?;
        self.weight(name, rows, cols)
    }

    /// The vector of `len` elements of this name, widened to floats.
    ///
    /// # Errors
    /// As [`GgufFile::weight`].
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, GgufError> {
        let weight = self.tensor(name, &[len], 1, len)?;
        let mut vector = vec![0.0; len];
        weight.row_into(0, &mut vector);
        Ok(vector)
    }

    /// The vector of `len` elements of this name, as a matrix of one row.
    ///
    /// # Errors
    /// As [`GgufFile::weight`].
    pub fn row_weight(&mut self, name: &str, len: usize) -> Result<Weight, GgufError> {
        self.tensor(name, &[len], 1, len)
    }

    /// The `count` matrices `[rows, cols]` that lie one after the other in the tensor of this name.
    ///
    /// # Errors
    /// As [`GgufFile::weight`].
    pub fn stacked_weights(
        &mut self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Weight>, GgufError> {
        // All of them as one, to check shape and bounds.
        let whole = self.tensor(name, &[count, rows, cols], count.saturating_mul(rows), cols)?;
        let start = self.tensor_start(name)?;
        let matrix = |number: usize| {
            let start = start + number * (whole.bytes() / count);
            Weight::mapped(Arc::clone(&self.map), start, whole.dtype(), rows, cols)
                .map_err(|source| GgufError::Tensor { name: name.into(), source })
        };
        (0..count).map(matrix).collect()
    }

    /// Where the data of a tensor begins. An offset beyond the address space is beyond the file too, which
    /// `Weight::mapped` reports.
    fn tensor_start(&self, name: &str) -> Result<usize, GgufError> {
        let info = self.content.tensor_infos.get(name);
        let info = info.ok_or_else(|| GgufError::MissingTensor(name.into()))?;
        let start = self.content.tensor_data_offset.saturating_add(info.offset);
        Ok(usize::try_from(start).unwrap_or(usize::MAX))
    }

    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        rows: usize,
        cols: usize,
    ) -> Result<Weight, GgufError> {
        let info = self.content.tensor_infos.get(name);
        let info = info.ok_or_else(|| GgufError::MissingTensor(name.into()))?;
        if info.shape.dims() != shape {
            let (found, expected) = (info.shape.dims().to_vec(), shape.to_vec());
            return Err(GgufError::Shape { name: name.into(), found, expected });
        }
        let start = self.tensor_start(name)?;
        let dtype = block_type(info.ggml_dtype)
            .ok_or_else(|| GgufError::Type { name: name.into(), found: info.ggml_dtype })?;
        let weight = Weight::mapped(Arc::clone(&self.map), start, dtype, rows, cols)
            .map_err(|source| GgufError::Tensor { name: name.into(), source })?;
        self.used.insert(name.into());
        Ok(weight)
    }

    /// The names of tensors that nobody asked for, sorted.
    pub fn unused(&self) -> Vec<&str> {
        let names = self.content.tensor_infos.keys().map(String::as_str);
        let mut unused: Vec<&str> = names.filter(|name| !self.used.contains(*name)).collect();
        unused.sort_unstable();
        unused
    }

    /// The whole file.
    pub fn bytes(&self) -> Arc<MappedFile> {
        Arc::clone(&self.map)
    }

    /// Elements over all tensors.
    pub fn parameters(&self) -> u64 {
        self.content.tensor_infos.values().map(|info| info.shape.elem_count() as u64).sum()
    }
}
