//! A read-only memory map of a model file.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A whole file, mapped read-only: opening costs microseconds, pages come in as they are touched, and
/// processes that map the same file share the memory.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// The file must not be changed in place while it is mapped: our model store writes a new file and
    /// renames it, which is safe. A file truncated by somebody else makes the kernel end the process
    /// (SIGBUS) when a lost page is touched.
    ///
    /// # Errors
    /// What the operating system says when the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the bytes are only ever read, as plain data valid for any bit pattern, so even a
        // file changed behind our back gives wrong numbers and not undefined types; the map keeps
        // the pages alive for as long as any slice of them.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Tells the operating system that these bytes will not be wanted soon, so that they leave this process's
    /// memory. They can still be read, from the page cache or the disk.
    ///
    /// # Panics
    /// When the range lies outside the file.
    pub fn release(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.map.len(), "not within the file");
        #[cfg(unix)]
        // SAFETY: what is dropped are clean pages of a read-only map of a file, which come back as they were.
        // Where it fails, the pages stay, which is no harm.
        drop(unsafe {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            self.map.unchecked_advise_range(advice, range.start, range.len())
        });
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn a_map_shows_the_bytes_of_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"GGUF and more").unwrap();
        let map = MappedFile::open(file.path()).unwrap();
        assert_eq!(&map[..4], b"GGUF");
        assert_eq!(map.len(), 13);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(MappedFile::open(Path::new("/nonexistent/model.gguf")).is_err());
    }
}
