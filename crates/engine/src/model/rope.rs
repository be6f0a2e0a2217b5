//! Rotary frequencies from metadata: width, base and scaling.

use super::family::Family;
use super::metadata::Metadata;
use crate::error::ModelFileError;
use inferno_kernels::cpu::Rope;
use inferno_kernels::math;

/// Rotations per token below and above which YaRN stretches wholly and not at all, by default.
const BETA_SLOW: f32 = 1.0;
const BETA_FAST: f32 = 32.0;

/// Base, width and scaling that a file states.
pub(super) struct Rotation {
    base: f64,
    width: usize,
    scaling: Scaling,
}

/// How positions beyond those of the first training are squeezed into it.
enum Scaling {
    /// Positions divided by a factor: 1 is none.
    Linear(f64),
    /// Llama 3's and LongRoPE's: each pair's frequency divided by a factor of its own, after `linear`, and the
    /// turned elements multiplied.
    Factors { factors: Vec<f32>, linear: f64, magnitude: f64 },
    /// YaRN (Peng et al., 2023).
    Yarn { factor: f64, original: f64, fast: f64, slow: f64, magnitude: f64 },
}

impl Rotation {
    /// Of the layers without a window, and of all where those have no base of their own.
    pub(super) fn read(data: &mut Metadata<'_>, head_dim: usize) -> Result<Self, ModelFileError> {
        let width = data.integer("rope.dimension_count")?.unwrap_or(head_dim);
        if width == 0 || width % 2 == 1 || width > head_dim {
            return Err(ModelFileError::unsupported(
                format!("rotating {width} of {head_dim} elements"),
                "an even part",
            ));
        }
        let base = data.float("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = Scaling::read(data, width)?;
        check_base(base)?;
        Ok(Self { base: f64::from(base), width, scaling })
    }

    /// Of the layers with a window: another base, and positions as they are.
    pub(super) fn of_windows(&self, base: f32) -> Result<Self, ModelFileError> {
        check_base(base)?;
        Ok(Self { base: f64::from(base), width: self.width, scaling: Scaling::Linear(1.0) })
    }

    /// As tables for the kernels.
    pub(super) fn rope(&self, family: &Family) -> Rope {
        let log_base = math::ln(self.base);
        let plain = |pair: usize| math::exp(-log_base * (2 * pair) as f64 / self.width as f64);
        let frequencies = (0..self.width / 2).map(|pair| match &self.scaling {
            Scaling::Linear(factor) => plain(pair) / factor,
            Scaling::Factors { factors, linear, .. } => {
                plain(pair) / linear / f64::from(factors[pair])
            }
            Scaling::Yarn { factor, original, fast, slow, .. } => {
                let kept = self.kept(pair, *original, *fast, *slow);
                plain(pair) * (kept + (1.0 - kept) / factor)
            }
        });
        let magnitude = match self.scaling {
            Scaling::Linear(_) => 1.0,
            Scaling::Factors { magnitude, .. } | Scaling::Yarn { magnitude, .. } => magnitude,
        };
        Rope { frequencies: frequencies.collect(), magnitude, layout: family.rope_layout }
    }

    /// How much of its own frequency a pair keeps under YaRN: all where it turns more than `fast` times over the
    /// original context, nothing below `slow` times, and a straight line between (over the pairs' numbers).
    fn kept(&self, pair: usize, original: f64, fast: f64, slow: f64) -> f64 {
        let width = self.width as f64;
        let pair_of = |turns: f64| {
            width * math::ln(original / (turns * std::f64::consts::TAU))
                / (2.0 * math::ln(self.base))
        };
        let low = pair_of(fast).floor().max(0.0);
        let high = pair_of(slow).ceil().min(width - 1.0);
        1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }
}

fn check_base(base: f32) -> Result<(), ModelFileError> {
    if base > 1.0 {
        return Ok(());
    }
    Err(ModelFileError::unsupported(format!("a rope base of {base}"), "numbers above 1"))
}

impl Scaling {
    fn read(data: &mut Metadata<'_>, width: usize) -> Result<Self, ModelFileError> {
        // As in llama.cpp, a file that gives a factor and no type means linear, older files have another key,
        // and a factor of 0 is none.
        let factor = match data.positive("rope.scaling.factor")? {
            None => data.positive("rope.scale_linear")?,
            given => given,
        };
        let factor = f64::from(factor.unwrap_or(1.0));
        let key = data.key("rope.scaling.type");
        let kind = data.file.text(&key)?.unwrap_or("linear").to_owned();
        if data.file.has("rope_freqs.weight") {
            let factors = factors(data, "rope_freqs.weight", width)?;
            let linear = if kind == "linear" { factor } else { 1.0 };
            return Ok(Self::Factors { factors, linear, magnitude: 1.0 });
        }
        match kind.as_str() {
            "none" => Ok(Self::Linear(1.0)),
            "linear" if data.file.has("rope_factors_long.weight") => {
                Self::longrope(data, width, factor)
            }
            "linear" => Ok(Self::Linear(factor)),
            "longrope" => Self::longrope(data, width, factor),
            "yarn" => Self::yarn(data, factor),
            _ => Err(ModelFileError::unsupported(
                format!("{kind:?} rope scaling"),
                "none, linear, llama3, yarn, longrope",
            )),
        }
    }

    /// LongRoPE (Ding et al., 2024): short factors for models that stay within their original context, long
    /// ones for the others, whatever the length of a request, so that what is cached stays true.
    fn longrope(
        data: &mut Metadata<'_>,
        width: usize,
        linear: f64,
    ) -> Result<Self, ModelFileError> {
        let trained = data.size("context_length")?;
        let original = data.integer("rope.scaling.original_context_length")?.unwrap_or(trained);
        let short = factors(data, "rope_factors_short.weight", width)?;
        let long = factors(data, "rope_factors_long.weight", width)?;
        let magnitude = data.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let factors = if trained > original { long } else { short };
        Ok(Self::Factors { factors, linear, magnitude: f64::from(magnitude) })
    }

    fn yarn(data: &Metadata<'_>, factor: f64) -> Result<Self, ModelFileError> {
        let trained = data.size("context_length")?;
        let original = data.integer("rope.scaling.original_context_length")?.unwrap_or(trained);
        let float =
            |name, default| Ok::<_, ModelFileError>(data.positive(name)?.unwrap_or(default));
        let magnitude = f64::from(float("rope.scaling.attn_factor", 1.0)?);
        Ok(Self::Yarn {
            factor,
            original: original.max(1) as f64,
            fast: f64::from(float("rope.scaling.yarn_beta_fast", BETA_FAST)?),
            slow: f64::from(float("rope.scaling.yarn_beta_slow", BETA_SLOW)?),
            magnitude: magnitude * (1.0 + 0.1 * math::ln(factor.max(1.0))),
        })
    }
}

/// Divisors of the frequencies, one a pair; all positive.
fn factors(data: &mut Metadata<'_>, name: &str, width: usize) -> Result<Vec<f32>, ModelFileError> {
    let factors = data.file.vector(name, width / 2)?;
    match factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        None => Ok(factors),
        Some(factor) => Err(ModelFileError::unsupported(
            format!("a factor of {factor} in the tensor {name}"),
            "positive numbers",
        )),
    }
}
