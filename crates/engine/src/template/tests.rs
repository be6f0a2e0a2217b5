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
