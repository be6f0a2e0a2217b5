//! A place in the bytes of a file, from which little-endian values are read.

use super::GgufError;

/// Reads forward; every error says where it is.
#[derive(Clone, Copy)]
pub(super) struct Reader<'f> {
    bytes: &'f [u8],
    at: usize,
}

impl<'f> Reader<'f> {
    pub(super) fn new(bytes: &'f [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> GgufError {
        GgufError::Format { at: self.at, reason: reason.into() }
    }

    /// The next `len` bytes. The length is the file's word, so it is compared with what is left before
    /// anything is made of it.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<&'f [u8], GgufError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| {
            let left = rest.len();
            self.error(format!("{what} takes {len} bytes, and {left} are left in the file"))
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length, and as many bytes.
    pub(super) fn counted(&mut self, what: &str) -> Result<&'f [u8], GgufError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A name of at most `longest` bytes.
    pub(super) fn name(&mut self, longest: usize, what: &str) -> Result<&'f str, GgufError> {
        let begin = *self;
        let bytes = self.counted(what)?;
        if bytes.len() > longest {
            let len = bytes.len();
            return Err(begin.error(format!("{what} of {len} bytes; at most {longest} are taken")));
        }
        std::str::from_utf8(bytes).map_err(|_| begin.error(format!("{what} is not UTF-8")))
    }
}
