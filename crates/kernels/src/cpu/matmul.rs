//! Activations times weights: how a product is cut into parts for threads and steps for kernels.
//!
//! What is computed is defined in [`super::product`]. Here nothing is: an output element comes from one
//! kernel call, whatever the part, the thread or the neighbours.

use super::Cpu;
use super::activations::{Groups, XBlock, quantise_row};
use super::block32::{BLOCK, Format};
use super::level::Level;
use super::product::{self, Operands, Output, Prefetch, floats};
use super::rows::SharedRows;
use super::tiles::{TILE_ROWS, VECTOR};
use super::weight::Weight;
use std::ops::Range;

/// Bytes of activations that meet a few tiles before the next tiles are read: they stay in the second cache.
const CHUNK_BYTES: usize = 512 << 10;

/// Activations fewer than this are quantised by the caller: another region would take longer.
const QUANTISE_ALONE: usize = 16 << 10;

/// Parts that a thread should find, so that one that is interrupted does not keep the others waiting.
const PARTS_PER_THREAD: usize = 8;

impl Cpu {
    /// `out[r] = [w₀ · x[r], w₁ · x[r], …]`: products of the same input with several weights, side by side
    /// in one output row, so that query, key and value (or gate and up) cost one pass.
    ///
    /// `x`: `[rows, cols]`; `out`: `[rows, Σ weights.rows]`. For quantised weights the input is quantised to eight
    /// bits in blocks of 32. Each output element is one chain of sums over `cols`, whatever `rows` is.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn matmul(&self, weights: &[Weight], x: &[f32], out: &mut [f32]) {
        let Some(first) = weights.first() else { return };
        let (cols, width) = (first.cols(), weights.iter().map(Weight::rows).sum());
        assert!(weights.iter().all(|w| w.cols() == cols), "matmul: weights differ in columns");
        assert!(
            cols > 0 && x.len().is_multiple_of(cols),
            "matmul: the input is not rows of {cols}"
        );
        assert_eq!(out.len(), x.len() / cols * width, "matmul: the output has the wrong size");
        if out.is_empty() {
            return;
        }
        if weights.iter().any(|weight| !weight.is_repacked()) {
            // What is not finite shows in the products.
            self.repack(weights).ok();
        }
        let (rows, level) = (x.len() / cols, self.level());
        let (rows_at_once, tiles_at_once) = product::shape(level, rows);
        let groups = Groups::new(rows, rows_at_once);
        // Poisoned by a panic in another product, which left no promise about the contents broken.
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let quantised = if weights.iter().any(|weight| Format::of(weight.dtype()).is_some()) {
            let blocks = scratch.blocks(rows * (cols / BLOCK));
            self.quantise(x, cols, groups, blocks);
            &*blocks
        } else {
            &[]
        };
        let out = SharedRows::new(out, width);
        let product = Product { weights, x, quantised, cols, groups, tiles_at_once, level, out };
        let plan = Plan::new(&product, self.threads());
        self.pool.run(plan.parts(), &|part| {
            let (tiles, groups) = plan.part(part);
            product.part(tiles, groups);
        });
    }

    /// The rows of `x`, group after group.
    fn quantise(&self, x: &[f32], cols: usize, groups: Groups, out: &mut [XBlock]) {
        let (blocks, level) = (cols / BLOCK, self.level());
        let out = SharedRows::new(out, blocks);
        let quantise_group = |group: usize| {
            let rows = groups.rows(group);
            // SAFETY: groups do not overlap, and each is taken by one part.
            let out = unsafe { out.rows(rows.clone()) };
            for (at, row) in rows.clone().enumerate() {
                quantise_row(level, &x[row * cols..][..cols], out, rows.len(), at);
            }
        };
        if x.len() < QUANTISE_ALONE {
            (0..groups.count).for_each(quantise_group);
        } else {
            self.for_rows(groups.count, x.len() / groups.count, &quantise_group);
        }
    }
}

/// A product, ready to be computed.
struct Product<'a> {
    weights: &'a [Weight],
    /// `[rows, cols]`.
    x: &'a [f32],
    /// The same by groups; empty when all weights are floats.
    quantised: &'a [XBlock],
    cols: usize,
    groups: Groups,
    tiles_at_once: usize,
    level: Level,
    /// `[rows, Σ weights.rows]`.
    out: SharedRows<'a, f32>,
}

impl Product<'_> {
    /// Computes a part. Tiles are counted through all weights.
    fn part(&self, tiles: Range<usize>, groups: Range<usize>) {
        let (mut first_tile, mut first_column) = (0, 0);
        for weight in self.weights {
            let (count, start) = (weight.tile_count(), first_tile);
            let local = tiles.start.max(start)..tiles.end.min(start + count);
            if !local.is_empty() {
                let local = local.start - start..local.end - start;
                self.tiles(weight, local, groups.clone(), first_column);
            }
            first_tile += count;
            first_column += weight.rows();
        }
    }

    /// Computes what some groups give with some tiles of one weight, whose columns begin at `column`.
    fn tiles(&self, weight: &Weight, tiles: Range<usize>, groups: Range<usize>, column: usize) {
        let format = Format::of(weight.dtype());
        let mut tile = tiles.start;
        while tile < tiles.end {
            let next = tiles.end.min(tile + if format.is_some() { self.tiles_at_once } else { 1 });
            for group in groups.clone() {
                let (first, end) = (tile * TILE_ROWS, weight.rows().min(next * TILE_ROWS));
                let rows = self.groups.rows(group);
                // SAFETY: these columns of these rows belong to this part, which takes them once.
                let mut out = unsafe { self.out.block(rows, column + first, end - first) };
                match format {
                    Some(format) => {
                        let place = Place { tile, next, end: tiles.end, group, groups: &groups };
                        self.quantised_step(weight, format, &place, &mut out);
                    }
                    None => self.float_step(weight, tile, group, &mut out),
                }
            }
            tile = next;
        }
    }

    fn quantised_step(
        &self,
        weight: &Weight,
        format: Format,
        place: &Place<'_>,
        out: &mut Output<'_>,
    ) {
        let (tile_bytes, blocks) = (weight.tile_bytes(), self.cols / BLOCK);
        let rows = self.groups.rows(place.group);
        let operands = Operands {
            format,
            tiles: &weight.tiles()[place.tile * tile_bytes..place.next * tile_bytes],
            tile_bytes,
            blocks,
            x: &self.quantised[rows.start * blocks..rows.end * blocks],
            rows: rows.len(),
            prefetch: place.prefetch(weight.tiles(), tile_bytes, blocks),
        };
        product::multiply(self.level, weight.dtype(), &operands, out);
    }

    /// Floats take one tile at a time.
    fn float_step(&self, weight: &Weight, tile: usize, group: usize, out: &mut Output<'_>) {
        let rows = self.groups.rows(group);
        let x = &self.x[rows.start * self.cols..rows.end * self.cols];
        let tile = &weight.tiles()[tile * weight.tile_bytes()..][..weight.tile_bytes()];
        floats::multiply(self.level, weight.dtype(), tile, x, self.cols, out);
    }
}

/// Where a kernel call stands in its part.
struct Place<'a> {
    /// The tiles `tile..next` of the part's, which end at `end`.
    tile: usize,
    next: usize,
    end: usize,
    group: usize,
    groups: &'a Range<usize>,
}

impl Place<'_> {
    /// What to fetch meanwhile. A single group uses each weight once, so what comes a little later is fetched;
    /// several use the same tiles, so each fetches its share of the next ones.
    fn prefetch(&self, tiles: &[u8], tile_bytes: usize, blocks: usize) -> Prefetch {
        let at = |tile: usize| tiles.as_ptr().wrapping_add(tile * tile_bytes);
        if self.groups.len() == 1 {
            return Prefetch::Stream { tile: at(self.tile) };
        }
        let next_bytes = (self.end.min(2 * self.next - self.tile) - self.next) * tile_bytes;
        let lines = (next_bytes / VECTOR).div_ceil(self.groups.len() * blocks);
        let share = lines * VECTOR * blocks * (self.group - self.groups.start);
        match share < next_bytes {
            true => Prefetch::Share { start: at(self.next).wrapping_add(share), lines },
            false => Prefetch::None,
        }
    }
}

/// The parts of a product: chunks of groups times ranges of tiles.
struct Plan {
    tiles: usize,
    groups: usize,
    tiles_per_range: usize,
    groups_per_chunk: usize,
}

impl Plan {
    fn new(product: &Product<'_>, threads: usize) -> Self {
        let tiles = product.weights.iter().map(Weight::tile_count).sum::<usize>();
        let groups = product.groups.count;
        let row_bytes = product.cols / BLOCK * size_of::<XBlock>();
        let group_bytes = product.groups.rows(0).len() * row_bytes.max(1);
        let groups_per_chunk = (CHUNK_BYTES / group_bytes).clamp(1, groups);
        let chunks = groups.div_ceil(groups_per_chunk);
        let wanted = if threads == 1 { 1 } else { threads * PARTS_PER_THREAD };
        let ranges = wanted.div_ceil(chunks).min(tiles);
        let tiles_per_range = tiles.div_ceil(ranges).next_multiple_of(product.tiles_at_once);
        Self { tiles, groups, tiles_per_range, groups_per_chunk }
    }

    fn ranges(&self) -> usize {
        self.tiles.div_ceil(self.tiles_per_range)
    }

    fn parts(&self) -> usize {
        self.ranges() * self.groups.div_ceil(self.groups_per_chunk)
    }

    /// The tiles and the groups of a part.
    fn part(&self, part: usize) -> (Range<usize>, Range<usize>) {
        let tile = part % self.ranges() * self.tiles_per_range;
        let group = part / self.ranges() * self.groups_per_chunk;
        let tiles = tile..self.tiles.min(tile + self.tiles_per_range);
        (tiles, group..self.groups.min(group + self.groups_per_chunk))
    }
}

#[cfg(test)]
#[path = "matmul_tests.rs"]
mod tests;
