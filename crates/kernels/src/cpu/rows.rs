//! Splitting the rows of a matrix over the pool.

use super::Cpu;
use std::marker::PhantomData;

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

    /// The columns `start..start + len` of every row.
    ///
    /// # Safety
    /// Nobody else may touch these columns while the result lives.
    pub(super) unsafe fn columns(&self, start: usize, len: usize) -> Columns<'a, T> {
        assert!(start + len <= self.width, "columns {start}.. lie outside the matrix");
        let rows =
            Self { start: self.start, len: self.len, width: self.width, borrow: PhantomData };
        Columns { rows, start, len }
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

/// Some columns of a matrix, held by one thread.
pub(super) struct Columns<'a, T> {
    rows: SharedRows<'a, T>,
    start: usize,
    len: usize,
}

impl<T> Columns<'_, T> {
    /// The columns of row `index`.
    pub(super) fn row(&mut self, index: usize) -> &mut [T] {
        // SAFETY: the columns are ours by the promise made to `SharedRows::columns`, and the borrow of
        // `self` keeps the slice the only one.
        unsafe { self.rows.range(index, self.start, self.len) }
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
