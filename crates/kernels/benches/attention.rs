//! What attention costs a token, at every instruction level: `cargo bench -p inferno-kernels --bench attention`.
//!
//! Shapes of SmolLM2-135M and Gemma 3 270M, random keys. Decode is one token after a context; prefill is the
//! sum over a prompt, by tiles. The best of many runs, one thread: on a busy machine the others
//! measure its other work.

use inferno_kernels::cpu::{Attention, AttentionScratch, Heads, KvCache, KvShape, Places};
use inferno_kernels::{Cpu, Level};
use std::time::Instant;

const RUNS: usize = 31;
const BLOCK: usize = inferno_kernels::cpu::BLOCK_TOKENS;

struct Model {
    name: &'static str,
    shape: KvShape,
    heads: usize,
}

const MODELS: [Model; 2] = [
    Model {
        name: "SmolLM2-135M",
        shape: KvShape { layers: 30, kv_heads: 3, head_dim: 64 },
        heads: 9,
    },
    Model {
        name: "Gemma 3 270M",
        shape: KvShape { layers: 18, kv_heads: 1, head_dim: 256 },
        heads: 4,
    },
];

/// Milliseconds over all layers for the last `rows` of `context` positions.
fn milliseconds(model: &Model, level: Level, context: usize, rows: usize) -> f64 {
    let cpu = Cpu::with_level(1, level).expect("threads");
    let KvShape { layers, kv_heads, head_dim } = model.shape;
    let width = (model.heads + 2 * kv_heads) * head_dim;
    let mut cache = KvCache::new(model.shape, context.div_ceil(BLOCK));
    let table: Vec<u32> = (0..context.div_ceil(BLOCK) as u32).collect();
    let positions: Vec<u32> = (0..context as u32).collect();
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761) % 65_536) as f32 / 65_536.0 - 0.5;
    let mut qkv: Vec<f32> = (0..context * width).map(noise).collect();
    let mut places = Places::default();
    let tile_rows = Attention::tile_rows(model.heads, kv_heads);
    places.push(&table, &positions, tile_rows);
    let plain = Heads {
        heads: model.heads,
        bias: None,
        query_norm: None,
        key_norm: None,
        norm_eps: 0.0,
        angles: None,
    };
    for layer in 0..layers {
        cpu.place_heads(&mut qkv, &plain, layer, &places, &mut cache);
    }
    places.clear();
    places.push(&table, &positions[context - rows..], tile_rows);
    let mut out = vec![0.0; rows * model.heads * head_dim];
    let (q, mut room) = (&qkv[(context - rows) * width..], AttentionScratch::default());
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            for layer in 0..layers {
                let heads = model.heads;
                let spec = Attention { layer, heads, scale: 0.1, softcap: None, window: None };
                cpu.attention(&cache, &places, &spec, (q, width), &mut room, &mut out);
            }
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[0]
}

#[allow(clippy::print_stdout)]
fn main() {
    for model in &MODELS {
        for level in Level::available().into_iter().skip(1) {
            let ms = |context, rows| milliseconds(model, level, context, rows);
            println!(
                "{}, {level}: decode at 64 {:.3} ms, at 512 {:.3} ms, at 2048 {:.3} ms; prefill of 512 {:.1} ms",
                model.name,
                ms(64, 1),
                ms(512, 1),
                ms(2048, 1),
                ms(512, 512),
            );
        }
    }
}
