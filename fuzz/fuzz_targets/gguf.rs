//! Any bytes as a model file: header, metadata, tensors, and the decoder that would be built of them.
#![no_main]

use inferno_engine::model::Decoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut file) = inferno_fuzz::open(bytes) else { return };
    let names: Vec<String> = file.unused().into_iter().map(str::to_owned).collect();
    for name in names {
        let _ = file.tall_weight(&name, 32);
        let _ = file.vector(&name, 32);
        let _ = file.stacked_weights(&name, 2, 2, 32);
    }
    for key in ["general.alignment", "general.architecture", "llama.block_count", "k", ""] {
        let _ = (file.get(key), file.integer(key), file.count(key), file.float(key));
        let _ = (file.flag(key), file.text(key), file.texts(key));
    }
    let _ = file.parameters();
    let _ = Decoder::load(&mut file);
});
