//! What can be wrong with a GGUF file.

use inferno_kernels::cpu::WeightError;

/// What is wrong with a file. Offsets are bytes from its beginning.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Not a GGUF file, or a damaged one.
    #[error("not a readable GGUF file: byte {at}: {reason}")]
    Format {
        /// Where.
        at: usize,
        /// What was found there, and what the limit is if there is one.
        reason: String,
    },
    /// A metadata key is absent.
    #[error("the metadata key {0} is missing")]
    MissingKey(String),
    /// A metadata value is of another kind or out of range.
    #[error("the metadata key {key} (byte {at}) is not {expected}")]
    WrongValue {
        /// The key.
        key: String,
        /// Where its value begins.
        at: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// An entry of a list in the metadata cannot be used.
    #[error("the metadata key {key} (byte {at}): entry {index} {reason}")]
    WrongEntry {
        /// The key.
        key: String,
        /// Where the list begins.
        at: usize,
        /// The entry's place in the list.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is absent.
    #[error("the tensor {0} is missing")]
    MissingTensor(String),
    /// A tensor has another shape than the metadata says.
    #[error("the tensor {name} has the shape {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the metadata calls for.
        expected: Vec<usize>,
    },
    /// A tensor's data cannot be used.
    #[error("the tensor {name} (byte {at}): {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// Where its data begins.
        at: usize,
        /// Why.
        source: WeightError,
    },
    /// A tensor has a type that there are no kernels for.
    #[error("the tensor {name} is of the type {found}, which is not supported")]
    TensorType {
        /// Its name.
        name: String,
        /// The type's name.
        found: &'static str,
    },
    /// A matrix of the model has NaN or infinity in a block.
    #[error("the tensor {name}: the block at byte {at} holds what is not a finite number")]
    BlockNotFinite {
        /// Its name.
        name: String,
        /// Where the block begins.
        at: usize,
    },
    /// A vector of the model holds NaN or infinity.
    #[error("the tensor {name} (byte {at}): element {index} is {value}, not a finite number")]
    NotFinite {
        /// Its name.
        name: String,
        /// Where its data begins.
        at: usize,
        /// Which element.
        index: usize,
        /// Its value.
        value: f32,
    },
}
