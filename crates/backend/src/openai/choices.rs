//! A request's generations side by side: one for each choice of each prompt.

use futures_util::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use inferno_engine::{
    Engine, Finish, FinishReason, Generation, GenerationEvent, GenerationRequest, SubmitError,
    Timings,
};

/// What happens to all of them, in the order in which it happens. Dropping it cancels all.
pub struct Choices {
    events: SelectAll<BoxStream<'static, (usize, GenerationEvent)>>,
    count: usize,
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Choices").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Choices {
    /// Submits all or none: those taken before one is refused are cancelled.
    pub fn submit(
        engine: &Engine,
        requests: impl Iterator<Item = GenerationRequest>,
    ) -> Result<Self, SubmitError> {
        let generations = requests.map(|request| engine.submit(request));
        let generations = generations.collect::<Result<Vec<_>, _>>()?;
        let count = generations.len();
        let events = generations.into_iter().enumerate().map(|(index, generation)| {
            let next = |mut generation: Generation| async move {
                let event = generation.next().await?;
                Some((event, generation))
            };
            stream::unfold(generation, next).map(move |event| (index, event)).boxed()
        });
        Ok(Self { events: stream::select_all(events), count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The next event and whose it is; `None` after the end of all. Cancel-safe.
    pub async fn next(&mut self) -> Option<(usize, GenerationEvent)> {
        self.events.next().await
    }
}

/// The end of a request whose prompts have `choices` each: a prompt counts once, whatever the number of its
/// choices, and each stage took as long as its longest.
pub fn together(finishes: &[Finish], choices: usize) -> Finish {
    let prompts = || finishes.iter().step_by(choices.max(1));
    let cut = finishes.iter().any(|finish| finish.reason == FinishReason::Length);
    let longest = |stage: fn(&Timings) -> std::time::Duration| {
        finishes.iter().map(|finish| stage(&finish.timings)).max().unwrap_or_default()
    };
    Finish {
        reason: if cut { FinishReason::Length } else { FinishReason::Stop },
        prompt_tokens: prompts().map(|finish| finish.prompt_tokens).sum(),
        completion_tokens: finishes.iter().map(|finish| finish.completion_tokens).sum(),
        cached_tokens: prompts().map(|finish| finish.cached_tokens).sum(),
        timings: Timings {
            queue: longest(|timings| timings.queue),
            prefill: longest(|timings| timings.prefill),
            decode: longest(|timings| timings.decode),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_prompt_counts_once_and_every_choice_counts() {
        let finish = |reason, prompt_tokens, completion_tokens, ms| Finish {
            reason,
            prompt_tokens,
            completion_tokens,
            cached_tokens: prompt_tokens / 2,
            timings: Timings { decode: Duration::from_millis(ms), ..Timings::default() },
        };
        let all = [
            finish(FinishReason::Stop, 10, 1, 5),
            finish(FinishReason::Stop, 10, 2, 9),
            finish(FinishReason::Length, 4, 3, 7),
            finish(FinishReason::Stop, 4, 4, 1),
        ];
        let whole = together(&all, 2);
        assert_eq!(
            (whole.prompt_tokens, whole.completion_tokens, whole.cached_tokens),
            (14, 10, 7)
        );
        assert_eq!(whole.reason, FinishReason::Length);
        assert_eq!(whole.timings.decode, Duration::from_millis(9));
        assert_eq!(together(&all[..2], 2).reason, FinishReason::Stop);
    }
}
