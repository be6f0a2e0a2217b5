//! Penalties on tokens seen before.

use crate::request::SamplingParams;
use std::collections::{HashMap, HashSet};

/// What a generation has seen: which tokens stood in the prompt, and how often each was generated.
#[derive(Debug, Default)]
pub struct History {
    prompt: HashSet<u32>,
    generated: HashMap<u32, u32>,
}

impl History {
    /// The history at the beginning of an answer to `prompt`.
    #[must_use]
    pub fn new(prompt: &[u32]) -> Self {
        Self { prompt: prompt.iter().copied().collect(), generated: HashMap::new() }
    }

    /// Notes a generated token.
    pub fn push(&mut self, token: u32) {
        *self.generated.entry(token).or_default() += 1;
    }

    /// Applies the penalties of `params` to `logits` (`[vocab]`): presence and frequency to what was
    /// generated (OpenAI), repetition to the prompt too (Keskar et al., CTRL, 2019).
    pub(super) fn penalise(&self, logits: &mut [f32], params: &SamplingParams) {
        if params.repetition_penalty != 1.0 {
            let fresh = self.prompt.iter().filter(|id| !self.generated.contains_key(*id));
            for id in fresh.chain(self.generated.keys()) {
                let logit = &mut logits[*id as usize];
                let penalty = params.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            for (id, count) in &self.generated {
                let frequency = params.frequency_penalty * *count as f32;
                logits[*id as usize] -= params.presence_penalty + frequency;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(params: &SamplingParams) -> Vec<f32> {
        let mut history = History::new(&[0, 1]);
        history.push(1);
        history.push(2);
        history.push(2);
        let mut logits = vec![2.0, -2.0, 2.0, 2.0];
        history.penalise(&mut logits, params);
        logits
    }

    #[test]
    fn presence_counts_once_and_frequency_each_time_in_the_answer_only() {
        let params = SamplingParams { presence_penalty: 0.5, ..Default::default() };
        assert_eq!(penalised(&params), [2.0, -2.5, 1.5, 2.0]);
        let params = SamplingParams { frequency_penalty: 0.5, ..Default::default() };
        assert_eq!(penalised(&params), [2.0, -2.5, 1.0, 2.0]);
    }

    #[test]
    fn repetition_counts_once_in_prompt_and_answer() {
        let params = SamplingParams { repetition_penalty: 2.0, ..Default::default() };
        assert_eq!(penalised(&params), [1.0, -4.0, 1.0, 2.0]);
    }
}
