//! What the header says of tensors: types, shapes, and where the data lies.

use super::GgufError;
use super::reader::Reader;
use inferno_kernels::cpu::BlockType;

/// Bytes of a tensor's name; GGML's own limit is 64.
pub const TENSOR_NAME_BYTES_MAX: usize = 256;
/// Dimensions of a tensor, as GGML has it.
pub const DIMENSIONS_MAX: u32 = 4;

/// A type of tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorType {
    pub(super) name: &'static str,
    /// Elements of a block.
    block: u64,
    /// Bytes of a block.
    bytes: u64,
    /// What reads it; `None` where nothing does.
    pub(super) dtype: Option<BlockType>,
}

impl TensorType {
    /// `ggml_type` of `ggml.h`. Types without a reader are listed, so that a refusal names them and that the
    /// places of the other tensors can be checked.
    #[rustfmt::skip]
    fn from_code(code: u32) -> Option<Self> {
        let read = |dtype: BlockType| Self {
            name: dtype.name(),
            block: dtype.elements() as u64,
            bytes: dtype.bytes() as u64,
            dtype: Some(dtype),
        };
        let unread = |name, block, bytes| Self { name, block, bytes, dtype: None };
        Some(match code {
            0 => read(BlockType::F32),
            1 => read(BlockType::F16),
            2 => read(BlockType::Q4_0),
            3 => read(BlockType::Q4_1),
            6 => read(BlockType::Q5_0),
            7 => read(BlockType::Q5_1),
            8 => read(BlockType::Q8_0),
            9 => unread("Q8_1", 32, 36),
            10 => unread("Q2_K", 256, 84),
            11 => unread("Q3_K", 256, 110),
            12 => read(BlockType::Q4K),
            13 => read(BlockType::Q5K),
            14 => read(BlockType::Q6K),
            15 => unread("Q8_K", 256, 292),
            16 => unread("IQ2_XXS", 256, 66),
            17 => unread("IQ2_XS", 256, 74),
            18 => unread("IQ3_XXS", 256, 98),
            19 => unread("IQ1_S", 256, 50),
            20 => unread("IQ4_NL", 32, 18),
            21 => unread("IQ3_S", 256, 110),
            22 => unread("IQ2_S", 256, 82),
            23 => unread("IQ4_XS", 256, 136),
            24 => unread("I8", 1, 1),
            25 => unread("I16", 1, 2),
            26 => unread("I32", 1, 4),
            27 => unread("I64", 1, 8),
            28 => unread("F64", 1, 8),
            29 => unread("IQ1_M", 256, 56),
            30 => read(BlockType::BF16),
            34 => unread("TQ1_0", 256, 54),
            35 => unread("TQ2_0", 256, 66),
            39 => unread("MXFP4", 32, 17),
            _ => return None,
        })
    }
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) tensor_type: TensorType,
    /// Slowest dimension first, as `[rows, cols]`; GGUF writes the fastest first.
    pub(super) shape: Vec<usize>,
    /// First byte in the file, once [`lay_out`] has checked it.
    pub(super) start: usize,
    /// Bytes of data.
    len: u64,
    /// Where the header describes it.
    described_at: usize,
}

impl TensorInfo {
    /// Reads name and description; `start` still counts from the beginning of the data.
    pub(super) fn read<'f>(reader: &mut Reader<'f>) -> Result<(&'f str, Self), GgufError> {
        let begin = *reader;
        let name = reader.name(TENSOR_NAME_BYTES_MAX, "the name of a tensor")?;
        let error = |reason: String| begin.error(format!("the tensor {name}: {reason}"));
        let dimensions = reader.u32("the number of dimensions of a tensor")?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(error(format!("{dimensions} dimensions; 1 to {DIMENSIONS_MAX} are taken")));
        }
        let shape = (0..dimensions).map(|_| reader.u64("the shape of a tensor"));
        let shape = shape.collect::<Result<Vec<u64>, _>>()?;
        let code = reader.u32("the type of a tensor")?;
        let tensor_type = TensorType::from_code(code)
            .ok_or_else(|| error(format!("{code} is not a type of tensors")))?;
        let start = reader.u64("the place of a tensor")?;
        let len = data_len(&shape, tensor_type).map_err(error)?;
        let sizes = shape.iter().rev().map(|size| usize::try_from(*size));
        let shape = sizes.collect::<Result<_, _>>().map_err(|e| error(e.to_string()))?;
        let start = usize::try_from(start).map_err(|e| error(e.to_string()))?;
        Ok((name, Self { tensor_type, shape, start, len, described_at: begin.at() }))
    }

    /// Elements, which [`TensorInfo::read`] found to fit.
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }
}

/// Bytes of a tensor's data.
fn data_len(shape: &[u64], of: TensorType) -> Result<u64, String> {
    let shown = || shape.iter().rev().collect::<Vec<_>>();
    if shape.contains(&0) {
        return Err(format!("the shape {:?} has no elements", shown()));
    }
    if !shape[0].is_multiple_of(of.block) {
        return Err(format!(
            "rows of {} elements are not whole blocks of {} ({})",
            shape[0], of.block, of.name
        ));
    }
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    elements
        .and_then(|elements| (elements / of.block).checked_mul(of.bytes))
        .ok_or_else(|| format!("the shape {:?} has more elements than can be counted", shown()))
}

/// Turns places in the data, which begins at `data`, into places in the file of `len` bytes.
///
/// # Errors
/// When a tensor is not aligned, reaches past the end of the file, or overlaps another.
pub(super) fn lay_out<'t>(
    tensors: impl Iterator<Item = (&'t String, &'t mut TensorInfo)>,
    data: usize,
    alignment: usize,
    len: usize,
) -> Result<(), GgufError> {
    let mut places = Vec::new();
    for (name, tensor) in tensors {
        let at = tensor.described_at;
        let error =
            |reason| GgufError::Format { at, reason: format!("the tensor {name}: {reason}") };
        if !tensor.start.is_multiple_of(alignment) {
            let start = tensor.start;
            return Err(error(format!("its place {start} is not a multiple of {alignment}")));
        }
        let start = data.checked_add(tensor.start);
        let needed = usize::try_from(tensor.len).ok();
        let end = start.zip(needed).and_then(|(start, needed)| start.checked_add(needed));
        let (Some(start), Some(end)) = (start, end.filter(|end| *end <= len)) else {
            let (start, needed) = (tensor.start, tensor.len);
            return Err(error(format!(
                "{needed} bytes from {data} + {start} reach past the end of the file, {len} bytes"
            )));
        };
        tensor.start = start;
        places.push((start, end, at, name.as_str()));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let [(_, end, _, one), (start, _, at, other)] = [pair[0], pair[1]];
        if start < end {
            let reason = format!("the tensors {one} and {other} overlap at byte {start}");
            return Err(GgufError::Format { at, reason });
        }
    }
    Ok(())
}
