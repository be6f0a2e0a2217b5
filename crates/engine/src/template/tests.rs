#![allow(clippy::unwrap_used)]
use super::*;
use crate::gguf::GgufFile;
use crate::testing::TinyModel;

fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write(&path).unwrap();
    Tokenizer::load(&GgufFile::open(&path).unwrap().unwrap()).unwrap()
}

fn render(source: &str, content: &str) -> Result<String, PromptError> {
    let tokenizer = tokenizer();
    let message = Message { role: "user".into(), content: content.into(), name: None };
    let chat = Chat {
        messages: vec![message],
        add_generation_prompt: true,
        created_unix_s: 1_722_038_400,
    };
    Ok(tokenizer.decode(&Template::new(source, &tokenizer)?.render(&chat, &tokenizer)?))
}

#[test]
fn blocks_take_their_lines_with_them_as_in_hugging_face() {
    let source = "{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m.content.strip() }}]\n    {% endif %}\n{% endfor %}";
    assert_eq!(render(source, " hello ").unwrap(), "[hello]\n");
}

#[test]
fn the_clock_is_the_requests() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}", "").unwrap(), "27 Jul 2024");
    assert!(matches!(render("{{ strftime_now('%Q') }}", ""), Err(PromptError::Template(_))));
}

#[test]
fn a_template_may_refuse_in_its_own_words() {
    let refused = render("{{ raise_exception('roles must alternate') }}", "");
    assert!(
        matches!(refused, Err(PromptError::Refused(message)) if message == "roles must alternate")
    );
}

#[test]
fn json_is_pythons_and_not_escaped_for_html() {
    assert_eq!(render("{{ {'a': [1, '<b>']} | tojson }}", "").unwrap(), r#"{"a": [1, "<b>"]}"#);
    assert_eq!(render("{{ [1] | tojson(indent=2) }}", "").unwrap(), "[\n  1\n]");
}

#[test]
fn special_strings_in_messages_are_text_even_when_the_template_compares_them() {
    let source = "<|im_start|>{{ messages[0].content | trim }}<|im_end|>";
    let tokenizer = tokenizer();
    for content in ["x<|im_end|>y", "<|im_end|>", "ends with <|im_"] {
        assert_eq!(render(source, content).unwrap(), format!("<|im_start|>{content}<|im_end|>"));
        let template = Template::new(source, &tokenizer).unwrap();
        let message = Message { content: content.into(), ..Message::default() };
        let chat = Chat { messages: vec![message], ..Chat::default() };
        let ids = template.render(&chat, &tokenizer).unwrap();
        assert_eq!(
            ids.iter().filter(|id| **id < 3).count(),
            2,
            "{content}: only the template's own"
        );
    }
}

#[test]
fn endless_and_boundless_templates_are_cut_off() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% set x = a * b %}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless, ""), Err(PromptError::Template(_))));
    let boundless = "{% for a in range(9999) %}{{ messages[0].content }}{% endfor %}";
    assert!(matches!(render(boundless, &"x".repeat(4096)), Err(PromptError::Template(_))));
    let deep = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    assert!(matches!(render(deep, ""), Err(PromptError::Template(_))));
}

#[test]
fn invalid_jinja_is_an_error_and_no_panic() {
    assert!(matches!(render("{% if %}", ""), Err(PromptError::Template(_))));
}

/// A template of the longest length, of one thing inside another.
fn as_deep_as_can_be(begin: &str, open: &str, inner: &str, close: &str, end: &str) -> String {
    let levels = (SOURCE_MAX - 16) / (open.len() + close.len());
    [begin, &open.repeat(levels), inner, &close.repeat(levels), end].concat()
}

#[test]
fn the_deepest_expressions_are_compiled() {
    for operator in ["-", "not ", "1 ~ ", "1 + ", "1 if 1 else ", "1 and ", "2 ** "] {
        let source = as_deep_as_can_be("{{ ", operator, "1", "", " | string | length * 0 }}");
        // What it comes to does not matter; that it comes to something does.
        let rendered = render(&source, "");
        assert!(!matches!(rendered, Err(PromptError::Refused(_))), "{operator}");
    }
}

/// Templates that would take all memory, all time or all of the stack.
#[test]
fn bombs_do_not_go_off() {
    const LONG: &str = "{% set a = 'x' * 500000 %}";
    const LISTS: &str = "{% set ns = namespace(a=[]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}";
    const CYCLE: &str = "{% set ns = namespace() %}{% set ns.a = ns %}";
    const DEEP: &str = "{% set ns = namespace(a=[]) %}{% for i in range(2000) %}{% set ns.a = [ns.a] %}{% endfor %}";
    let bombs = [
        "{{ 'x' * 10 ** 9 }}".to_owned(),
        "{% for i in range(10 ** 9) %}{% endfor %}".into(),
        "{% set ns = namespace(a='x') %}{% for i in range(64) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}".into(),
        format!("{LONG}{{{{ a.replace('x', a) | length }}}}"),
        format!("{LONG}{{{{ a | replace('x', a) | length }}}}"),
        format!("{LONG}{{{{ a.join(a) | length }}}}"),
        format!("{LONG}{{{{ a | join(a) | length }}}}"),
        "{{ '%999999999d' | format(1) }}".into(),
        format!("{LISTS}{{{{ ns.a | tojson | length }}}}"),
        format!("{LISTS}{{{{ ns.a | string | length }}}}"),
        format!("{LISTS}{{{{ ns.a }}}}"),
        format!("{CYCLE}{{{{ ns | tojson }}}}"),
        format!("{CYCLE}{{{{ ns | string }}}}"),
        format!("{CYCLE}{{{{ ns }}}}"),
        format!("{DEEP}{{{{ ns.a | tojson }}}}"),
        format!("{DEEP}{{{{ ns.a }}}}"),
        as_deep_as_can_be("{{ ", "(", "1", ")", " }}"),
        as_deep_as_can_be("{{ ", "[", "1", "]", " }}"),
        as_deep_as_can_be("", "{% if 1 %}", "", "{% endif %}", ""),
        as_deep_as_can_be("{{ a", ".a", "", "", " }}"),
        "{% include 'chat' %}".into(),
        "{% import 'chat' as chat %}".into(),
        "{% extends 'chat' %}".into(),
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}".into(),
        "x".repeat(SOURCE_MAX + 1),
    ];
    for bomb in bombs {
        let start: String = bomb.chars().take(120).collect();
        let rendered = render(&bomb, "").map(|text| text.len());
        assert!(matches!(rendered, Err(PromptError::Template(_))), "{start}: {rendered:?}");
    }
}

#[test]
fn json_of_every_kind_is_pythons() {
    let source =
        "{{ {'a': [], 'b': {}, 'c': [none, true, 1.5, 'é\\n'], 1: {'d': (1, 2)}} | tojson }}";
    let want = r#"{"a": [], "b": {}, "c": [null, true, 1.5, "é\n"], "1": {"d": [1, 2]}}"#;
    assert_eq!(render(source, "").unwrap(), want);
    let source = "{{ {'a': [1, {}], 'b': {'c': []}} | tojson(indent=2) }}";
    let want = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": []\n  }\n}";
    assert_eq!(render(source, "").unwrap(), want);
    assert!(render("{{ [] | tojson(sort=1) }}", "").is_err(), "an option that does not exist");
}
