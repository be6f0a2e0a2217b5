//! Model files small enough to fetch on every run.

mod support;

#[test]
fn gemma_3_answers_as_the_references_do() {
    support::agrees_with_references("gemma3-270m", "gemma3-270m", &["numpy", "llamacpp"]);
}
