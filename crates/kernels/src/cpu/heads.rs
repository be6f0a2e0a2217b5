//! Between projection and attention: bias, norm and rotation of queries and keys, and keys and values to the
//! cache, in one pass over a row while it is near.

use super::Cpu;
use super::kv_cache::{KvCache, KvShape, LayerWriter, Place, Places};
use super::norm::rms_scale;
use super::rope::{RopeAngles, Turn};
use super::rows::SharedRows;
use super::simd::{Simd, instantiate_simd};

/// What happens to the projected heads of a layer. `None` is nothing.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// Query heads.
    pub heads: usize,
    /// Added to queries, keys and values, `[(heads + 2 · kv_heads) · head_dim]`.
    pub bias: Option<&'a [f32]>,
    /// The norm of the queries: over each `len` elements of them, so that `[head_dim]` is a norm a head and
    /// `[heads · head_dim]` one over all.
    pub query_norm: Option<&'a [f32]>,
    /// The same of the keys.
    pub key_norm: Option<&'a [f32]>,
    /// Added to the mean square in both norms.
    pub norm_eps: f32,
    /// The rotation of queries and keys.
    pub angles: Option<&'a RopeAngles>,
}

impl Cpu {
    /// Makes queries ready in place and writes keys and values to `layer` of the cache. `qkv`: `[rows, (heads +
    /// 2 · kv_heads) · head_dim]`, the rows standing at `places`. What is left of the keys in `qkv` is undefined.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn place_heads(
        &self,
        qkv: &mut [f32],
        heads: &Heads<'_>,
        layer: usize,
        places: &Places,
        cache: &mut KvCache,
    ) {
        let KvShape { kv_heads, head_dim, .. } = cache.shape();
        let width = (heads.heads + 2 * kv_heads) * head_dim;
        assert_eq!(qkv.len(), places.len() * width, "place_heads: rows and places differ");
        if let Some(angles) = heads.angles {
            assert!(angles.width() <= head_dim, "place_heads: the rotation is wider than a head");
        }
        let writer = cache.writer(layer);
        let qkv = SharedRows::new(qkv, width);
        self.for_rows(places.len(), 4 * width, &|row| {
            let turn = heads.angles.map(|angles| angles.row(row));
            // SAFETY: each row is taken by one part.
            let qkv = unsafe { qkv.row(row) };
            place(self.level(), qkv, heads, turn, head_dim, &writer, places.row(row));
        });
    }
}

instantiate_simd!(
    fn place(
        qkv: &mut [f32],
        heads: &Heads<'_>,
        turn: Option<Turn<'_>>,
        head_dim: usize,
        writer: &LayerWriter<'_>,
        place: Place<'_>,
    ) = place_body
);

#[inline(always)]
fn place_body<S: Simd>(
    simd: S,
    qkv: &mut [f32],
    heads: &Heads<'_>,
    turn: Option<Turn<'_>>,
    head_dim: usize,
    writer: &LayerWriter<'_>,
    place: Place<'_>,
) {
    if let Some(bias) = heads.bias {
        qkv.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
    let (queries, rest) = qkv.split_at_mut(heads.heads * head_dim);
    let (keys, values) = rest.split_at_mut(rest.len() / 2);
    for (x, norm) in [(&mut *queries, heads.query_norm), (&mut *keys, heads.key_norm)] {
        if let Some(weight) = norm {
            for x in x.chunks_exact_mut(weight.len()) {
                let scale = rms_scale(x, heads.norm_eps);
                x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
            }
        }
        if let Some(turn) = turn {
            turn.apply(x, head_dim);
        }
    }
    // SAFETY: each row of a batch stands at a place of its own.
    unsafe { writer.write(simd, place, keys, values) };
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;
