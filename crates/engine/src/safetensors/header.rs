//! The header: read once, strictly, in bounded memory.

use super::SafetensorsError;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Longest header: that of a model with a hundred thousand tensors.
pub const HEADER_BYTES_MAX: usize = 16 << 20;
/// Most tensors.
pub const TENSORS_MAX: usize = 1 << 17;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 8;
/// As much of a name or of a parser's complaint as an error repeats.
const QUOTED_CHARS_MAX: usize = 120;

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A tensor whose data was found to lie within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// A tensor as the header has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTensor<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors in the header's order.
struct Wire<'a>(Vec<(Cow<'a, str>, WireTensor<'a>)>);

/// Where the data begins, and each tensor's place, of a whole file.
///
/// # Errors
/// When the header is no header, or a tensor is not where the header says: outside the file, over another, or
/// not as large as its shape and type make it.
pub fn parse_header(
    file: &[u8],
) -> Result<(usize, BTreeMap<String, TensorPlace>), SafetensorsError> {
    let len = file.len();
    let (length, rest) = file.split_first_chunk::<8>().ok_or(SafetensorsError::TooShort { len })?;
    let length = u64::from_le_bytes(*length);
    let impossible = || SafetensorsError::HeaderLength { length, len };
    let header_len = usize::try_from(length).map_err(|_| impossible())?;
    if header_len > HEADER_BYTES_MAX || header_len > rest.len() {
        return Err(impossible());
    }
    let header = &rest[..header_len];
    let wire: Wire<'_> = serde_json::from_slice(header).map_err(|error| wrong(header, &error))?;
    let data = 8 + header_len;
    let mut places = Vec::with_capacity(wire.0.len());
    for (name, tensor) in wire.0 {
        places.push((name.into_owned(), place(&tensor, data, len)));
    }
    let mut tensors = BTreeMap::new();
    for (name, placed) in places {
        let placed = placed.map_err(|(offset, reason)| tensor_error(&name, offset, reason))?;
        if tensors.insert(name.clone(), placed).is_some() {
            return Err(tensor_error(&name, data as u64, "two tensors have this name".into()));
        }
    }
    check_cover(&tensors, data, len)?;
    Ok((data, tensors))
}

/// Type, shape and bytes of one tensor, or where and why it is impossible.
fn place(tensor: &WireTensor<'_>, data: usize, len: usize) -> Result<TensorPlace, (u64, String)> {
    let (begin, end) = tensor.data_offsets;
    let start = (data as u64).saturating_add(begin);
    let refuse = |reason: String| Err((start, reason));
    let Some(dtype) = Dtype::parse(&tensor.dtype) else {
        return refuse(format!("its type {:?} is unknown", quoted(&tensor.dtype)));
    };
    if tensor.shape.len() > DIMENSIONS_MAX {
        return refuse(format!("it has more than {DIMENSIONS_MAX} dimensions"));
    }
    let shape: Option<Vec<usize>> =
        tensor.shape.iter().map(|dimension| usize::try_from(*dimension).ok()).collect();
    let count = |shape: &Vec<usize>| {
        shape.iter().try_fold(dtype.bytes(), |bytes, dimension| bytes.checked_mul(*dimension))
    };
    let (Some(bytes), Some(shape)) = (shape.as_ref().and_then(count), shape) else {
        return refuse(format!("its shape {:?} is larger than memory", tensor.shape));
    };
    if end < begin || end > (len - data) as u64 {
        let (last, of) = ((data as u64).saturating_add(end), len);
        return refuse(format!(
            "it ends at byte {last} of a file of {of}; the file is cut short or damaged"
        ));
    }
    if end - begin != bytes as u64 {
        let found = end - begin;
        return refuse(format!("{shape:?} of {dtype:?} takes {bytes} bytes, and it has {found}"));
    }
    Ok(TensorPlace { dtype, shape, start: data + begin as usize, end: data + end as usize })
}

/// The data is the tensors, each byte of it of one: no holes in which something hides, nothing twice.
fn check_cover(
    tensors: &BTreeMap<String, TensorPlace>,
    data: usize,
    len: usize,
) -> Result<(), SafetensorsError> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|(_, place)| (place.start, place.end));
    let mut reached = data;
    for (name, place) in by_place {
        let reason = match place.start.cmp(&reached) {
            std::cmp::Ordering::Equal => {
                reached = place.end;
                continue;
            }
            std::cmp::Ordering::Less => {
                format!("it overlaps another, which ends at byte {reached}")
            }
            std::cmp::Ordering::Greater => format!("the bytes from {reached} on are no tensor's"),
        };
        return Err(tensor_error(name, place.start as u64, reason));
    }
    if reached != len {
        let reason = format!("the file goes on to byte {len} after its last tensor");
        return Err(SafetensorsError::Header { offset: reached, reason });
    }
    Ok(())
}

fn tensor_error(name: &str, offset: u64, reason: String) -> SafetensorsError {
    SafetensorsError::Tensor { name: quoted(name), offset, reason }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

/// serde counts lines and columns; a file has bytes.
fn wrong(header: &[u8], error: &serde_json::Error) -> SafetensorsError {
    let lines = header.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    let offset = 8 + before + error.column().saturating_sub(1);
    let reason = error.to_string();
    let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
    SafetensorsError::Header { offset, reason: quoted(reason) }
}

impl<'de> Deserialize<'de> for Wire<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut tensors = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
            }
            tensors.push((name, map.next_value()?));
        }
        Ok(Wire(tensors))
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
