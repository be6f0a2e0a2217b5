//! From logits to a token.
//!
//! A draw is a function of the logits, the parameters, the key and the position: no state carries over, so
//! a generation resumed anywhere, or recomputed after a preemption, draws what it drew before.

mod candidates;
mod penalties;
mod random;
#[cfg(test)]
mod tests;

pub use candidates::Scratch;
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

/// Tokens that may not be drawn, however likely they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restrictions<'a> {
    /// One bit a token, the lowest of each word first: only those set may be drawn, and none beyond the last word.
    pub allowed: Option<&'a [u32]>,
    /// These may not, in addition.
    pub banned: &'a [u32],
}

impl Restrictions<'_> {
    fn is_none(&self) -> bool {
        self.allowed.is_none() && self.banned.is_empty()
    }

    /// Whether `token` may be drawn.
    #[must_use]
    pub fn allow(&self, token: u32) -> bool {
        let word = |words: &[u32]| words.get(token as usize / 32).copied().unwrap_or(0);
        self.allowed.is_none_or(|words| word(words) >> (token % 32) & 1 == 1)
            && !self.banned.contains(&token)
    }

    fn apply(&self, logits: &mut [f32]) {
        if let Some(words) = self.allowed {
            let beyond = logits.len().min(words.len() * 32);
            logits[beyond..].fill(f32::NEG_INFINITY);
            for (word, logits) in words.iter().zip(logits.chunks_mut(32)) {
                match *word {
                    0 => logits.fill(f32::NEG_INFINITY),
                    u32::MAX => {}
                    word => forbid(word, logits),
                }
            }
        }
        for token in self.banned {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

fn forbid(word: u32, logits: &mut [f32]) {
    for (bit, logit) in logits.iter_mut().enumerate() {
        if word >> bit & 1 == 0 {
            *logit = f32::NEG_INFINITY;
        }
    }
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
    /// `scratch` is to be shared by all samplers of a thread.
    ///
    /// # Errors
    /// When the logits are unusable, or the restrictions leave no token.
    pub fn sample(
        &self,
        logits: &[f32],
        history: &History,
        restrictions: Restrictions<'_>,
        position: usize,
        scratch: &mut Scratch,
    ) -> Result<u32, SamplingError> {
        if has_nan(logits) {
            return Err(SamplingError::NotFinite);
        }
        if self.params.takes_the_likeliest() && restrictions.is_none() {
            let largest = finite(self.level.max(logits))?;
            return Ok(first_of(logits, largest));
        }
        let adjusted = &mut scratch.adjusted;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        for (id, bias) in &self.params.logit_bias {
            adjusted[*id as usize] += bias;
        }
        history.penalise(adjusted, &self.params);
        restrictions.apply(adjusted);
        let largest = finite(self.level.max(adjusted))?;
        if self.params.temperature == 0.0 {
            return Ok(first_of(adjusted, largest));
        }
        let scale = 1.0 / self.params.temperature.max(f32::MIN_POSITIVE * 4.0);
        for logit in adjusted.iter_mut() {
            // Against the largest first: a tiny temperature must not overflow.
            *logit = (*logit - largest) * scale;
        }
        let uniform = self.key.uniform(position as u64);
        Ok(candidates::draw(scratch, &self.params, uniform, self.level))
    }
}

/// In blocks without a branch inside, so that it vectorises.
fn has_nan(logits: &[f32]) -> bool {
    logits.chunks(256).any(|block| block.iter().fold(false, |nan, logit| nan | logit.is_nan()))
}

fn finite(largest: f32) -> Result<f32, SamplingError> {
    if largest.is_finite() { Ok(largest) } else { Err(SamplingError::NotFinite) }
}

/// The lowest id whose logit is `largest`.
fn first_of(logits: &[f32], largest: f32) -> u32 {
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32
}

/// The log-probability of `token` and of the `top` likeliest tokens under the unmodified `logits`
/// (`[vocab]`), as OpenAI's API reports them: the model's own distribution, whatever was drawn from.
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
        hidden: tokenizer.visible_bytes(id).is_empty(),
        logprob: (f64::from(logits[id as usize] - largest) - normaliser) as f32,
    };
    let likeliest = candidates::top(logits, top, level);
    TokenLogprob { token: chance(token), top: likeliest.into_iter().map(chance).collect() }
}
