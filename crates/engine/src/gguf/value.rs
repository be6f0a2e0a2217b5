//! Metadata values, read in place.

use super::GgufError;
use super::reader::Reader;

/// Lists of lists deeper than this are refused. No known key nests at all.
pub const LIST_DEPTH_MAX: usize = 4;

/// A value of another type than the one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value of another type")]
pub struct WrongType;

/// The type of a value, by GGUF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

impl ValueType {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, GgufError> {
        let begin = *reader;
        Ok(match reader.u32("the type of a value")? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::List,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            unknown => return Err(begin.error(format!("{unknown} is not a type of values"))),
        })
    }

    /// Bytes of a value; `None` where each says its own length.
    fn width(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::List => None,
        }
    }

    /// Moves past one value.
    pub(super) fn skip(self, reader: &mut Reader<'_>, depth: usize) -> Result<(), GgufError> {
        match self {
            Self::Text => reader.counted("a string").map(|_| ()),
            Self::List => List::read(reader, depth).map(|_| ()),
            Self::Bool => Self::boolean(reader).map(|_| ()),
            sized => reader.take(sized.width().unwrap_or(0), "a value").map(|_| ()),
        }
    }

    fn boolean(reader: &mut Reader<'_>) -> Result<bool, GgufError> {
        let begin = *reader;
        match reader.array("a flag")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(begin.error(format!("{other} is not a flag"))),
        }
    }

    /// Reads one value.
    pub(super) fn value<'f>(self, reader: &mut Reader<'f>) -> Result<Value<'f>, GgufError> {
        const WHAT: &str = "a value";
        Ok(match self {
            Self::U8 => Value::Unsigned(u64::from(u8::from_le_bytes(reader.array(WHAT)?))),
            Self::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(reader.array(WHAT)?))),
            Self::U32 => Value::Unsigned(u64::from(reader.u32(WHAT)?)),
            Self::U64 => Value::Unsigned(reader.u64(WHAT)?),
            Self::I8 => Value::Signed(i64::from(i8::from_le_bytes(reader.array(WHAT)?))),
            Self::I16 => Value::Signed(i64::from(i16::from_le_bytes(reader.array(WHAT)?))),
            Self::I32 => Value::Signed(i64::from(i32::from_le_bytes(reader.array(WHAT)?))),
            Self::I64 => Value::Signed(i64::from_le_bytes(reader.array(WHAT)?)),
            Self::F32 => Value::F32(f32::from_le_bytes(reader.array(WHAT)?)),
            Self::F64 => Value::F64(f64::from_le_bytes(reader.array(WHAT)?)),
            Self::Bool => Value::Bool(Self::boolean(reader)?),
            Self::Text => Value::Text(reader.counted(WHAT)?),
            Self::List => Value::List(List::read(reader, 0)?),
        })
    }
}

/// A metadata value, in place in the file. Integers of all widths are one kind: writers differ.
#[derive(Clone, Copy, Debug)]
pub enum Value<'f> {
    /// `u8`, `u16`, `u32` or `u64`.
    Unsigned(u64),
    /// `i8`, `i16`, `i32` or `i64`.
    Signed(i64),
    /// A 32-bit float, which may be NaN.
    F32(f32),
    /// A 64-bit float, which may be NaN.
    F64(f64),
    /// A flag.
    Bool(bool),
    /// A string, whose bytes nobody has checked yet.
    Text(&'f [u8]),
    /// A list of values of one type.
    List(List<'f>),
}

impl<'f> Value<'f> {
    /// An integer that is not negative.
    ///
    /// # Errors
    /// For other values.
    pub fn to_u64(self) -> Result<u64, WrongType> {
        match self {
            Self::Unsigned(n) => Ok(n),
            Self::Signed(n) => u64::try_from(n).map_err(|_| WrongType),
            _ => Err(WrongType),
        }
    }

    /// An integer.
    ///
    /// # Errors
    /// For other values, and those above the range of `i64`.
    pub fn to_i64(self) -> Result<i64, WrongType> {
        match self {
            Self::Signed(n) => Ok(n),
            Self::Unsigned(n) => i64::try_from(n).map_err(|_| WrongType),
            _ => Err(WrongType),
        }
    }

    /// A 32-bit float.
    ///
    /// # Errors
    /// For other values.
    pub fn to_f32(self) -> Result<f32, WrongType> {
        if let Self::F32(x) = self { Ok(x) } else { Err(WrongType) }
    }

    /// A flag.
    ///
    /// # Errors
    /// For other values.
    pub fn to_bool(self) -> Result<bool, WrongType> {
        if let Self::Bool(flag) = self { Ok(flag) } else { Err(WrongType) }
    }

    /// A string.
    ///
    /// # Errors
    /// For other values, and strings that are not UTF-8.
    pub fn to_text(self) -> Result<&'f str, WrongType> {
        let Self::Text(bytes) = self else { return Err(WrongType) };
        std::str::from_utf8(bytes).map_err(|_| WrongType)
    }
}

/// A list in place in the file: the header was walked when the file was opened, so that every entry is known
/// to be there.
#[derive(Clone, Copy)]
pub struct List<'f> {
    of: ValueType,
    len: usize,
    entries: Reader<'f>,
}

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "List({} of {:?} at byte {})", self.len, self.of, self.entries.at())
    }
}

impl<'f> List<'f> {
    /// Reads type and length, and moves past the entries.
    fn read(reader: &mut Reader<'f>, depth: usize) -> Result<Self, GgufError> {
        let begin = *reader;
        if depth >= LIST_DEPTH_MAX {
            let reason = format!("lists of lists; at most {LIST_DEPTH_MAX} levels are taken");
            return Err(begin.error(reason));
        }
        let of = ValueType::read(reader)?;
        let len = reader.u64("the length of a list")?;
        let entries = *reader;
        match of.width() {
            Some(width) if of != ValueType::Bool => {
                reader.take(len.saturating_mul(width), "a list")?;
            }
            // Each entry takes at least a byte, so this ends with the file, whatever the length says.
            _ => (0..len).try_for_each(|_| of.skip(reader, depth + 1))?,
        }
        let len = usize::try_from(len).map_err(|_| begin.error(format!("{len} entries")))?;
        Ok(Self { of, len, entries })
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'f>> + use<'f> {
        let Self { of, len, mut entries } = *self;
        (0..len).map_while(move |_| of.value(&mut entries).ok())
    }
}
