//! The paged cache of keys and values, in half precision.

use super::lanes::LANES;
use super::simd::Simd;
use super::storage::Storage;
use std::marker::PhantomData;

/// Tokens in a block of the cache, which is also the stride in which attention walks keys.
pub const BLOCK_TOKENS: usize = 32;

/// Most elements of a head.
pub const HEAD_DIM_MAX: usize = 256;

/// What a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: usize,
    /// Heads of keys and values in a layer.
    pub kv_heads: usize,
    /// Elements of a head: a multiple of 16, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes that one block of [`BLOCK_TOKENS`] tokens takes over all layers.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block() * size_of::<u16>()
    }

    /// Numbers of one block over all layers.
    #[inline]
    fn block(&self) -> usize {
        self.layers * self.layer_block()
    }

    /// Numbers of one block in one layer.
    #[inline]
    fn layer_block(&self) -> usize {
        self.kv_heads * self.head_block()
    }

    /// Numbers of one block, layer and head: keys `[head_dim, BLOCK_TOKENS]` (so that the lanes run over
    /// keys, and a line of the processor's cache holds one element of all), then values `[BLOCK_TOKENS,
    /// head_dim]`.
    #[inline]
    fn head_block(&self) -> usize {
        2 * self.head_dim * BLOCK_TOKENS
    }
}

/// Keys and values of every block of the pool, `[blocks, layers, kv_heads, 2 · head_dim · BLOCK_TOKENS]`: what a
/// sequence takes lies together, so that a few blocks are a few pages.
pub struct KvCache {
    shape: KvShape,
    blocks: usize,
    /// Half-precision bits.
    data: Storage,
}

impl KvCache {
    /// A cache of `blocks` blocks. Its memory is taken from the system as blocks are first written.
    ///
    /// # Panics
    /// When the head is of a size that the kernels do not take.
    #[must_use]
    pub fn new(shape: KvShape, blocks: usize) -> Self {
        let dim = shape.head_dim;
        assert!(dim.is_multiple_of(LANES) && dim <= HEAD_DIM_MAX, "a head of {dim} elements");
        Self { shape, blocks, data: Storage::zeroed(blocks * shape.block_bytes()) }
    }

    /// What it was made for.
    #[must_use]
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Where a block's part of a layer begins in `data`.
    #[inline]
    fn block_start(&self, layer: usize, block: u32) -> usize {
        assert!((block as usize) < self.blocks, "block {block} of {}", self.blocks);
        assert!(layer < self.shape.layers, "layer {layer} of {}", self.shape.layers);
        block as usize * self.shape.block() + layer * self.shape.layer_block()
    }

    /// Keys `[head_dim, BLOCK_TOKENS]` and values `[BLOCK_TOKENS, head_dim]` of a head in a block.
    #[inline(always)]
    pub(super) fn head(
        &self,
        layer: usize,
        block: u32,
        kv_head: usize,
    ) -> (&[[u16; BLOCK_TOKENS]], &[u16]) {
        let len = self.shape.head_block();
        let head = &self.data.halves()[self.block_start(layer, block) + kv_head * len..][..len];
        let (keys, values) = head.split_at(len / 2);
        (keys.as_chunks().0, values)
    }

    /// One layer, for threads that write different tokens to it.
    pub(super) fn writer(&mut self, layer: usize) -> LayerWriter<'_> {
        assert!(layer < self.shape.layers, "layer {layer} of {}", self.shape.layers);
        let data =
            self.data.halves_mut().as_mut_ptr().wrapping_add(layer * self.shape.layer_block());
        LayerWriter { shape: self.shape, blocks: self.blocks, data, borrow: PhantomData }
    }
}

/// A layer of the cache, of which different threads may write different tokens.
pub(super) struct LayerWriter<'a> {
    shape: KvShape,
    blocks: usize,
    /// Where the layer begins in the first block.
    data: *mut u16,
    borrow: PhantomData<&'a mut KvCache>,
}

// SAFETY: it stands for `&mut KvCache`, of which the users of `write` write disjoint tokens.
unsafe impl Sync for LayerWriter<'_> {}

impl LayerWriter<'_> {
    /// Writes the key and value (`[kv_heads · head_dim]` each) of the token at `place`.
    ///
    /// # Safety
    /// No two threads may write the same slot of the same block.
    ///
    /// # Panics
    /// When the place lies outside its blocks or the cache.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(
        &self,
        simd: S,
        place: Place<'_>,
        key: &[f32],
        value: &[f32],
    ) {
        let (dim, position) = (self.shape.head_dim, place.position as usize);
        let (block, slot) = (place.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        assert!((block as usize) < self.blocks, "block {block} of {}", self.blocks);
        assert_eq!(key.len(), self.shape.kv_heads * dim, "a key of the wrong size");
        assert_eq!(value.len(), key.len(), "a value of the wrong size");
        // SAFETY: the block exists, so its part of the layer is inside the cache.
        let start = unsafe { self.data.add(block as usize * self.shape.block()) };
        let heads = key.chunks_exact(dim).zip(value.chunks_exact(dim)).enumerate();
        let mut halves = [0; LANES];
        for (head, (key, value)) in heads {
            // SAFETY: `kv_heads` such parts make a layer's part of a block.
            let keys = unsafe { start.add(head * self.shape.head_block()) };
            let key = key.as_chunks::<LANES>().0;
            for (chunk, floats) in key.iter().enumerate() {
                simd.narrow(simd.load(floats), &mut halves);
                for (lane, half) in halves.iter().enumerate() {
                    // SAFETY: inside the head's keys, and this slot is ours alone.
                    unsafe { *keys.add((chunk * LANES + lane) * BLOCK_TOKENS + slot) = *half };
                }
            }
            // SAFETY: the values follow the keys.
            let values = unsafe { keys.add(dim * BLOCK_TOKENS + slot * dim) };
            for (chunk, floats) in value.as_chunks::<LANES>().0.iter().enumerate() {
                simd.narrow(simd.load(floats), &mut halves);
                // SAFETY: inside the head's values, and this slot is ours alone.
                unsafe { values.add(chunk * LANES).cast::<[u16; LANES]>().write_unaligned(halves) };
            }
        }
    }
}

/// Where a row of the batch stands: the blocks of its sequence, in order, and its position in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Block numbers; the row's own block is among them.
    pub(super) blocks: &'a [u32],
    /// Tokens before this one.
    pub(super) position: u32,
}

/// Where the rows of a batch stand in the cache. Made anew for each batch in buffers that stay.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The block tables of all sequences, one after the other.
    tables: Vec<u32>,
    rows: Vec<Row>,
    tiles: Vec<Tile>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    table_start: usize,
    table_len: usize,
    position: u32,
}

/// Consecutive rows of one sequence that walk its keys together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub(super) first: usize,
    pub(super) rows: usize,
}

impl Places {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.tables.clear();
        self.rows.clear();
        self.tiles.clear();
    }

    /// Appends rows of one sequence, whose blocks are `blocks`, at `positions`. At most `tile_rows` of them
    /// walk the keys together: see [`super::Attention::tile_rows`]. It does not change what is computed.
    pub fn push(&mut self, blocks: &[u32], positions: &[u32], tile_rows: usize) {
        let (table_start, table_len) = (self.tables.len(), blocks.len());
        self.tables.extend_from_slice(blocks);
        for tile in positions.chunks(tile_rows.max(1)) {
            self.tiles.push(Tile { first: self.rows.len(), rows: tile.len() });
            let rows =
                tile.iter().map(|position| Row { table_start, table_len, position: *position });
            self.rows.extend(rows);
        }
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    #[inline]
    pub(super) fn row(&self, index: usize) -> Place<'_> {
        let row = self.rows[index];
        let blocks = &self.tables[row.table_start..][..row.table_len];
        Place { blocks, position: row.position }
    }

    pub(super) fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Keys that the row furthest on sees.
    pub(super) fn longest(&self) -> usize {
        self.rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0)
    }
}
