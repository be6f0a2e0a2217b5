//! Activations times quantised weights.
//!
//! The 32-element types of [`super::blocks32`] have kernels of our own; the others use candle-core's dot
//! product of one activation row with a few weight rows. Either way, an output element is one dot product
//! over the columns in one order, and which thread computes it is a matter of chance.

use super::Cpu;
use super::blocks32::{self, Activations, BLOCK};
use super::rows::{Columns, SharedRows};
use super::weight::{Block, Weight, with_block_type};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::GgmlType;

/// Input rows that pass over a strip of weights before the next strip is read: their quantised form
/// (16 rows of 576 take 10 KiB) and the strip stay in the first cache together.
const ROW_TILE: usize = 16;

/// Most weight rows in one part of a product; see [`strip`].
const STRIP_MAX: usize = 32;

impl Cpu {
    /// `out[r] = [w₀ · x[r], w₁ · x[r], …]`: products of the same input with several weights, side by side
    /// in one output row, so that query, key and value (or gate and up) cost one pass.
    ///
    /// `x`: `[rows, cols]`; `out`: `[rows, Σ weights.rows]`. The input is quantised block-wise to the type
    /// that the weight's dot product takes. Each output element is one dot product over `cols` in one
    /// order, whatever `rows` is.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn matmul(&self, weights: &[Weight], x: &[f32], out: &mut [f32]) {
        let Some(first) = weights.first() else { return };
        let (cols, width) = (first.cols(), weights.iter().map(Weight::rows).sum());
        assert!(weights.iter().all(|w| w.cols() == cols), "matmul: weights differ in columns");
        assert!(x.len().is_multiple_of(cols), "matmul: the input is not rows of {cols}");
        assert_eq!(out.len(), x.len() / cols * width, "matmul: the output has the wrong size");
        if x.is_empty() {
            return;
        }
        let out = SharedRows::new(out, width);
        let mut column = 0;
        for group in weights.chunk_by(|a, b| a.dtype() == b.dtype()) {
            self.multiply(group, x, column, &out);
            column += group.iter().map(Weight::rows).sum::<usize>();
        }
    }

    /// The products with `weights`, all of one type, into the columns of `out` from `column`.
    fn multiply(&self, weights: &[Weight], x: &[f32], column: usize, out: &SharedRows<'_, f32>) {
        let (cols, level) = (weights[0].cols(), self.level());
        match weights[0].dtype() {
            GgmlDType::Q4_0 => {
                let input = self.activations(x, cols);
                self.strips(weights, out, column, |w, out| {
                    blocks32::q4_0_strip(level, w, &input, out)
                });
            }
            GgmlDType::Q4_1 => {
                let input = self.activations(x, cols);
                self.strips(weights, out, column, |w, out| {
                    blocks32::q4_1_strip(level, w, &input, out)
                });
            }
            GgmlDType::Q8_0 => {
                let input = self.activations(x, cols);
                self.strips(weights, out, column, |w, out| {
                    blocks32::q8_0_strip(level, w, &input, out)
                });
            }
            other => with_block_type!(other, T => {
                let input = self.quantise::<T>(x, cols);
                self.strips(weights, out, column, |w, out| multiply_strip::<T>(w, &input, cols, out));
            }),
        }
    }

    /// Runs `work(blocks of some weight rows, their columns of the output)` over all rows of `weights`, whose
    /// columns begin at `column`; each strip of rows by one thread.
    fn strips<T: Block>(
        &self,
        weights: &[Weight],
        out: &SharedRows<'_, f32>,
        column: usize,
        work: impl Fn(&[T], &mut Columns<'_, f32>) + Sync,
    ) {
        let strip = strip(weights, self.threads());
        let strips: Vec<(usize, usize, usize)> = strips(weights, strip).collect();
        self.pool.run(strips.len(), &|part| {
            let (weight, start, offset) = strips[part];
            let weight = &weights[weight];
            let blocks = weight.cols() / weight.dtype().block_size();
            let len = strip.min(weight.rows() - start);
            // SAFETY: strips do not overlap, and each is taken by one part.
            let mut out = unsafe { out.columns(column + offset, len) };
            work(&weight.blocks::<T>()[start * blocks..][..len * blocks], &mut out);
        });
    }

    /// The rows of `x` as blocks of eight-bit integers.
    fn activations(&self, x: &[f32], cols: usize) -> Activations {
        let (rows, blocks) = (x.len() / cols, cols / BLOCK);
        let mut codes = vec![[0; BLOCK]; rows * blocks];
        let (mut scales, mut sums) = (vec![0.0; rows * blocks], vec![0.0; rows * blocks]);
        let targets = (
            SharedRows::new(&mut codes, blocks),
            SharedRows::new(&mut scales, blocks),
            SharedRows::new(&mut sums, blocks),
        );
        self.for_rows(rows, 2 * cols, &|row| {
            // SAFETY: each row of the three is taken by one part.
            let (codes, scales, sums) =
                unsafe { (targets.0.row(row), targets.1.row(row), targets.2.row(row)) };
            blocks32::quantise_row(self.level(), &x[row * cols..][..cols], codes, scales, sums);
        });
        Activations::new(blocks, codes, &scales, &sums)
    }

    /// The rows of `x` in the type that `T`'s dot product takes.
    fn quantise<T: GgmlType>(&self, x: &[f32], cols: usize) -> Vec<T::VecDotType> {
        let (rows, blocks) = (x.len() / cols, cols / T::BLCK_SIZE);
        let mut quantised = vec![T::VecDotType::zeros(); rows * blocks];
        let target = SharedRows::new(&mut quantised, blocks);
        self.for_rows(rows, 4 * cols, &|row| {
            // SAFETY: each row is taken by one part.
            let target = unsafe { target.row(row) };
            let row = &x[row * cols..][..cols];
            if T::DIRECT_COPY {
                T::VecDotType::direct_copy(row, target);
            } else {
                T::VecDotType::from_float(row, target);
            }
        });
        quantised
    }
}

/// Weight rows a part: enough parts for every thread to claim a few, always a multiple of the four that
/// one dot kernel takes, so that the same four rows meet in it on any number of threads.
fn strip(weights: &[Weight], threads: usize) -> usize {
    let rows: usize = weights.iter().map(Weight::rows).sum();
    (rows / (threads * 6)).next_multiple_of(4).clamp(4, STRIP_MAX)
}

/// `(weight, first row, column in the output)` of each strip.
fn strips(weights: &[Weight], strip: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let offsets = weights.iter().scan(0, |next, weight| {
        let offset = *next;
        *next += weight.rows();
        Some(offset)
    });
    weights.iter().zip(offsets).enumerate().flat_map(move |(index, (weight, offset))| {
        (0..weight.rows()).step_by(strip).map(move |start| (index, start, offset + start))
    })
}

/// All input rows times one strip of weight rows, by candle-core's dot products.
fn multiply_strip<T: GgmlType>(
    weight: &[T],
    input: &[T::VecDotType],
    cols: usize,
    out: &mut Columns<'_, f32>,
) {
    let blocks = cols / T::BLCK_SIZE;
    for (tile, rows) in input.chunks(ROW_TILE * blocks).enumerate() {
        for (quad, quad_rows) in weight.chunks(4 * blocks).enumerate() {
            for (row, x) in rows.chunks_exact(blocks).enumerate() {
                let out = out.row(tile * ROW_TILE + row);
                dot_rows(quad_rows, x, cols, &mut out[4 * quad..]);
            }
        }
    }
}

/// One input row times at most four weight rows.
fn dot_rows<T: GgmlType>(weight: &[T], x: &[T::VecDotType], cols: usize, out: &mut [f32]) {
    let mut rows = weight.chunks_exact(x.len());
    if let [Some(a), Some(b), Some(c), Some(d)] =
        [rows.next(), rows.next(), rows.next(), rows.next()]
    {
        (out[0], out[1], out[2], out[3]) = T::vec_dot_4(cols, a, b, c, d, x);
    } else {
        for (out, row) in out.iter_mut().zip(weight.chunks_exact(x.len())) {
            *out = T::vec_dot(cols, row, x);
        }
    }
}

#[cfg(test)]
#[path = "matmul_tests.rs"]
mod tests;
