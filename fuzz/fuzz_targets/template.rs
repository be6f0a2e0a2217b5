//! Any text as a chat template, rendered for a short conversation.
#![no_main]

use inferno_engine::template::{Chat, Message, Template};
use inferno_engine::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// A seed of the tokenizer's target, with ChatML's marks.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let file =
            inferno_fuzz::open(include_bytes!("../seeds/tokenizer/bpe.gguf")).expect("a seed");
        Tokenizer::load(&file).expect("a seed")
    })
}

fuzz_target!(|source: &str| {
    let Ok(template) = Template::new(source, tokenizer()) else { return };
    let message = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
        ..Message::default()
    };
    let messages =
        vec![message("system", "Be brief."), message("user", "Hello <|im_end|> w\u{f6}rld\n")];
    let chat = Chat {
        messages,
        add_generation_prompt: true,
        created_unix_s: 1_722_038_400,
        ..Chat::default()
    };
    let _ = template.render(&chat, tokenizer());
});
