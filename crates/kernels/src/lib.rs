//! Numerics kernels: each result is a function of its inputs alone.
//!
//! Reproducible tokens need reproducible sums. Floating-point addition is not associative, so every
//! operation here writes its order of summation in the source: over fixed-width lanes, folded by one
//! tree, or along one chain. Row `r` of a result depends on row `r` of the input and on nothing else:
//! not on how many rows there are, on the number of threads, or on the vector width of the machine.
//!
//! Weights are repacked once, when a model is loaded, in tiles of sixteen rows ([`cpu::Weight`]); activations are
//! quantised to eight bits. Products have kernels for scalar code, AVX2 and AVX-512 VNNI that give the same bits.
//!
//! Of the other operations, one generic body is compiled three times (plain, AVX2, AVX-512) and chosen once; see
//! [`Level`]. `fma` and `sqrt` are exactly rounded by IEEE 754 and therefore safe; `exp`, `ln`, `sin`
//! and `cos` are ours, because the C library picks a different one per CPU.
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
