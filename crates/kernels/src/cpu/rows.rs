//! Splitting the rows of a matrix over the pool.

use super::Cpu;
use std::marker::PhantomData;
use std::ops::Range;

/// Floats a part should touch before it is worth a second thread: about 2 µs of work.
const GRAIN: usize = 8 * 1024;

/// A mutable matrix of which different threads may take different rows.
pub(super) struct SharedRows<'a, T> {
    start: *mut T,
    len: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for `&mut [T]`, of which the users of `row` and `range` take disjoint parts.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}

impl<'a, T> SharedRows<'a, T> {
    /// Views `matrix` as rows of `width`.
    pub(super) fn new(matrix: &'a mut [T], width: usize) -> Self {
        Self { start: matrix.as_mut_ptr(), len: matrix.len(), width, borrow: PhantomData }
    }

    /// Row `index`.
    ///
    /// # Safety
    /// No two live slices may overlap.
    pub(super) unsafe fn row(&self, index: usize) -> &'a mut [T] {
        // SAFETY: passed on.
        unsafe { self.range(index, 0, self.width) }
    }

    /// The rows `rows`, one after the other.
    ///
    /// # Safety
    /// No two live slices may overlap.
    pub(super) unsafe fn rows(&self, rows: Range<usize>) -> &'a mut [T] {
        let (begin, end) = (rows.start * self.width, rows.end * self.width);
        assert!(begin <= end && end <= self.len, "rows {rows:?} lie outside the matrix");
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise and by the borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(begin), end - begin) }
    }

    /// `len` elements of row `index` from `start`.
    ///
    /// # Safety
    /// No two live slices may overlap.
    pub(super) unsafe fn range(&self, index: usize, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.width, "elements {start}.. lie outside a row");
        let begin = index * self.width + start;
        assert!(begin + len <= self.len, "row {index} lies outside the matrix");
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise and by the borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(begin), len) }
    }
}

impl Cpu {
    /// Runs `work(row)` for each of `rows` rows that touch `row_cost` floats each, several rows a part.
    pub(super) fn for_rows(&self, rows: usize, row_cost: usize, work: &(dyn Fn(usize) + Sync)) {
        let per_part = (GRAIN / row_cost.max(1)).clamp(1, rows.max(1));
        let parts = rows.div_ceil(per_part);
        self.pool.run(parts, &|part| {
            let start = part * per_part;
            (start..rows.min(start + per_part)).for_each(work);
        });
    }
}
