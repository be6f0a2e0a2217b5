//! Grammars over the tiny model's tokens: one for each byte, and some words.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::gguf::GgufFile;
use crate::testing::TinyModel;
use serde_json::json;

fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write(&path).unwrap();
    Tokenizer::load(&GgufFile::open(&path).unwrap().unwrap()).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "sources are written where they are compiled")]
fn compile(source: GrammarSource) -> Result<Grammar, GrammarError> {
    Grammars::default().compile(&source, &tokenizer())
}

fn allows(grammar: &mut Grammar, token: u32) -> bool {
    grammar.mask().unwrap().is_allowed(token)
}

/// Whether `text` can be said token by token; whether the grammar could end there; whether it must.
fn say(grammar: &mut Grammar, text: &str) -> Option<(bool, bool)> {
    let tokenizer = tokenizer();
    let mut complete = false;
    for token in tokenizer.encode(text).unwrap() {
        if complete || !allows(grammar, token) {
            return None;
        }
        complete = grammar.consume(token).unwrap();
    }
    Some((complete || allows(grammar, tokenizer.eos()[0]), complete))
}

#[test]
fn a_schema_admits_what_it_describes_and_nothing_else() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 3},
            "size": {"enum": ["hello", "or"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 12},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
        },
        "required": ["name", "size", "count", "tags"],
        "additionalProperties": false,
    });
    let grammar = compile(GrammarSource::JsonSchema(schema)).unwrap();
    let said = |text: &str| say(&mut grammar.clone(), text);
    assert_eq!(
        said(r#"{"name":"日","size":"hello","count":12,"tags":[true,false]}"#),
        Some((true, true))
    );
    assert!(said(r#"{ "name": "" , "size": "or", "count": 3, "tags": [true]}"#).is_some());
    for wrong in [
        r#"{"size""#,
        r#"{"name":"four""#,
        r#"{"name":"","size":"red""#,
        r#"{"name":"","size":"or","count":13"#,
        r#"{"name":"","size":"or","count":3,"tags":[]"#,
        r#"[1]"#,
    ] {
        assert_eq!(said(wrong), None, "{wrong}");
    }
    assert_eq!(said(r#"{"name":"","#), Some((false, false)), "it cannot end in the middle");
    let spaces = |count: usize| said(&format!("{{{}\"name\"", " ".repeat(count)));
    assert!(spaces(24).is_some() && spaces(25).is_none(), "white space has an end");
}

#[test]
fn regular_expressions_choices_and_lark_work() {
    let mut regex = compile(GrammarSource::Regex("[a-c]{2,3}/x?".into())).unwrap();
    assert_eq!(say(&mut regex.clone(), "abc/x"), Some((true, true)));
    assert_eq!(say(&mut regex.clone(), "ab/"), Some((true, false)));
    assert_eq!(say(&mut regex, "abcd"), None);
    let choice = GrammarSource::Choice(vec!["a \"b\"\n".into(), "hello".into()]);
    let choice = compile(choice).unwrap();
    assert_eq!(say(&mut choice.clone(), "a \"b\"\n"), Some((true, true)));
    assert_eq!(say(&mut choice.clone(), "hello"), Some((true, true)));
    assert_eq!(say(&mut choice.clone(), "a b"), None);
    let many = (0..1024).map(|n| format!("choice {n}")).collect();
    let mut many = compile(GrammarSource::Choice(many)).unwrap();
    assert_eq!(say(&mut many, "choice 1023"), Some((true, true)));
    let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    let optional: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({"type": "null"}))).collect();
    let wide = json!({"type": "object", "properties": optional, "additionalProperties": false});
    let mut wide = compile(GrammarSource::JsonSchema(wide)).unwrap();
    assert_eq!(say(&mut wide, "{\"p7\":null,\"p99\":null}"), Some((true, true)));
    let lark = "start: sum\nsum: term (\"+\" term)*\nterm: /[0-9]/ | \"(\" sum \")\"";
    let lark = compile(GrammarSource::Lark(lark.into())).unwrap();
    assert_eq!(say(&mut lark.clone(), "1+(2+3)"), Some((true, false)));
    assert_eq!(say(&mut lark.clone(), "1+)"), None);
    let mut object = compile(GrammarSource::JsonObject).unwrap();
    assert_eq!(say(&mut object, "{\"a\": [1, null, {}]}"), Some((true, true)));
}

#[test]
fn marks_are_never_part_of_a_sentence() {
    let mut anything = compile(GrammarSource::Regex("(?s:.*)".into())).unwrap();
    let tokenizer = tokenizer();
    let mask = anything.mask().unwrap();
    let marks = [0, 1, 2].map(|mark| mask.is_allowed(mark));
    let ends = [0, 1, 2].map(|mark| tokenizer.eos().contains(&mark));
    assert_eq!(marks, ends, "those that end the answer alone");
    assert!(mask.is_allowed(3 + u32::from(b'x')));
}

/// A terminal of so many that each name the next one twice.
fn doubled(levels: usize) -> String {
    let terminals: Vec<String> =
        (0..levels).map(|n| format!("T{n}: T{} T{}", n + 1, n + 1)).collect();
    format!("start: T0\n{}\nT{levels}: \"x\"?", terminals.join("\n"))
}

#[test]
fn what_cannot_be_compiled_is_refused_with_the_reason() {
    let refused = |source: GrammarSource| match compile(source.clone()) {
        Ok(_) => panic!("compiled: {source:?}"),
        Err(error) => error.to_string(),
    };
    for (source, reason) in [
        (GrammarSource::JsonSchema(json!({"type": "strange"})), "strange"),
        (GrammarSource::JsonSchema(json!({"type": "array", "uniqueItems": true})), "uniqueItems"),
        (GrammarSource::JsonSchema(json!({"$ref": "#"})), "no sentence"),
        (GrammarSource::JsonSchema(json!({"not": {"multipleOf": 999_983}})), "multipleOf"),
        (GrammarSource::JsonSchema(json!(7)), "schema"),
        (GrammarSource::Regex("(".into()), "unclosed"),
        (GrammarSource::Regex("a".repeat(REGEX_BYTES_MAX + 1)), "4096"),
        (GrammarSource::Lark(" ".repeat(LARK_BYTES_MAX + 1)), "8192"),
        (GrammarSource::JsonSchema(json!({"const": "a".repeat(SCHEMA_BYTES_MAX)})), "65536"),
        (
            GrammarSource::JsonSchema(
                json!({"items": {"pattern": "a".repeat(REGEX_BYTES_MAX + 1)}}),
            ),
            "patterns",
        ),
        (GrammarSource::Regex("(".repeat(65)), "64 deep"),
        (GrammarSource::Lark("begin: \"x\"".into()), "start"),
        (GrammarSource::Lark("start: nowhere".into()), "nowhere"),
        (GrammarSource::Lark(doubled(25)), "written out"),
        (GrammarSource::Choice(vec![]), "1 to 1024"),
        (GrammarSource::Choice(vec![String::new()]), "empty"),
    ] {
        let said = refused(source.clone());
        assert!(said.contains(reason), "{source:?}: {said}");
    }
}

/// Each of these made a compiler of grammars run without end or out of stack, ours or another's. Where one
/// compiles, it is followed for some tokens, on a thread of ordinary size.
#[test]
fn hostile_sources_end_in_time() {
    let branches: Vec<Value> = (0..24)
        .map(|n| json!({"anyOf": [{"required": [format!("a{n}")]}, {"required": [format!("b{n}")]}]}))
        .collect();
    let mut nested = json!({"type": "string"});
    for _ in 0..100 {
        nested = json!({"type": "array", "items": nested});
    }
    let rules: Vec<String> = (0..450).map(|n| format!("r{n}: r{} r{}", n + 1, n + 1)).collect();
    let doubling = format!("start: r0\n{}\nr450: \"x\"", rules.join("\n"));
    let rules: Vec<String> = (0..700).map(|n| format!("r{n}: r{}", n + 1)).collect();
    let chain = format!("start: r0\n{}\nr700: \"x\"", rules.join("\n"));
    let links: serde_json::Map<String, Value> = (0..1_200)
        .map(|n| (format!("d{n}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}]})))
        .chain([("d1200".into(), json!({"type": "null"}))])
        .collect();
    for source in [
        GrammarSource::JsonSchema(json!({"type": "object", "allOf": branches})),
        GrammarSource::JsonSchema(nested),
        GrammarSource::JsonSchema(json!({"$ref": "#/$defs/d0", "$defs": links})),
        GrammarSource::JsonSchema(json!({"$ref": "https://example.com/schema.json"})),
        GrammarSource::JsonSchema(json!({"type": "string", "maxLength": 4_000_000_000u64})),
        GrammarSource::JsonSchema(json!({"type": "array", "minItems": 4_000_000_000u64})),
        GrammarSource::JsonSchema(json!({"type": "string", "pattern": "((a+)+)+$"})),
        GrammarSource::JsonSchema(json!({"type": "integer", "multipleOf": 997})),
        GrammarSource::Regex("(a|b|ab)*c{1,5000}(x*)*".into()),
        GrammarSource::Regex("(.*a.{20}){5}".into()),
        GrammarSource::Regex("(a{1000}){1000}".into()),
        GrammarSource::Regex("|".repeat(4_000)),
        GrammarSource::Regex("a?".repeat(2_000)),
        GrammarSource::Regex("a*b*".repeat(1_000)),
        GrammarSource::Regex("(a|b?){1,2000}".into()),
        GrammarSource::Regex("((a?){100}){100}".into()),
        GrammarSource::JsonSchema(json!({"type": "string", "pattern": "(a?b?){1000}"})),
        GrammarSource::Lark(format!("start: {}", "\"a\" ".repeat(2_000))),
        GrammarSource::Lark(format!("start: {}", "\"a\"? ".repeat(1_600))),
        GrammarSource::Lark(format!("start: /{}/", "a?".repeat(4_000))),
        GrammarSource::Lark(doubled(6)),
        GrammarSource::Lark(doubling),
        GrammarSource::Lark(chain),
        GrammarSource::Lark("start: start start | \"a\" |".into()),
        GrammarSource::Lark("start: %json {\"type\":\"object\"}".into()),
        GrammarSource::Lark("\u{0}".repeat(1000)),
    ] {
        // Whether it compiles does not matter; nor whether it can be followed to an end.
        if let Ok(mut grammar) = compile(source) {
            let _ = follow(&mut grammar);
        }
    }
}

fn follow(grammar: &mut Grammar) -> Result<usize, GrammarFailure> {
    for tokens in 0..30 {
        let Some(token) = grammar.mask()?.iter().filter(|token| *token > 2).nth(tokens % 2) else {
            return Ok(tokens);
        };
        if grammar.consume(token)? {
            return Ok(tokens + 1);
        }
    }
    Ok(30)
}
