//! Any bytes as a model file with a tokenizer, and the last of them as a text for it.
#![no_main]

use inferno_engine::output::OutputText;
use inferno_engine::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(file) = inferno_fuzz::open(bytes) else { return };
    let Ok(tokenizer) = Tokenizer::load(&file) else { return };
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(256)..]);
    let Ok(ids) = tokenizer.encode(&text) else { return };
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    let _ = tokenizer.decode(&ids);
    let masked = tokenizer.specials().mask(&text, '\u{fdd0}');
    let _ = tokenizer.encode_masked(&masked, '\u{fdd0}');
    // The same bytes as tokens of an answer.
    let ids = bytes.iter().map(|byte| u32::from(*byte));
    let whole: Vec<u8> = ids.clone().flat_map(|id| tokenizer.visible_bytes(id)).copied().collect();
    let mut output = OutputText::new(Vec::new(), false);
    let mut shown: String = ids.map(|id| output.push(tokenizer.visible_bytes(id)).0).collect();
    shown += &output.finish().0;
    assert_eq!(shown, String::from_utf8_lossy(&whole));
});
