//! Products of activations with quantised weights, against candle-core's `QMatMul` on the same bytes.
//!
//! ```text
//! CANDLE_NUM_THREADS=THREADS cargo bench -p inferno-benches --bench matmul -- THREADS [ROUNDS] [TYPE …]
//! ```
//!
//! A pass is the products of eight decoder layers of width 1024: 100 million weights, more than caches hold. Rounds
//! alternate between the two; printed are medians. One row is a step of decoding, 16 a full batch of it, 256 a
//! prefill. The plain level is measured on one layer and scaled.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use inferno_benches::median;
use inferno_kernels::cpu::{BlockType, Weight};
use inferno_kernels::{Cpu, Level, MappedFile};
use std::borrow::Cow;
use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `(rows, cols)` of a layer's matrices: query, key and value in one, attention output, gate and up, down.
const SHAPES: [(usize, usize); 4] = [(1536, 1024), (1024, 1024), (6144, 1024), (1024, 3072)];
/// Layers of a pass.
const LAYERS: usize = 8;
/// Rows of activations.
const BATCHES: [usize; 3] = [1, 16, 256];
/// Rows that are quantised; a matrix repeats them.
const ROWS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let threads = arguments.next().ok_or("usage: matmul THREADS [ROUNDS] [TYPE …]")?.parse()?;
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let wanted: Vec<String> = arguments.collect();
    println!("{threads} threads, medians of {rounds}: ms a pass, GMAC/s; ratio at the best level");
    for dtype in BlockType::ALL {
        if wanted.is_empty() || wanted.contains(&dtype.to_string()) {
            measure(dtype, threads, rounds)?;
        }
    }
    Ok(())
}

/// One block type: ours at every level beside candle's.
fn measure(dtype: BlockType, threads: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let (weights, peers) = model(dtype)?;
    let cpus: Vec<Cpu> = Level::available()
        .into_iter()
        .map(|level| Cpu::with_level(threads, level))
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    cpus[0].repack(&weights)?;
    let bytes: usize = weights.iter().map(Weight::bytes).sum();
    let repack = started.elapsed();
    println!("{dtype}: repacked at {:.2} GB/s", bytes as f64 / 1e9 / repack.as_secs_f64());
    for batch in BATCHES {
        let mut times = vec![Vec::new(); cpus.len() + 1];
        for round in 0..=rounds {
            for (index, cpu) in cpus.iter().enumerate() {
                let plain = cpu.level() == Level::available()[0];
                let layers = if plain { 1 } else { LAYERS };
                if plain && (round > 1 || batch > 16) {
                    continue;
                }
                let time = ours(cpu, &weights[..layers * SHAPES.len()], batch);
                times[index].push(time * (LAYERS / layers) as u32);
            }
            times[cpus.len()].push(theirs(&peers, batch)?);
        }
        // The first round warms both.
        for times in times.iter_mut().filter(|times| times.len() > 1) {
            times.remove(0);
        }
        report(batch, &cpus, times);
    }
    Ok(())
}

fn report(batch: usize, cpus: &[Cpu], times: Vec<Vec<Duration>>) {
    let macs = (LAYERS * batch * SHAPES.iter().map(|(n, k)| n * k).sum::<usize>()) as f64;
    let names = cpus.iter().map(|cpu| cpu.level().to_string()).chain(["candle".into()]);
    let mut medians = Vec::new();
    print!("  {batch:3} rows");
    for (name, times) in names.zip(times).filter(|(_, times)| !times.is_empty()) {
        let seconds = median(times).as_secs_f64();
        print!("   {name} {:8.2} ms {:6.1}", 1e3 * seconds, macs / 1e9 / seconds);
        medians.push(seconds);
    }
    println!("   ratio {:.1}", medians[medians.len() - 1] / medians[medians.len() - 2]);
}

/// The matrices of all layers, ours and candle's.
fn model(dtype: BlockType) -> Result<(Vec<Weight>, Vec<QMatMul>), Box<dyn Error>> {
    let (mut weights, mut peers) = (Vec::new(), Vec::new());
    for shape in std::iter::repeat_n(SHAPES, LAYERS).flatten() {
        let (rows, cols) = shape;
        let bytes = bytes(dtype, rows, cols)?;
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&bytes)?;
        let map = Arc::new(MappedFile::open(file.path())?);
        weights.push(Weight::mapped(map, 0, dtype, rows, cols)?);
        let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, ggml(dtype))?;
        peers.push(QMatMul::from_qtensor(QTensor::new(storage, shape)?)?);
    }
    Ok((weights, peers))
}

/// A matrix as a file holds it.
fn bytes(dtype: BlockType, rows: usize, cols: usize) -> candle_core::Result<Vec<u8>> {
    let few = Tensor::rand(-0.1f32, 0.1, (ROWS, cols), &Device::Cpu)?;
    let few = QTensor::quantize(&few, ggml(dtype))?;
    Ok(few.data()?.repeat(rows / ROWS))
}

fn ours(cpu: &Cpu, weights: &[Weight], batch: usize) -> Duration {
    let x = vec![0.5; batch * 3072];
    let mut out = vec![0.0; batch * 6144];
    let started = Instant::now();
    for weight in weights {
        let (x, out) = (&x[..batch * weight.cols()], &mut out[..batch * weight.rows()]);
        cpu.matmul(std::slice::from_ref(weight), black_box(x), out);
    }
    started.elapsed()
}

fn theirs(peers: &[QMatMul], batch: usize) -> candle_core::Result<Duration> {
    let inputs: Vec<Tensor> = SHAPES
        .iter()
        .map(|(_, cols)| Tensor::rand(-1f32, 1.0, (batch, *cols), &Device::Cpu))
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    for (peer, x) in peers.iter().zip(inputs.iter().cycle()) {
        black_box(peer.forward(x)?);
    }
    Ok(started.elapsed())
}

fn ggml(dtype: BlockType) -> GgmlDType {
    match dtype {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
    }
}
