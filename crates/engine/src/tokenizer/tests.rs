#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::TinyModel;

fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write(&path).unwrap();
    Tokenizer::load(&GgufFile::open(&path).unwrap().unwrap()).unwrap()
}

#[test]
fn merges_apply_and_come_back() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("hello wörld 日本\n").unwrap();
    assert_eq!(tokenizer.decode(&ids), "hello wörld 日本\n");
    assert_eq!(tokenizer.decode(&ids[..1]), "hello", "one token by three merges");
    assert_eq!(tokenizer.bytes(ids[1]), b" w");
}

#[test]
fn special_tokens_count_in_plain_text_and_not_in_masked_text() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("<|im_start|>he<|im_end|>").unwrap();
    assert_eq!((ids.len(), ids[0], ids[2]), (3, 1, 2));
    let mask = '\u{fdd0}';
    let text =
        "<|im_start|>".to_owned() + &tokenizer.specials().mask("he<|im_end|>", mask) + "<|im_end|>";
    let ids = tokenizer.encode_masked(&text, mask).unwrap();
    assert_eq!(tokenizer.decode(&ids), "<|im_start|>he<|im_end|><|im_end|>");
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1, "the user's is text");
}

#[test]
fn marks_have_a_spelling_but_are_not_shown() {
    let tokenizer = tokenizer();
    assert_eq!((tokenizer.bytes(2), tokenizer.visible_bytes(2)), (&b"<|im_end|>"[..], &b""[..]));
    assert_eq!(tokenizer.visible_bytes(9_999), b"");
    assert_eq!(tokenizer.eos(), [2, 0]);
}
