//! A GGUF file: metadata by name, tensors in place in a memory map.
//!
//! The reader is our own, because a model file is not to be trusted: it takes no length on the file's word,
//! holds no more than its stated limits allow, checks where every tensor lies before one is used, and says
//! at which byte something is wrong. It also keeps count of the tensors used, so that a model with a part
//! that we do not implement is refused and never run without it.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod error;
mod header;
mod reader;
mod tensor;
#[cfg(test)]
mod tests;
mod value;

pub use error::GgufError;
pub use header::{KEY_BYTES_MAX, KEYS_MAX, TENSORS_MAX};
pub use tensor::{DIMENSIONS_MAX, TENSOR_NAME_BYTES_MAX};
pub use value::{LIST_DEPTH_MAX, List, Value, WrongType};

use header::Header;
use inferno_kernels::MappedFile;
use inferno_kernels::cpu::{NotFinite, Weight};
use reader::Reader;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tensor::TensorInfo;

/// An open GGUF file.
pub struct GgufFile {
    map: Arc<MappedFile>,
    header: Header,
    used: BTreeSet<String>,
}

impl GgufFile {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// The outer error when it cannot be mapped, the inner one when it is not GGUF.
    pub fn open(path: &Path) -> std::io::Result<Result<Self, GgufError>> {
        let map = Arc::new(MappedFile::open(path)?);
        Ok(Header::parse(&map).map(|header| Self { map, header, used: BTreeSet::new() }))
    }

    /// A value that may be absent.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let place = self.header.metadata.get(key)?;
        place.value_type.value(&mut Reader::new(&self.map, place.at)).ok()
    }

    /// The error of a value that is there and is not what it should be.
    #[must_use]
    pub fn wrong(&self, key: &str, expected: &'static str) -> GgufError {
        match self.header.metadata.get(key) {
            Some(place) => GgufError::WrongValue { key: key.into(), at: place.at, expected },
            None => GgufError::MissingKey(key.into()),
        }
    }

    /// The error of an entry of a list.
    #[must_use]
    pub fn wrong_entry(&self, key: &str, index: usize, reason: impl Into<String>) -> GgufError {
        let at = self.header.metadata.get(key).map_or(0, |place| place.at);
        GgufError::WrongEntry { key: key.into(), at, index, reason: reason.into() }
    }

    /// A value as `read` understands it, or `None` where there is none.
    fn typed<'f, T>(
        &'f self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(Value<'f>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected)),
        }
    }

    /// An unsigned integer of any width that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let integer = |value: Value<'_>| value.to_u64().ok().and_then(|n| usize::try_from(n).ok());
        self.typed(key, "an unsigned integer", integer)
    }

    /// An unsigned integer that must be there and at least 1.
    ///
    /// # Errors
    /// When it is not.
    pub fn count(&self, key: &str) -> Result<usize, GgufError> {
        match self.integer(key)? {
            Some(n) if n > 0 => Ok(n),
            _ => Err(self.wrong(key, "at least 1")),
        }
    }

    /// A floating-point number that may be absent.
    ///
    /// # Errors
    /// When the value is something else or not finite.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        let finite = |value: Value<'_>| value.to_f32().ok().filter(|x| x.is_finite());
        self.typed(key, "a finite 32-bit float", finite)
    }

    /// A flag that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a flag", |value| value.to_bool().ok())
    }

    /// A string that may be absent, without the zeros that some writers put at its end.
    ///
    /// # Errors
    /// When the value is something else, or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        let text = self.typed(key, "a string in UTF-8", |value| value.to_text().ok())?;
        Ok(text.map(|text| text.trim_end_matches('\0')))
    }

    /// A list that may be absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn list(&self, key: &str) -> Result<Option<List<'_>>, GgufError> {
        let list = |value| if let Value::List(list) = value { Some(list) } else { None };
        self.typed(key, "a list", list)
    }

    /// A list that may be absent, each entry as `read` understands it.
    ///
    /// # Errors
    /// When the value is no list or an entry is something else; `expected` says what an entry should be.
    pub fn entries<'f, T>(
        &'f self,
        key: &str,
        expected: &str,
        read: impl Fn(Value<'f>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let entry = |(index, value)| {
            read(value).ok_or_else(|| self.wrong_entry(key, index, format!("is not {expected}")))
        };
        list.iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// A list of strings that must be there, in place in the file.
    ///
    /// # Errors
    /// When it is absent or something else.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>, GgufError> {
        let texts = self.entries(key, "a string in UTF-8", |value| value.to_text().ok())?;
        texts.ok_or_else(|| GgufError::MissingKey(key.into()))
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The matrix `[rows, cols]` of this name, in place.
    ///
    /// # Errors
    /// When it is absent, has another shape or a type that there are no kernels for.
    pub fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight, GgufError> {
        self.tensor(name, &[rows, cols], rows, cols)
    }

    /// The matrix of this name with `cols` columns and as many rows as it has.
    ///
    /// # Errors
    /// As [`GgufFile::weight`].
    pub fn tall_weight(&mut self, name: &str, cols: usize) -> Result<Weight, GgufError> {
        let rows = self.described(name)?.shape[0];
        self.weight(name, rows, cols)
    }

    /// The vector of `len` elements of this name, widened to floats.
    ///
    /// # Errors
    /// As [`GgufFile::weight`], and when an element is not a finite number.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, GgufError> {
        let weight = self.tensor(name, &[len], 1, len)?;
        let mut vector = vec![0.0; len];
        weight.row_into(0, &mut vector);
        match vector.iter().position(|x| !x.is_finite()) {
            None => Ok(vector),
            Some(index) => {
                let (at, value) = (self.described(name)?.start, vector[index]);
                Err(GgufError::NotFinite { name: name.into(), at, index, value })
            }
        }
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
        let start = self.described(name)?.start;
        let matrix = |number: usize| {
            let at = start + number * (whole.bytes() / count);
            Weight::mapped(Arc::clone(&self.map), at, whole.dtype(), rows, cols)
                .map_err(|source| GgufError::Tensor { name: name.into(), at, source })
        };
        (0..count).map(matrix).collect()
    }

    /// What is wrong with the contents of a weight that this file gave, with the name of its tensor.
    pub fn not_finite(&self, NotFinite { at }: NotFinite) -> GgufError {
        let before = self.header.tensors.iter().filter(|(_, info)| info.start <= at);
        let tensor = before.max_by_key(|(_, info)| info.start);
        let name = tensor.map_or_else(String::new, |(name, _)| name.clone());
        GgufError::BlockNotFinite { name, at }
    }

    fn described(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.header.tensors.get(name).ok_or_else(|| GgufError::MissingTensor(name.into()))
    }

    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        rows: usize,
        cols: usize,
    ) -> Result<Weight, GgufError> {
        let info = self.described(name)?;
        if info.shape != shape {
            let (found, expected) = (info.shape.clone(), shape.to_vec());
            return Err(GgufError::Shape { name: name.into(), found, expected });
        }
        let Some(dtype) = info.tensor_type.dtype else {
            let found = info.tensor_type.name;
            return Err(GgufError::TensorType { name: name.into(), found });
        };
        let at = info.start;
        let weight = Weight::mapped(Arc::clone(&self.map), at, dtype, rows, cols)
            .map_err(|source| GgufError::Tensor { name: name.into(), at, source })?;
        self.used.insert(name.into());
        Ok(weight)
    }

    /// The names of tensors that nobody asked for, sorted.
    pub fn unused(&self) -> Vec<&str> {
        let names = self.header.tensors.keys().map(String::as_str);
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
        self.header.tensors.values().map(TensorInfo::elements).sum()
    }
}
