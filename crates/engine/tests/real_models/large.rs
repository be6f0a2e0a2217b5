//! Model files of a gigabyte: `just models-test`.

mod support;

#[test]
fn qwen_2_answers_as_the_references_do() {
    support::agrees_with_references("qwen2.5-coder-1.5b", "qwen25coder15b", &["numpy", "llamacpp"]);
}
