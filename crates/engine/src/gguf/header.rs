//! The header of a GGUF file: every key and every tensor, checked before anything is used.
//!
//! What the header makes us hold is bounded by the limits here, whatever sizes it claims; values stay in the
//! file and are read in place.

use super::GgufError;
use super::reader::Reader;
use super::tensor::{TensorInfo, lay_out};
use super::value::ValueType;
use std::collections::HashMap;

/// Metadata keys of a file.
pub const KEYS_MAX: u64 = 16_384;
/// Bytes of a metadata key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Tensors of a file.
pub const TENSORS_MAX: u64 = 65_536;
/// Multiple of bytes at which tensors begin, unless `general.alignment` says otherwise.
const ALIGNMENT: u32 = 32;

/// Where a metadata value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) value_type: ValueType,
    pub(super) at: usize,
}

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: HashMap<String, Place>,
    pub(super) tensors: HashMap<String, TensorInfo>,
}

impl Header {
    /// Reads and checks the header of a whole file. Versions 2 and 3 are alike but for the byte order that 3
    /// allows.
    pub(super) fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(file, 0);
        check_version(&mut reader)?;
        let tensors = count(&mut reader, TENSORS_MAX, "tensors")?;
        let keys = count(&mut reader, KEYS_MAX, "metadata keys")?;
        let metadata = read_metadata(&mut reader, keys)?;
        let alignment = alignment(&metadata, file)?;
        let mut tensors = read_tensors(&mut reader, tensors)?;
        // Memory ends long before the address space does: a file that is mapped leaves room to round up.
        let data = reader.at().next_multiple_of(alignment);
        lay_out(tensors.iter_mut(), data, alignment, file.len())?;
        Ok(Self { metadata, tensors })
    }
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), GgufError> {
    let magic = *reader;
    if reader.array("the magic number")? != *b"GGUF" {
        return Err(magic.error("the file does not begin with GGUF"));
    }
    let begin = *reader;
    match reader.u32("the version")? {
        2 | 3 => Ok(()),
        version if matches!(version.swap_bytes(), 1..=3) => {
            Err(begin.error("a big-endian file; only little-endian ones are supported"))
        }
        version => Err(begin.error(format!("version {version}; 2 and 3 are supported"))),
    }
}

fn count(reader: &mut Reader<'_>, most: u64, what: &str) -> Result<u64, GgufError> {
    let begin = *reader;
    match reader.u64("a count")? {
        count if count > most => {
            Err(begin.error(format!("{count} {what}; at most {most} are taken")))
        }
        count => Ok(count),
    }
}

fn read_metadata(reader: &mut Reader<'_>, keys: u64) -> Result<HashMap<String, Place>, GgufError> {
    let mut metadata = HashMap::new();
    for _ in 0..keys {
        let begin = *reader;
        let key = reader.name(KEY_BYTES_MAX, "a metadata key")?;
        let value_type = ValueType::read(reader)?;
        let place = Place { value_type, at: reader.at() };
        value_type.skip(reader, 0)?;
        if metadata.insert(key.to_owned(), place).is_some() {
            return Err(begin.error(format!("the metadata key {key} occurs twice")));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &HashMap<String, Place>, file: &[u8]) -> Result<usize, GgufError> {
    const KEY: &str = "general.alignment";
    let Some(place) = metadata.get(KEY) else { return Ok(ALIGNMENT as usize) };
    let value = place.value_type.value(&mut Reader::new(file, place.at))?;
    let alignment = value.to_u64().ok().and_then(|n| u32::try_from(n).ok());
    match alignment {
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment as usize),
        _ => {
            Err(GgufError::WrongValue { key: KEY.into(), at: place.at, expected: "a power of two" })
        }
    }
}

fn read_tensors(
    reader: &mut Reader<'_>,
    count: u64,
) -> Result<HashMap<String, TensorInfo>, GgufError> {
    let mut tensors = HashMap::new();
    for _ in 0..count {
        let begin = *reader;
        let (name, tensor) = TensorInfo::read(reader)?;
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(begin.error(format!("the tensor {name} occurs twice")));
        }
    }
    Ok(tensors)
}
