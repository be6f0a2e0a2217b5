//! Answers that are sentences of a schema, an expression or a grammar, from a model too small to write them unaided.

use inferno_tests::{MODEL, client::Client, fleet::Fleet};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn ask(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": MODEL, "temperature": 1.5, "max_tokens": 300,
        "messages": [{"role": "user", "content": prompt}]});
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("objects") };
    fields.extend(more);
    body
}

fn contents(answer: &Value) -> Vec<(String, &str)> {
    let choices = answer["choices"].as_array().expect("choices").iter();
    let content =
        |choice: &'_ Value| choice["message"]["content"].as_str().expect("text").to_owned();
    choices
        .map(|choice| (content(choice), choice["finish_reason"].as_str().expect("why")))
        .collect()
}

/// Fields of objects within objects, an enumeration, an array of some length, bounds, and letters beyond ASCII.
fn person() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "mood": {"enum": ["fröhlich", "müde", "🦀"]},
            "age": {"type": "integer", "minimum": 18, "maximum": 99},
            "home": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 12}, "floor": {"type": ["integer", "null"], "minimum": -2, "maximum": 40}},
                "required": ["city", "floor"],
                "additionalProperties": false,
            },
            "marks": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "mood", "age", "home", "marks"],
        "additionalProperties": false,
    }}})
}

fn is_person(value: &Value) -> bool {
    let length = |value: &Value| value.as_str().map(|text| text.chars().count());
    let (home, marks) = (&value["home"], value["marks"].as_array());
    // -0 is an integer to JSON schema, and a float to serde_json.
    let whole = |floor: f64| floor.fract() == 0.0 && (-2.0..=40.0).contains(&floor);
    let floor = home["floor"].is_null() || home["floor"].as_f64().is_some_and(whole);
    let marks = marks.is_some_and(|marks| {
        (1..=3).contains(&marks.len())
            && marks
                .iter()
                .all(|mark| mark.as_f64().is_some_and(|mark| (0.0..=1.0).contains(&mark)))
    });
    value.as_object().is_some_and(|fields| fields.len() == 5)
        && length(&value["name"]).is_some_and(|length| (1..=20).contains(&length))
        && ["fröhlich", "müde", "🦀"].iter().any(|mood| value["mood"] == *mood)
        && value["age"].as_u64().is_some_and(|age| (18..=99).contains(&age))
        && length(&home["city"]).is_some_and(|length| length <= 12)
        && floor
        && marks
}

#[tokio::test]
async fn a_schema_is_kept_whatever_is_drawn() {
    let fleet = Fleet::start(1).await;
    let mut moods = std::collections::BTreeSet::new();
    for seed in 0..3 {
        let more = json!({"response_format": person(), "n": 4, "seed": seed, "logprobs": true});
        let answer = fleet.post(CHAT, &ask("Describe a person as JSON.", more)).await.ok();
        for (content, reason) in contents(&answer) {
            assert_eq!(reason, "stop", "{content}");
            let value: Value = serde_json::from_str(&content).expect(&content);
            assert!(is_person(&value), "{content}");
            moods.insert(value["mood"].to_string());
        }
        // Log-probabilities are the model's own: what a grammar forces may be as unlikely as it will.
        let first = &answer["choices"][0]["logprobs"]["content"][0];
        assert!(first["token"].as_str().is_some_and(|token| token.starts_with('{')), "{first}");
        assert!(first["logprob"].as_f64().is_some_and(|logprob| logprob < -1.0), "{first}");
    }
    assert!(moods.len() > 1, "more than one was drawn: {moods:?}");
}

#[tokio::test]
async fn alone_in_company_and_streamed_it_is_the_same() {
    let fleet = Fleet::start(2).await;
    let body = |more| ask("Describe a person as JSON.", more);
    let one = json!({"response_format": person(), "seed": 5, "max_tokens": 60});
    let alone = fleet.post(CHAT, &body(one.clone())).await.ok();
    let mut four = one.clone();
    four["n"] = 4.into();
    let together = fleet.post(CHAT, &body(four)).await.ok();
    assert_eq!(alone["choices"][0], together["choices"][0]);
    let mut streamed = one.clone();
    streamed["stream"] = true.into();
    let events = Client::new().stream(fleet.traffic, CHAT, &body(streamed)).await.rest().await;
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(alone["choices"][0]["message"]["content"], text);
}

#[tokio::test]
async fn any_object_expressions_choices_and_grammars() {
    let fleet = Fleet::start(1).await;
    let post = |prompt: &'static str, more: Value| {
        let fleet = &fleet;
        async move { fleet.post(CHAT, &ask(prompt, more)).await.ok() }
    };
    // Shown what is wanted, even this model soon closes the object that it opened.
    let examples = "JSON: {\"a\": 1}\nJSON: {\"b\": [2]}\nJSON:";
    let object = json!({"model": MODEL, "prompt": examples, "response_format": {"type": "json_object"},
        "n": 4, "seed": 1, "temperature": 0.7, "max_tokens": 100});
    let answer = fleet.post("/v1/completions", &object).await.ok();
    let whole = answer["choices"].as_array().expect("choices").iter();
    let whole: Vec<&Value> = whole.filter(|choice| choice["finish_reason"] == "stop").collect();
    assert!(!whole.is_empty(), "one at least came to its end: {answer}");
    for choice in whole {
        let text = choice["text"].as_str().expect("text");
        assert!(serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()), "{text}");
    }
    let date = json!({"guided_regex": "20[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]", "n": 4, "seed": 2});
    for (content, reason) in contents(&post("A date?", date).await) {
        assert_eq!((content.len(), reason), (10, "stop"), "{content}");
        let month: u32 = content[5..7].parse().expect(&content);
        assert!((1..=12).contains(&month) && content.starts_with("20"), "{content}");
    }
    let choice =
        json!({"structured_outputs": {"choice": ["yes", "no", "per\"haps"]}, "n": 4, "seed": 3});
    for (content, reason) in contents(&post("Is it so?", choice).await) {
        assert!(["yes", "no", "per\"haps"].contains(&content.as_str()), "{content}");
        assert_eq!(reason, "stop");
    }
    let lark = "start: term (\" + \" term)~1..3\nterm: NUMBER | \"(\" term \" * \" term \")\"\nNUMBER: /[1-9][0-9]?/";
    let lark = json!({"guided_grammar": lark, "n": 4, "seed": 4, "max_tokens": 200});
    for (content, reason) in contents(&post("A sum?", lark).await) {
        let depth = content.matches('(').count();
        assert_eq!(depth, content.matches(" * ").count(), "{content}");
        assert!(reason == "length" || content.contains(" + "), "{content}");
        assert!(content.chars().all(|c| "0123456789 +*()".contains(c)), "{content}");
    }
    // The text route has it too, and a stop string still counts.
    let text = json!({"model": MODEL, "prompt": "Digits:", "guided_regex": "[0-9]{30}", "stop": "7", "seed": 1, "max_tokens": 64});
    let answer = fleet.post("/v1/completions", &text).await.ok();
    let digits = answer["choices"][0]["text"].as_str().expect("text");
    assert!(
        digits.len() < 30 && digits.chars().all(|c| c.is_ascii_digit() && c != '7'),
        "{digits}"
    );
}

#[tokio::test]
async fn an_answer_that_is_cut_says_so() {
    let fleet = Fleet::start(1).await;
    let more = json!({"response_format": person(), "max_tokens": 5, "seed": 1});
    let answer = fleet.post(CHAT, &ask("Describe a person.", more)).await.ok();
    let (content, reason) = contents(&answer).remove(0);
    assert_eq!(reason, "length");
    assert!(serde_json::from_str::<Value>(&content).is_err(), "{content}");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_the_reason() {
    let fleet = Fleet::start(1).await;
    let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    for (more, param, reason) in [
        (schema(json!({"type": "strange"})), "response_format.json_schema.schema", "strange"),
        (
            schema(json!({"uniqueItems": true, "type": "array"})),
            "response_format.json_schema.schema",
            "uniqueItems",
        ),
        (json!({"guided_regex": "("}), "guided_regex", ""),
        (json!({"guided_regex": "(?=x)"}), "guided_regex", ""),
        (json!({"guided_grammar": "root ::= \"x\""}), "guided_grammar", ""),
        (json!({"guided_regex": "x".repeat(5_000)}), "guided_regex", "4096"),
    ] {
        let error = fleet.post(CHAT, &ask("x", more.clone())).await.error(400);
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("invalid_grammar"), &json!(param)),
            "{error}"
        );
        assert!(error["message"].as_str().is_some_and(|text| text.contains(reason)), "{error}");
    }
    let both = ask("x", json!({"guided_regex": "x", "response_format": {"type": "json_object"}}));
    assert_eq!(fleet.post(CHAT, &both).await.error(400)["param"], "guided_regex");
    for (field, value) in [("ignore_eos", json!(true)), ("min_tokens", json!(1))] {
        let endless = ask("x", json!({"guided_regex": "x", field: value}));
        assert_eq!(fleet.post(CHAT, &endless).await.error(400)["param"], field);
    }
}
