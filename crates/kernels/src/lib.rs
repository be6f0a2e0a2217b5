//! Numerics kernels: each result is a function of its inputs alone.
//!
//! Reproducible tokens need reproducible sums. Floating-point addition is not associative, so every
//! operation here writes its order of summation in the source: over fixed-width lanes, folded by one
//! tree, or along one chain. Row `r` of a result depends on row `r` of the input and on nothing else:
//! not on how many rows there are, on the number of threads, or on the vector width of the machine.
//!
//! One generic body per operation is compiled three times (plain, AVX2, AVX-512) and chosen once; see
//! [`Level`]. `fma` and `sqrt` are exactly rounded by IEEE 754 and therefore safe; `exp`, `ln`, `sin`
//! and `cos` are ours, because the C library picks a different one per CPU.
//!
//! Weights are read in place from the memory map, in GGUF's own block types. Q4_0, Q4_1 and Q8_0 have
//! kernels here; the other types use candle-core's dot products, on our [`ThreadPool`]: candle's own pool
//! is process-wide, spins without bound and cannot be sized per engine.
//!
//! This crate is *not* a tensor library: no autograd, no broadcasting, no allocation policy. It is the
//! only crate of the workspace with `unsafe` code.

pub mod cpu;
mod mapped;
pub mod math;
mod pool;

pub use cpu::{Cpu, Level};
pub use mapped::MappedFile;
pub use pool::ThreadPool;
