//! A matrix of a model file, repacked for the kernels.

use super::Cpu;
use super::block_type::BlockType;
use super::block32::{BLOCK, Block32, Format};
use super::half_float::{bf16, f16};
use super::rows::SharedRows;
use super::storage::{Slab, Storage};
use super::tiles::{self, TILE_ROWS};
use crate::MappedFile;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Why a tensor cannot be used as a weight.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A row is not a whole number of quantisation blocks.
    #[error("rows of {cols} elements are not whole blocks of {} ({dtype})", dtype.elements())]
    PartialBlock {
        /// Elements in a row.
        cols: usize,
        /// The type.
        dtype: BlockType,
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
}

/// A scale of a block, or an element of a matrix of floats, is no number or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block at byte {at} of the file holds what is not a finite number")]
pub struct NotFinite {
    /// Where in the file the block begins.
    pub at: usize,
}

/// A matrix `[rows, cols]` of a GGUF file. Clones share their memory.
///
/// It begins as a place in the memory map. [`Cpu::repack`], or else its first product, writes it once more in
/// [tiles](super::tiles), after which the pages of the map are let go.
#[derive(Clone, Debug)]
pub struct Weight(Arc<Matrix>);

#[derive(Debug)]
struct Matrix {
    file: Arc<MappedFile>,
    start: usize,
    dtype: BlockType,
    rows: usize,
    cols: usize,
    tiles: OnceLock<Slab>,
}

impl Weight {
    /// The matrix `[rows, cols]` whose blocks begin at byte `start` of `file`.
    ///
    /// # Errors
    /// When rows are not whole blocks, or the data is out of bounds.
    pub fn mapped(
        file: Arc<MappedFile>,
        start: usize,
        dtype: BlockType,
        rows: usize,
        cols: usize,
    ) -> Result<Self, WeightError> {
        if !cols.is_multiple_of(dtype.elements()) {
            return Err(WeightError::PartialBlock { cols, dtype });
        }
        let end = (cols / dtype.elements())
            .checked_mul(dtype.bytes())
            .and_then(|row| row.checked_mul(rows))
            .and_then(|bytes| bytes.checked_add(start))
            .unwrap_or(usize::MAX);
        if end > file.len() {
            return Err(WeightError::OutOfFile { start, end, len: file.len() });
        }
        Ok(Self(Arc::new(Matrix { file, start, dtype, rows, cols, tiles: OnceLock::new() })))
    }

    /// Rows: the width of what a product with this matrix gives.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Columns: the width of what it is multiplied with.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.0.cols
    }

    /// The type of its blocks.
    #[must_use]
    pub fn dtype(&self) -> BlockType {
        self.0.dtype
    }

    /// Bytes it takes in the file.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows() * self.row_bytes()
    }

    /// Bytes it takes once repacked: a few in a hundred more, and rows to fill the last tile.
    #[must_use]
    pub fn repacked_bytes(&self) -> usize {
        self.tile_count() * self.tile_bytes()
    }

    /// Whether the two are clones of one weight.
    #[must_use]
    pub fn shares_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Writes row `index`, widened to floats, into `out` (`[cols]`).
    ///
    /// # Panics
    /// When there is no such row, or `out` is not as long as one.
    pub fn row_into(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.rows(), "row {index} of {}", self.rows());
        assert_eq!(out.len(), self.cols(), "a row has {} elements", self.cols());
        match Format::of(self.dtype()) {
            Some(format) => {
                for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    *out = self.block(format, index, block).values(format);
                }
            }
            None => out.iter_mut().enumerate().for_each(|(k, x)| *x = self.float(index, k)),
        }
    }

    /// A block of a quantised matrix.
    fn block(&self, format: Format, row: usize, index: usize) -> Block32 {
        match self.0.tiles.get() {
            Some(_) => {
                let (tile, lane) = (self.tile(row / TILE_ROWS), row % TILE_ROWS);
                tiles::read_block(format, tile, self.cols() / BLOCK, lane, index)
            }
            None => Block32::from_gguf(self.dtype(), self.row_in_file(row), index),
        }
    }

    /// An element of a matrix of floats.
    fn float(&self, row: usize, column: usize) -> f32 {
        let bytes = match self.0.tiles.get() {
            Some(_) => {
                let tile = self.tile(row / TILE_ROWS);
                tiles::float_bytes(self.dtype(), tile, row % TILE_ROWS, column)
            }
            None => &self.row_in_file(row)[column * self.dtype().bytes()..],
        };
        match self.dtype() {
            BlockType::F16 => f16(u16::from_le_bytes([bytes[0], bytes[1]])),
            BlockType::BF16 => bf16(u16::from_le_bytes([bytes[0], bytes[1]])),
            _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }

    fn row_bytes(&self) -> usize {
        self.cols() / self.dtype().elements() * self.dtype().bytes()
    }

    fn row_in_file(&self, row: usize) -> &[u8] {
        &self.0.file[self.0.start + row * self.row_bytes()..][..self.row_bytes()]
    }

    /// Tiles of 16 rows, the last one perhaps padded.
    pub(super) fn tile_count(&self) -> usize {
        self.rows().div_ceil(TILE_ROWS)
    }

    pub(super) fn tile_bytes(&self) -> usize {
        tiles::tile_bytes(self.dtype(), self.cols())
    }

    /// All tiles, one after the other.
    ///
    /// # Panics
    /// Before they are made.
    pub(super) fn tiles(&self) -> &[u8] {
        self.0.tiles.get().expect("a repacked weight").bytes()
    }

    fn tile(&self, index: usize) -> &[u8] {
        &self.tiles()[index * self.tile_bytes()..][..self.tile_bytes()]
    }

    pub(super) fn is_repacked(&self) -> bool {
        self.0.tiles.get().is_some()
    }
}

impl Cpu {
    /// Repacks those of `weights` that are not yet, in one piece of memory and on all threads.
    ///
    /// # Errors
    /// [`NotFinite`] names the first block whose products would not be numbers. They are repacked
    /// nevertheless.
    ///
    /// # Panics
    /// When the operating system refuses the memory, [`Weight::repacked_bytes`] each.
    pub fn repack<'w>(
        &self,
        weights: impl IntoIterator<Item = &'w Weight>,
    ) -> Result<(), NotFinite> {
        let mut open: Vec<&Weight> = weights.into_iter().filter(|w| !w.is_repacked()).collect();
        open.sort_by_key(|weight| Arc::as_ptr(&weight.0).addr());
        open.dedup_by(|a, b| a.shares_memory(b));
        open.sort_by_key(|weight| weight.0.start);
        let total = open.iter().map(|weight| weight.repacked_bytes()).sum();
        let mut storage = Storage::zeroed(total);
        let (mut rest, mut odd) = (storage.bytes_mut(), None);
        for weight in &open {
            let (slab, others) = rest.split_at_mut(weight.repacked_bytes());
            odd = odd.or(self.write_tiles(weight, slab));
            weight.0.file.release(weight.0.start..weight.0.start + weight.bytes());
            rest = others;
        }
        let storage = Arc::new(storage);
        let mut start = 0;
        for weight in open {
            // Another thread may have been quicker; its tiles are the same.
            drop(weight.0.tiles.set(Slab::new(&storage, start, weight.repacked_bytes())));
            start += weight.repacked_bytes();
        }
        odd.map_or(Ok(()), |at| Err(NotFinite { at }))
    }

    /// Where the first block lies that is not finite, if there is one.
    fn write_tiles(&self, weight: &Weight, slab: &mut [u8]) -> Option<usize> {
        let first_odd = AtomicUsize::new(usize::MAX);
        let tiles = SharedRows::new(slab, weight.tile_bytes());
        self.for_rows(weight.tile_count(), weight.tile_bytes(), &|tile| {
            // SAFETY: each tile is written by one part.
            let bytes = unsafe { tiles.row(tile) };
            let first = tile * TILE_ROWS;
            let rows = first..weight.rows().min(first + TILE_ROWS);
            let rows = rows.map(|row| weight.row_in_file(row));
            if let Some((row, column)) = tiles::pack(weight.dtype(), weight.cols(), rows, bytes) {
                let block = column / weight.dtype().elements() * weight.dtype().bytes();
                let at = weight.0.start + (first + row) * weight.row_bytes() + block;
                first_odd.fetch_min(at, Ordering::Relaxed);
            }
        });
        Some(first_odd.into_inner()).filter(|at| *at != usize::MAX)
    }
}

#[cfg(test)]
#[path = "weight_tests.rs"]
mod tests;
