//! How many tokens a request may take, pure.

use crate::{envelope::Envelope, route::Route, transform::Defaults};
use serde_json::Value;

/// How many tokens a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Its prompt's and its answer's.
    pub(crate) amount: u64,
    /// Its prompt's, roughly.
    pub(crate) prompt: u64,
    /// The request does not say how long its answer may be.
    pub(crate) is_assumed: bool,
}

impl Need {
    /// Of a request with `prompt` tokens, and with the `defaults` of its key for what it does not say. An answer whose
    /// length nobody says is taken to have `assumed` tokens.
    pub(crate) fn of(
        route: Route,
        envelope: &Envelope<'_>,
        defaults: Option<&Defaults>,
        prompt: u64,
        assumed: u64,
    ) -> Self {
        // Whatever passes through may generate, if it has what looks like a prompt.
        let is_generation = route.generates()
            || route == Route::Passthrough
                && (envelope.prompt.is_some() || envelope.tools.is_some());
        if !is_generation {
            return Self { amount: prompt, prompt, is_assumed: false };
        }
        let by_key = |name: &str| {
            let (_, value) = defaults?.iter().find(|(field, _)| *field == name)?;
            Value::as_u64(value)
        };
        let most = envelope.answer_tokens_max;
        let most =
            most.or_else(|| by_key("max_completion_tokens")).or_else(|| by_key("max_tokens"));
        let answers = envelope.answers.or_else(|| by_key("n")).unwrap_or(1);
        let answer = most.unwrap_or(assumed).saturating_mul(answers.max(1));
        Self { amount: prompt.saturating_add(answer), prompt, is_assumed: most.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(route: Route, fields: &str, defaults: &[&str]) -> (u64, bool) {
        let body = format!(r#"{{"model":"m"{fields}}}"#);
        let envelope = Envelope::parse(body.as_bytes(), |_| {}).expect("valid");
        let mut of_key = Defaults::default();
        defaults.iter().for_each(|pair| of_key.add_pair(pair).expect("valid"));
        let need = Need::of(route, &envelope, Some(&of_key), 10, 500);
        (need.amount, need.is_assumed)
    }

    #[test]
    fn it_is_the_prompt_and_the_longest_answers_that_are_allowed() {
        assert_eq!(need(Route::Chat, "", &[]), (510, true));
        assert_eq!(need(Route::Chat, r#","max_tokens":7,"n":3"#, &[]), (31, false));
        assert_eq!(need(Route::Completions, r#","n":0,"max_tokens":7"#, &[]), (17, false));
        assert_eq!(need(Route::Chat, "", &["max_tokens=20", "n=2"]), (50, false));
        assert_eq!(need(Route::Chat, r#","max_tokens":7"#, &["max_tokens=20"]), (17, false));
        let huge = format!(r#","max_tokens":{0},"n":{0}"#, u64::MAX);
        assert_eq!(need(Route::Chat, &huge, &[]), (u64::MAX, false));
    }

    #[test]
    fn what_generates_nothing_has_no_answer() {
        assert_eq!(need(Route::Embeddings, r#","input":"a""#, &["max_tokens=20"]), (10, false));
        assert_eq!(need(Route::Passthrough, "", &[]), (10, false));
        assert_eq!(need(Route::Passthrough, r#","input":"a""#, &[]), (510, true));
    }
}
