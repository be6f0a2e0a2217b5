//! Memory for what is large: repacked weights, and the cache of keys and values.

use super::tiles::VECTOR;
use memmap2::MmapMut;
use std::sync::Arc;

/// The unit in which the operating system hands out huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory that starts at a vector's boundary, on huge pages where the system has them: a step
/// touches each page once, and small ones would cost an address translation every 4 KiB. It is taken from the system
/// as it is first written.
#[derive(Debug)]
pub(super) struct Storage {
    map: MmapMut,
    /// The first byte used, so that large memory starts at a huge page.
    start: usize,
    len: usize,
}

impl Storage {
    /// `len` zeros.
    ///
    /// # Panics
    /// When the operating system refuses the memory.
    pub(super) fn zeroed(len: usize) -> Self {
        let slack = if len >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let map = MmapMut::map_anon((len + slack).max(1))
            .unwrap_or_else(|error| panic!("no {len} bytes of memory: {error}"));
        let address = map.as_ptr().addr();
        let start = if slack > 0 { address.next_multiple_of(HUGE_PAGE) - address } else { 0 };
        // Advice that is not taken costs speed alone.
        #[cfg(target_os = "linux")]
        drop(map.advise(memmap2::Advice::HugePage));
        Self { map, start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }

    /// The same as half-precision bits.
    pub(super) fn halves(&self) -> &[u16] {
        let bytes = self.bytes();
        // SAFETY: the start is that of a page, any bits are a number, and the borrow is passed on.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 2) }
    }

    /// The same to write to.
    pub(super) fn halves_mut(&mut self) -> &mut [u16] {
        let bytes = self.bytes_mut();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / 2) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.len]
    }
}

/// A part of some storage, kept alive with it.
#[derive(Clone, Debug)]
pub(super) struct Slab {
    storage: Arc<Storage>,
    start: usize,
    len: usize,
}

impl Slab {
    /// The bytes `start..start + len`; `start` is a multiple of a vector.
    pub(super) fn new(storage: &Arc<Storage>, start: usize, len: usize) -> Self {
        assert!(start.is_multiple_of(VECTOR) && start + len <= storage.len, "a slab out of place");
        Self { storage: Arc::clone(storage), start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_aligned() {
        for len in [0, 1, 4096, HUGE_PAGE, 3 * HUGE_PAGE + 64] {
            let storage = Storage::zeroed(len);
            assert_eq!(storage.bytes().len(), len);
            assert!(storage.bytes().as_ptr().addr().is_multiple_of(VECTOR), "{len}");
            assert!(storage.bytes().iter().all(|byte| *byte == 0), "{len}");
        }
    }
}
