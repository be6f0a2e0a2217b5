//! From logits to a token.
//!
//! A draw is a function of the logits, the parameters, the key and the position: no state carries over, so
//! a generation resumed anywhere, or recomputed after a preemption, draws what it drew before.

mod candidates;
mod penalties;
mod random;
#[cfg(test)]
mod tests;

pub use penalties::History;
pub use random::Key;

use crate::request::{SamplingParams, TokenChance, TokenLogprob};
use crate::tokenizer::Tokenizer;
use inferno_kernels::{Level, math};

/// Why no token could be drawn.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SamplingError {
    /// A logit is not a number, or all are negative infinity.
    #[error("the model's logits are not finite")]
    NotFinite,
}

/// Draws the tokens of one generation.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    key: Key,
    level: Level,
}

impl Sampler {
    /// A sampler under `params`, drawing with `key`.
    #[must_use]
    pub fn new(params: SamplingParams, key: Key, level: Level) -> Self {
        Self { params, key, level }
    }

    /// Draws the token at `position` of the sequence from `logits` (`[vocab]`), given what came before.
    /// `adjusted` is scratch, to be shared by all samplers of a thread.
    ///
    /// # Errors
    /// When the logits are unusable.
    pub fn sample(
        &self,
        logits: &[f32],
        history: &History,
        position: usize,
        adjusted: &mut Vec<f32>,
    ) -> Result<u32, SamplingError> {
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        for (id, bias) in &self.params.logit_bias {
            adjusted[*id as usize] += bias;
        }
        history.penalise(adjusted, &self.params);
        let largest = self.level.max(adjusted);
        if !largest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(SamplingError::NotFinite);
        }
        if self.params.temperature == 0.0 {
            return Ok(first_of(adjusted, largest));
        }
        let scale = 1.0 / self.params.temperature.max(f32::MIN_POSITIVE * 4.0);
        for logit in adjusted.iter_mut() {
            // Against the largest first: a tiny temperature must not overflow.
            *logit = (*logit - largest) * scale;
        }
        let uniform = self.key.uniform(position as u64);
        Ok(candidates::draw(adjusted, &self.params, uniform, self.level))
    }
}

/// The lowest id whose logit is `largest`.
fn first_of(logits: &[f32], largest: f32) -> u32 {
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32
}

/// The log-probability of `token` and of the `top` likeliest tokens under the unmodified `logits`
/// (`[vocab]`), as OpenAI's API reports them.
#[must_use]
pub fn logprobs(
    logits: &[f32],
    token: u32,
    top: usize,
    tokenizer: &Tokenizer,
    level: Level,
) -> TokenLogprob {
    let largest = level.max(logits);
    let normaliser = math::ln(level.exp_sum(logits, largest));
    let chance = |id: u32| TokenChance {
        id,
        bytes: tokenizer.bytes(id).to_vec(),
        logprob: (f64::from(logits[id as usize] - largest) - normaliser) as f32,
    };
    let likeliest = candidates::top(logits, top, level);
    TokenLogprob { token: chance(token), top: likeliest.into_iter().map(chance).collect() }
}
