//! What can be asked of an answer: the prompt's own chances, where it ends, and that it is a sentence.

use super::*;
use crate::GrammarSource;

/// A request that scores a text instead of going on from it.
fn score(prompt: &[u32]) -> GenerationRequest {
    GenerationRequest { prompt_logprobs: Some(3), ..request(prompt, 0) }
}

#[test]
fn a_prompt_is_scored_to_the_bits_of_having_been_generated() {
    let engine = engine(options());
    let said = collect(engine.submit(request(&[10, 11, 12], 150)).unwrap()).unwrap();
    let text = [&[10, 11, 12][..], &said.ids].concat();
    let scored = collect(engine.submit(score(&text)).unwrap()).unwrap();
    assert_eq!(scored.prompt.len(), text.len() - 1, "nothing precedes the first token");
    // In a prompt a mark is text; in an answer it is not.
    let visible = |mut score: TokenLogprob| {
        score.token.hidden = false;
        score
    };
    let generated: Vec<_> = said.logprobs.into_iter().map(visible).collect();
    assert_eq!(scored.prompt[2..], generated);
    assert_eq!((scored.ids.len(), scored.reason), (0, Some(FinishReason::Length)));
    assert_eq!(engine.stats().generation_tokens_total(), 150, "a score generates nothing");
    // With an answer, the scores come before it and change nothing of it.
    let mut both = request(&[10, 11, 12], 150);
    both.prompt_logprobs = Some(0);
    let both = collect(engine.submit(both).unwrap()).unwrap();
    assert_eq!((both.prompt.len(), both.ids), (2, said.ids));
}

#[test]
fn scores_do_not_depend_on_company_chunks_or_preemption() {
    let prompt: Vec<u32> = (0..200).map(|n| 3 + (n * 37) % 250).collect();
    let alone = collect(engine(options()).submit(score(&prompt)).unwrap()).unwrap();
    let crowd = engine(EngineOptions { kv_bytes: Some(9 * BLOCK_BYTES), ..options() });
    let streams: Vec<_> =
        (0..4).map(|n| crowd.submit(request(&[10 + n; 30], 200)).unwrap()).collect();
    let scores: Vec<_> = (0..3).map(|_| crowd.submit(score(&prompt)).unwrap()).collect();
    for generation in scores {
        assert_eq!(collect(generation).unwrap(), alone);
    }
    assert!(streams.into_iter().all(|stream| collect(stream).is_ok()));
    assert!(crowd.stats().preemptions_total() > 0);
}

#[test]
fn only_a_score_may_generate_nothing() {
    let refused = engine(options()).submit(request(&[1], 0)).unwrap_err();
    assert!(matches!(refused, SubmitError::Parameter { parameter: "max_tokens", .. }));
}

#[test]
fn no_end_is_drawn_before_the_minimum() {
    let engine = engine(options());
    let mut eager = request(&[5], 10);
    eager.ignore_eos = false;
    eager.sampling =
        SamplingParams { temperature: 0.0, logit_bias: vec![(2, 100.0)], ..Default::default() };
    eager.min_tokens = 4;
    let answer = collect(engine.submit(eager.clone()).unwrap()).unwrap();
    assert_eq!((answer.ids.len(), answer.ids[4]), (5, 2));
    assert!(!answer.ids[..4].contains(&2));
    assert_eq!(answer.reason, Some(FinishReason::Stop));
    // A stop token is an end like the model's own, even where that one is ignored.
    eager.ignore_eos = true;
    eager.stop_token_ids = vec![2];
    assert_eq!(collect(engine.submit(eager).unwrap()).unwrap(), answer);
}

#[test]
fn an_answer_is_a_sentence_of_its_grammar() {
    let engine = engine(options());
    let grammar = engine.compile(&GrammarSource::Regex("[a-z]{3,5}(, [a-z]{3,5}){2}\\.".into()));
    let grammar = grammar.unwrap();
    let ask = |seed: u64, choice: u32| {
        let mut request = request(&[10, 11], 60);
        request.ignore_eos = false;
        request.grammar = Some(grammar.clone());
        request.sampling = SamplingParams { seed, temperature: 1.5, ..Default::default() };
        request.choice = choice;
        request
    };
    let mut alone = Vec::new();
    for seed in 0..6 {
        let answer = collect(engine.submit(ask(seed, 0)).unwrap()).unwrap();
        assert_eq!(answer.reason, Some(FinishReason::Stop), "{}", answer.text);
        let words: Vec<&str> = answer.text.strip_suffix('.').unwrap().split(", ").collect();
        assert_eq!(words.len(), 3, "{}", answer.text);
        assert!(words.iter().all(|word| (3..=5).contains(&word.len())), "{}", answer.text);
        alone.push(answer);
    }
    // Choices that share the compiled grammar do not share where they are in it.
    let together: Vec<_> = (0..6).map(|seed| engine.submit(ask(seed, 0)).unwrap()).collect();
    let together: Vec<_> = together.into_iter().map(|one| collect(one).unwrap()).collect();
    assert_eq!(together, alone);
    let other = collect(engine.submit(ask(0, 1)).unwrap()).unwrap();
    assert_ne!(other.text, alone[0].text, "the choice is part of the key");
    let mut cut = ask(0, 0);
    cut.max_tokens = Some(2);
    assert_eq!(collect(engine.submit(cut).unwrap()).unwrap().reason, Some(FinishReason::Length));
    let mut endless = ask(0, 0);
    endless.ignore_eos = true;
    assert!(matches!(engine.submit(endless), Err(SubmitError::Parameter { .. })));
}

/// A grammar so ambiguous that the further an answer goes the more the parser has to follow: too much in the end.
#[test]
fn a_grammar_that_fails_ends_its_request_alone() {
    let engine = engine(options());
    let lark = "start: s\ns: s s | s s s | s s s s | s s s s s | /[ab]/";
    let grammar = engine.compile(&GrammarSource::Lark(lark.into())).unwrap();
    let mut failing = request(&[10], 250);
    failing.ignore_eos = false;
    failing.grammar = Some(grammar);
    failing.sampling.logit_bias = vec![(2, -100.0)];
    let neighbour = engine.submit(request(&[20, 30], 200)).unwrap();
    let outcome = collect(engine.submit(failing).unwrap());
    assert!(
        matches!(&outcome, Err(GenerationError::Request(why)) if why.contains("too complex")),
        "{outcome:?}"
    );
    assert_eq!(collect(neighbour).unwrap().ids.len(), 200);
}
