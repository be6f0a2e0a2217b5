//! Several choices, several prompts, prompts repeated and scored: through the whole path, with the real model.

use inferno_tests::{MODEL, client::Client, fleet::Fleet};
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";

fn ask(more: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 1.0, "seed": 11});
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("objects") };
    fields.extend(more);
    body
}

fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().expect("choices");
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index, "{answer}");
    }
    choices.iter().map(|choice| choice["text"].as_str().expect("text")).collect()
}

/// The choices of a stream, put together by their index; and how often the choice changed from event to event.
fn assembled(events: &[Value], count: usize) -> (Vec<String>, usize) {
    let (mut texts, mut last, mut changes) = (vec![String::new(); count], None, 0);
    for choice in events.iter().filter_map(|event| event["choices"].get(0)) {
        let index = choice["index"].as_u64().expect("an index") as usize;
        let text = [&choice["text"], &choice["delta"]["content"]];
        texts[index].extend(text.into_iter().filter_map(Value::as_str));
        changes += usize::from(last.replace(index).is_some_and(|last| last != index));
    }
    (texts, changes)
}

#[tokio::test]
async fn each_choice_is_its_own_and_comes_again() {
    let fleet = Fleet::start(2).await;
    let answer = fleet.post(TEXT, &ask(json!({"n": 3}))).await.ok();
    let three = texts(&answer);
    assert!(three[0] != three[1] && three[1] != three[2] && three[0] != three[2], "{three:?}");
    assert_eq!(answer["usage"]["prompt_tokens"], 4, "the prompt counts once");
    assert_eq!(answer["usage"]["completion_tokens"], 24);
    // The number of siblings changes nothing, and neither does the backend.
    let two = fleet.post(TEXT, &ask(json!({"n": 2}))).await.ok();
    assert_eq!(texts(&two), three[..2]);
    let one = fleet.post(TEXT, &ask(json!({}))).await.ok();
    assert_eq!(texts(&one), three[..1]);
    let streamed = ask(json!({"n": 3, "stream": true, "stream_options": {"include_usage": true}}));
    let events = Client::new().stream(fleet.traffic, TEXT, &streamed).await.rest().await;
    let (again, changes) = assembled(&events, 3);
    assert_eq!(again, three);
    assert!(changes > 3, "the choices come side by side, not one after the other");
    let ends = events.iter().filter(|event| event["choices"][0]["finish_reason"] == "length");
    assert_eq!(ends.count(), 3);
    let usage = &events.last().expect("events")["usage"];
    assert_eq!(usage, &answer["usage"]);
    assert!(events.iter().all(|event| event["seed"] == 11), "each event tells the seed");
}

#[tokio::test]
async fn a_chat_has_choices_too() {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "n": 2, "seed": 3, "max_tokens": 12, "temperature": 1.2, "stream": true,
        "messages": [{"role": "user", "content": "Write a sentence."}]});
    let events =
        Client::new().stream(fleet.traffic, "/v1/chat/completions", &body).await.rest().await;
    let openings = events.iter().filter(|e| e["choices"][0]["delta"]["role"] == "assistant");
    assert_eq!(openings.count(), 2);
    let (texts, _) = assembled(&events, 2);
    let mut whole = body.clone();
    whole["stream"] = false.into();
    let answer = fleet.post("/v1/chat/completions", &whole).await.ok();
    let contents = [0, 1].map(|n| answer["choices"][n]["message"]["content"].clone());
    assert_eq!(contents, [texts[0].as_str(), texts[1].as_str()]);
    assert_ne!(texts[0], texts[1]);
}

#[tokio::test]
async fn prompts_in_a_list_are_answered_in_order() {
    let fleet = Fleet::start(1).await;
    let prompts = json!(["The capital of France is", "The capital of Japan is"]);
    let greedy = |more| {
        ask(json!({"temperature": 0, "max_tokens": 1})).as_object().cloned().map(|mut fields| {
            let Value::Object(more) = more else { panic!("an object") };
            fields.extend(more);
            Value::Object(fields)
        })
    };
    let answer = fleet.post(TEXT, &greedy(json!({"prompt": prompts})).expect("a body")).await.ok();
    assert_eq!(texts(&answer), [" Paris", " Tokyo"]);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": answer["usage"]["prompt_tokens_details"]["cached_tokens"]}})
    );
    let ids = json!([[504, 3575, 282, 4649, 314], [504, 3575, 282, 4649, 314]]);
    let body = greedy(json!({"prompt": ids, "n": 2})).expect("a body");
    assert_eq!(texts(&fleet.post(TEXT, &body).await.ok()), [" Paris"; 4]);
    // The place in the list is part of the random key, so equal prompts do not get equal answers.
    let twice = fleet.post(TEXT, &ask(json!({"prompt": ["Once", "Once"]}))).await.ok();
    assert_ne!(texts(&twice)[0], texts(&twice)[1]);
    let first = fleet.post(TEXT, &ask(json!({"prompt": "Once"}))).await.ok();
    assert_eq!(texts(&twice)[0], texts(&first)[0]);
}

#[tokio::test]
async fn limits_are_told() {
    let fleet = Fleet::start(1).await;
    for (more, param) in [
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"prompt": vec!["x"; 65], "n": 2}), "prompt"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"n": 2, "best_of": 3}), "best_of"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"min_tokens": 9}), "min_tokens"),
        (json!({"prompt": [""]}), "prompt"),
        (json!({"stop_token_ids": [1_000_000]}), "stop_token_ids"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias"),
    ] {
        let error = fleet.post(TEXT, &ask(more.clone())).await.error(400);
        assert_eq!(error["param"], param, "{more}: {error}");
    }
    let all = ask(json!({"n": 2, "best_of": 2, "prompt": vec!["x"; 64], "max_tokens": 1}));
    assert_eq!(texts(&fleet.post(TEXT, &all).await.ok()).len(), 128);
}

#[tokio::test]
async fn a_prompt_is_repeated_and_scored() {
    let fleet = Fleet::start(1).await;
    let echo = ask(
        json!({"prompt": "The capital of France is", "echo": true, "logprobs": 2, "max_tokens": 2, "temperature": 0}),
    );
    let answer = fleet.post(TEXT, &echo).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "The capital of France is Paris.");
    let logprobs = &choice["logprobs"];
    assert_eq!(
        logprobs["tokens"],
        json!(["The", " capital", " of", " France", " is", " Paris", "."])
    );
    assert_eq!(logprobs["text_offset"], json!([0, 3, 11, 14, 21, 24, 30]));
    assert_eq!(logprobs["token_logprobs"][0], Value::Null, "nothing precedes the first");
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    let scored = logprobs["token_logprobs"].as_array().expect("numbers")[1..].iter();
    assert!(scored.clone().all(|logprob| logprob.as_f64().is_some_and(|value| value < 0.0)));
    // A text that was generated is scored with the very bits it was generated with.
    let text = json!({"prompt": "The capital of France is Paris.", "echo": true, "logprobs": 2, "max_tokens": 0});
    let score = fleet.post(TEXT, &ask(text)).await.ok();
    assert_eq!(score["choices"][0]["logprobs"], *logprobs);
    assert_eq!(score["usage"]["completion_tokens"], 0);
    let streamed = ask(
        json!({"prompt": "The capital of France is", "echo": true, "logprobs": 2, "max_tokens": 2, "temperature": 0, "stream": true, "n": 2}),
    );
    let events = Client::new().stream(fleet.traffic, TEXT, &streamed).await.rest().await;
    let (texts, _) = assembled(&events, 2);
    assert_eq!(texts, ["The capital of France is Paris."; 2]);
    for index in [0, 1] {
        let tokens = events.iter().map(|event| &event["choices"][0]);
        let tokens = tokens.filter(|choice| choice["index"] == index);
        let offsets: Vec<Value> = tokens
            .filter_map(|choice| choice["logprobs"]["text_offset"].as_array().cloned())
            .flatten()
            .collect();
        assert_eq!(json!(offsets), logprobs["text_offset"]);
    }
    let plain = ask(json!({"prompt": "Hello", "echo": true, "max_tokens": 0, "stream": true}));
    let events = Client::new().stream(fleet.traffic, TEXT, &plain).await.rest().await;
    assert_eq!(assembled(&events, 1).0, ["Hello"]);
}

#[tokio::test]
async fn an_answer_ends_where_it_is_told_to() {
    let fleet = Fleet::start(1).await;
    let chat = |more: Value| {
        let mut body = json!({"model": MODEL, "temperature": 0, "messages": [
            {"role": "user", "content": "What is the capital of Japan? Answer in one sentence."}]});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().expect("an object"));
        body
    };
    let content = |answer: Value| answer["choices"][0]["message"]["content"].clone();
    let ask = async |more: Value| fleet.post("/v1/chat/completions", &chat(more)).await;
    let included = ask(json!({"stop": "Japan is", "include_stop_str_in_output": true})).await.ok();
    assert_eq!(content(included), "The capital of Japan is");
    // Eight tokens with the end of the turn: it may not come before twelve.
    let longer = ask(json!({"min_tokens": 12, "max_tokens": 40})).await.ok();
    assert!(longer["usage"]["completion_tokens"].as_u64() > Some(12), "{longer}");
    let period = fleet.post("/tokenize", &json!({"model": MODEL, "prompt": " Japan"})).await.ok();
    let stopped = ask(json!({"stop_token_ids": period["tokens"]})).await.ok();
    assert_eq!(content(stopped.clone()), "The capital of");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn tokens_and_text_are_told_without_a_generation() {
    let fleet = Fleet::start(1).await;
    for path in ["/tokenize", "/v1/tokenize"] {
        let body = json!({"model": MODEL, "prompt": "The capital of France is", "return_token_strs": true});
        let answer = fleet.post(path, &body).await.ok();
        assert_eq!(answer["tokens"], json!([504, 3575, 282, 4649, 314]));
        assert_eq!((&answer["count"], &answer["max_model_len"]), (&json!(5), &json!(8192)));
        assert_eq!(answer["token_strs"][3], " France");
    }
    let chat = json!({"model": MODEL, "messages": [
        {"role": "user", "content": "What is the capital of Japan? Answer in one sentence."}]});
    let tokens = fleet.post("/tokenize", &chat).await.ok();
    assert_eq!(tokens["count"], 42, "as many as a chat's prompt has");
    for path in ["/detokenize", "/v1/detokenize"] {
        let body = json!({"model": MODEL, "tokens": tokens["tokens"]});
        let text = fleet.post(path, &body).await.ok()["prompt"].as_str().expect("text").to_owned();
        assert!(text.ends_with("in one sentence.<|im_end|>\n<|im_start|>assistant\n"), "{text}");
        let again = fleet.post("/tokenize", &json!({"model": MODEL, "prompt": text})).await.ok();
        assert_eq!(again["tokens"], tokens["tokens"]);
    }
    for (path, body, param) in [
        ("/tokenize", json!({"model": MODEL}), "prompt"),
        ("/tokenize", json!({"model": MODEL, "prompt": "x", "messages": []}), "messages"),
        (
            "/tokenize",
            json!({"model": MODEL, "prompt": "x", "add_special_token": true}),
            "add_special_token",
        ),
        ("/detokenize", json!({"model": MODEL, "tokens": [49_152]}), "tokens"),
        ("/detokenize", json!({"model": MODEL}), "tokens"),
    ] {
        let error = fleet.post(path, &body).await.error(400);
        assert_eq!(error["param"], param, "{path} {body}: {error}");
    }
    assert_eq!(fleet.get("/tokenize").await.status, 405);
}
