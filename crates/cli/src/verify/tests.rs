//! Saved answers of every form, and what differs in them.

use super::saved::SavedError;
use super::*;
use serde_json::{Value, json};

fn request() -> Value {
    json!({"model": "m", "prompt": "p", "stream": true, "stream_options": {"include_usage": true}, "n": 2})
}

fn answer(second: &str, logprob: f64) -> Value {
    let choice = |index: u64, text: &str| {
        json!({"index": index, "text": text, "finish_reason": "stop", "logprobs": {
            "tokens": [text], "token_logprobs": [logprob], "top_logprobs": [{text: logprob}], "text_offset": [0]}})
    };
    json!({"id": "x", "system_fingerprint": "fp_a", "seed": 18_446_744_073_709_551_615u64, "usage": {"completion_tokens": 2},
           "choices": [choice(0, "one"), choice(1, second)]})
}

fn read(answer: &Value) -> Answer {
    Answer::of(std::slice::from_ref(answer)).expect("an answer")
}

fn verdict(saved: &Value, now: &Value) -> Verdict {
    compare(&read(saved), &read(now))
}

fn differs(saved: &Value, now: &Value) -> (u64, &'static str, usize) {
    match verdict(saved, now) {
        Verdict::Different(differences) => {
            (differences[0].choice, differences[0].what, differences[0].at)
        }
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn every_form_in_which_an_answer_is_saved_is_read() {
    let event = |index: u64, text: &str| json!({"seed": 7, "system_fingerprint": "fp_a", "choices": [{"index": index, "text": text}]});
    let events = [
        event(1, "tw"),
        event(0, "one"),
        event(1, "o"),
        json!({"choices": [], "usage": {"completion_tokens": 2}}),
    ];
    let lines: Vec<String> = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
    let transcript = format!(": hello\n\n{}data: [DONE]\n\n", lines.concat());
    let request = request();
    for (file, apart) in [
        (json!({"request": request, "response": events}).to_string(), false),
        (json!({"request": request, "response": transcript}).to_string(), false),
        (transcript.clone(), true),
    ] {
        let text = request.to_string();
        let saved = Saved::read(&file, apart.then_some(text.as_str())).expect("a saved answer");
        assert_eq!(saved.path, "/v1/completions");
        let texts: Vec<&str> =
            saved.answer.choices.values().map(|choice| choice.text.as_str()).collect();
        assert_eq!((texts, saved.answer.completion_tokens), (vec!["one", "two"], Some(2)));
        assert_eq!(
            saved.again().expect("a seed"),
            json!({"model": "m", "prompt": "p", "n": 2, "seed": 7})
        );
    }
    let broken = Saved::read(&lines.concat(), Some(&request.to_string())).expect_err("torn");
    assert_eq!(broken, SavedError::BrokenOff);
}

#[test]
fn a_file_of_no_use_says_why() {
    let request = request().to_string();
    let read =
        |file: &str, request: Option<&str>| Saved::read(file, request).expect_err("of no use");
    let pair = json!({"request": {}, "response": {"choices": [{"text": ""}]}}).to_string();
    assert_eq!(read("hello", Some(&request)), SavedError::NotAnAnswer);
    assert_eq!(read("data: {\n\ndata: [DONE]", Some(&request)), SavedError::Event { line: 1 });
    assert_eq!(read("{}", None), SavedError::NoRequest);
    assert_eq!(read("{}", Some(&request)), SavedError::NoChoices);
    assert_eq!(read("{}", Some("[]")), SavedError::NotARequest);
    assert_eq!(read(&pair, None), SavedError::NotARequest);
    assert_eq!(read(&pair, Some(&request)), SavedError::TwoRequests);
    let failed = r#"data: {"error":{"message":"gone"}}"#;
    assert_eq!(read(failed, Some(&request)), SavedError::Failed("gone".into()));
    let seedless = Saved::read(r#"{"choices":[{"text":"x"}]}"#, Some(&request)).expect("an answer");
    assert_eq!(seedless.again(), Err(SavedError::NoSeed));
}

#[test]
fn equal_answers_are_the_same_whatever_their_id() {
    let mut again = answer("two", -0.1);
    again["id"] = "another".into();
    again["created"] = 7.into();
    assert_eq!(verdict(&answer("two", -0.1), &again), Verdict::Same { scored: 2 });
}

#[test]
fn the_first_difference_is_found() {
    let saved = answer("two", -0.1);
    assert_eq!(differs(&saved, &answer("twelve", -0.1)), (1, "text", 2));
    assert_eq!(differs(&saved, &answer("two", -0.100_000_000_000_000_02)), (0, "logprobs", 0));
    let mut cut = saved.clone();
    cut["choices"][1]["finish_reason"] = "length".into();
    assert_eq!(differs(&saved, &cut), (1, "finish_reason", 0));
    let mut fewer = saved.clone();
    fewer["choices"].as_array_mut().expect("choices").pop();
    assert_eq!(differs(&saved, &fewer), (1, "choices", 0));
    assert_eq!(differs(&fewer, &saved), (1, "choices", 0));
    let mut unscored = saved.clone();
    unscored["choices"][0]["logprobs"] = Value::Null;
    assert_eq!(differs(&unscored, &saved), (0, "token", 0));
    let mut more = saved.clone();
    more["usage"]["completion_tokens"] = 3.into();
    assert_eq!(differs(&saved, &more), (0, "completion_tokens", 0));
    // Zero and minus zero are equal numbers of different bits.
    assert_eq!(differs(&answer("two", 0.0), &answer("two", -0.0)), (0, "logprobs", 0));
}

#[test]
fn another_fingerprint_is_said_before_anything_else() {
    let mut other = answer("quite another", -3.0);
    other["system_fingerprint"] = "fp_b".into();
    assert_eq!(verdict(&answer("two", -0.1), &other), Verdict::AnotherFingerprint);
    other["system_fingerprint"] = Value::Null;
    // Who tells no fingerprint is compared all the same.
    assert_eq!(differs(&answer("two", -0.1), &other), (0, "logprobs", 0));
}
